"""What an installation without extras can do, and what it says where it cannot."""

import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

# A child process in which only what the base installation brings can be imported.
BARE = """
import importlib.metadata as metadata, re, sys

def closure(name, seen):
    for text in metadata.requires(name) or []:
        if "extra ==" in text:
            continue
        needed = re.match(r"[A-Za-z0-9._-]+", text)[0]
        key = re.sub(r"[-_.]+", "-", needed).lower()
        if key not in seen:
            try:
                metadata.distribution(needed)
            except metadata.PackageNotFoundError:
                continue
            seen.add(key)
            closure(needed, seen)
    return seen

base = closure("runtide", {"runtide"})
owners = metadata.packages_distributions()

class Bare:
    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        owned = {re.sub(r"[-_.]+", "-", each).lower() for each in owners.get(top, [])}
        if owned and not owned & base:
            raise ModuleNotFoundError(f"No module named {top!r}", name=top)
        return None

sys.meta_path.insert(0, Bare())
import runtide.cli.extras
import importlib.util
_find = importlib.util.find_spec
def find_spec(name, package=None):
    try:
        return _find(name, package)
    except ModuleNotFoundError:
        return None
runtide.cli.extras.find_spec = find_spec
"""


def bare(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BARE + textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_base_installation_is_what_was_promised() -> None:
    found = bare("print(sorted(base))")
    assert found.returncode == 0, found.stderr
    for name in ("grpcio", "protobuf", "psutil", "nvidia-ml-py"):
        assert f"'{name}'" in found.stdout
    for name in ("typer", "rich", "numpy", "pyarrow", "pandas", "streamlit"):
        assert f"'{name}'" not in found.stdout


@pytest.mark.parametrize("command", ["agent", "sync", "run"])
def test_base_commands_need_no_extra(command: str) -> None:
    found = bare(f"""
        from runtide.cli import main
        try:
            code = main([{command!r}, "--help"])
        except SystemExit as ended:
            code = ended.code
        assert not code, code
        heavy = {{"typer", "rich", "numpy", "pydantic", "pyarrow"}} & set(sys.modules)
        assert not heavy, heavy
    """)
    assert found.returncode == 0, found.stderr
    assert "usage" in found.stdout.lower()


def test_a_command_that_lacks_its_extra_names_it() -> None:
    found = bare("""
        from runtide.cli import main
        sys.exit(main(["up"]))
    """)
    assert found.returncode == 1
    assert "pip install 'runtide[all]'" in found.stderr
    found = bare("""
        from runtide.cli import main
        sys.exit(main(["sql", "SELECT 1"]))
    """)
    assert "pip install 'runtide[warehouse]'" in found.stderr


def test_importing_runtide_is_light() -> None:
    found = bare("""
        import runtide
        heavy = {"grpc", "numpy", "pandas", "asyncio", "typer", "multiprocessing"} & set(sys.modules)
        assert not heavy, heavy
    """)
    assert found.returncode == 0, found.stderr


def test_every_extra_that_is_named_exists() -> None:
    from runtide.cli.extras import NEEDS

    extras = set(project()["optional-dependencies"])
    for command, need in NEEDS.items():
        assert set(need.extra.split(",")) <= extras, command


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def test_every_dependency_has_its_reason() -> None:
    without = []
    block, in_block = "", False
    for line in (ROOT / "pyproject.toml").read_text().splitlines():
        if line.startswith(("dependencies = [", *(f"{name} = [" for name in project()["optional-dependencies"]))):
            in_block, block = not line.rstrip().endswith("]"), line
        elif line.startswith("]"):
            in_block = False
        elif in_block and line.strip() and "#" not in line and '"runtide[' not in line and '"types-' not in line:
            without.append((block, line))
    assert [line for _, line in without if "stubs" not in line] == []
