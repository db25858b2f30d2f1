"""Who may import whom. The rooms stay apart only as long as this is checked."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "services" / "runtide"

ALLOWED = {
    "wire": {"v1"},
    "spool": {"wire", "v1"},
    "sdk": {"spool", "wire", "v1"},
    "agent": {"spool", "wire", "v1"},
    "bus": {"wire", "v1"},
    "gateway": {"bus", "wire", "v1", "warehouse"},
    "sink": {"bus", "wire", "v1", "warehouse"},
    "processor": {"bus", "wire", "v1", "warehouse"},
    "warehouse": {"wire", "v1"},
    "api": {"warehouse", "wire", "v1"},
    "embedded": {"wire"},
    "integrations": {"sdk"},
    "dashboards": {"warehouse", "wire", "v1"},
}
"""Rooms that each room may import, beside itself. `cli` composes, `testing` imitates: both may import anything."""

NOT_IN_THE_JOB = {"grpc", "numpy", "pandas", "torch", "jax", "asyncio"}
"""What the import of runtide must never bring into a training process."""


def imports(path: Path, top_level_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text(), str(path))
    nodes = top_level(tree) if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            assert node.module is not None
            yield node.module
            if node.module == "runtide":
                yield from (f"runtide.{name.name}" for name in node.names)


def top_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements that run when the module is imported; what type checkers alone see is not among them."""
    for node in tree.body:
        if isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.dump(node.test):
                yield from node.body
                yield from node.orelse
        elif isinstance(node, ast.Try):
            yield from node.body
        else:
            yield node


def files(room: str) -> list[Path]:
    folder = ROOT / "dashboards" if room == "dashboards" else PACKAGE / room
    return sorted(folder.rglob("*.py"))


def rooms_in(path: Path) -> set[str]:
    found = {name.split(".")[1] for name in imports(path) if name.startswith("runtide.")}
    return {name for name in found if name in {*ALLOWED, "v1", "cli"}}


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_only_what_lies_downstream(room: str) -> None:
    wrong = {
        str(path.relative_to(ROOT)): sorted(extra)
        for path in files(room)
        if (extra := rooms_in(path) - ALLOWED[room] - {room})
    }
    assert wrong == {}


def test_every_room_is_judged() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert rooms - {"v1", "cli", "testing"} <= set(ALLOWED)


@pytest.mark.parametrize("room", ["sdk", "spool", "wire"])
def test_the_job_is_spared_heavy_imports(room: str) -> None:
    wrong = {
        str(path.relative_to(ROOT)): sorted(heavy)
        for path in files(room)
        if (heavy := {name.split(".")[0] for name in imports(path, top_level_only=True)} & NOT_IN_THE_JOB)
    }
    assert wrong == {}


def test_nobody_needs_what_is_for_tests() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for room in [*ALLOWED, "cli"]
        for path in files(room)
        if any(name.startswith("runtide.testing") for name in imports(path))
    ]
    assert wrong == ["services/runtide/cli/commands_chaos.py"]  # the command that is a test


def test_grpc_is_nowhere_in_the_sdk() -> None:
    wrong = [str(path) for path in files("sdk") if any(name.split(".")[0] == "grpc" for name in imports(path))]
    assert wrong == []
