"""The demo, as a person without a terminal runs it."""

import subprocess
import sys
from pathlib import Path

import pytest
from runtide.cli.ports import is_free
from runtide.testing.stack import Stack, left_of


@pytest.mark.slow
def test_the_demo_ends_clean(stack: Stack, tmp_path: Path) -> None:
    ports = [word for name in ("gateway", "clickhouse", "metrics", "dashboard") for word in (f"--{name}-port", "0")]
    found = stack.runtide("demo", "--seconds", "5", "--home", str(stack.home), *ports)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "watch it on http://127.0.0.1:" in found.stdout
    assert "train/loss" in found.stdout
    assert "clean: everything that was declared is stored, once" in found.stdout
    accuracy = float(found.stdout.split("test accuracy ")[-1].split()[0])
    assert accuracy > 0.9
    assert "everything is stopped" in found.stdout
    assert left_of(stack.home) == []
    address = found.stdout.split("watch it on http://127.0.0.1:")[1].split()[0]
    assert is_free(int(address))


def test_the_job_needs_only_the_public_api() -> None:
    code = "import runtide.cli.demo_job, sys; print([m for m in sys.modules if m.startswith('runtide.')])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[1] for name in eval(found.stdout)}
    assert loaded <= {"cli", "wire"}
