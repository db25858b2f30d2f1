"""A run once more: out of a repository with uncommitted changes, from a script alone, and where it must not be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtide.testing.stack import Stack
from runtide.testing.waiting import until

TRAIN = """
import random, sys, runtide
from lib import SCALE
run = runtide.init("again", config={"seed": int(sys.argv[1]), "noise": float(sys.argv[2])}, tags=["mine"])
random.seed(run.config.seed)
for step in range(20):
    run.log({"loss": SCALE * random.random() + run.config.noise * random.SystemRandom().random()}, step=step)
run.finish()
"""

SHORT = """
import runtide
run = runtide.init("again")
run.log({"a": 1})
run.finish()
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("reproduce") / "home")
    made.up("--no-dashboard")
    yield made
    made.end()


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)


def train(stack: Stack, folder: Path, *arguments: str, script: str = "train.py") -> str:
    """Run it; returns its run, when all that it says is stored."""
    before = {row[0] for row in stack.sql("SELECT run_id FROM runs")}
    done = subprocess.run(
        [sys.executable, script, *arguments], cwd=folder, env=stack.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (run,) = until(lambda: {row[0] for row in stack.sql("SELECT run_id FROM runs")} - before)
    stack.wait_state(run, "finished")
    until(lambda: bool(stack.sql(f"SELECT 1 FROM fingerprints WHERE run_id = '{run}' AND code != ''")))
    return run


def test_code_that_was_not_committed_runs_again_and_comes_out_the_same(stack: Stack, tmp_path: Path) -> None:
    code = tmp_path / "code"
    (code / "jobs").mkdir(parents=True)
    (code / "jobs" / "lib.py").write_text("SCALE = 1\n")
    (code / "jobs" / "train.py").write_text(TRAIN.replace("SCALE *", "1 *"))
    git(code, "init", "-q", "-b", "main")
    git(code, "add", ".")
    git(code, "commit", "-qm", "first")
    (code / "jobs" / "train.py").write_text(TRAIN)  # not committed
    (code / "jobs" / "lib.py").unlink()
    (code / "jobs" / "lib").mkdir()
    (code / "jobs" / "lib" / "__init__.py").write_text("SCALE = 3\n")  # not tracked
    run = train(stack, code, "7", "0", script="jobs/train.py")

    folder = tmp_path / "again"
    done = stack.runtide("reproduce", run, "--dir", str(folder), "--run", "--tolerance", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same: final values of 1 metrics" in done.stdout
    assert (folder / "code" / "jobs" / "lib" / "__init__.py").read_text() == "SCALE = 3\n"
    assert not (folder / "code" / "jobs" / "lib.py").exists()
    runs = stack.sql(f"SELECT run_id, tags FROM runs WHERE has(tags, 'reproduces:{run}')")
    assert len(runs) == 1
    assert "mine" in runs[0][1]
    series = "SELECT groupArray(value) FROM (SELECT value FROM metrics WHERE run_id = '{}' ORDER BY step)"
    assert stack.sql(series.format(run)) == stack.sql(series.format(runs[0][0]))
    assert "SCALE" not in (folder / "run.sh").read_text()

    again = stack.runtide("reproduce", run, "--dir", str(folder))
    assert again.returncode != 0
    assert "it is a new or an empty folder" in again.stderr


def test_what_comes_out_differently_is_named_and_ends_with_1(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    script = tmp_path / "code" / "train.py"
    script.write_text(TRAIN.replace("from lib import SCALE", "SCALE = 2"))  # in no repository
    run = train(stack, script.parent, "1", "0.5")
    script.unlink()
    done = stack.runtide("reproduce", run, "--dir", str(tmp_path / "again"), "--run")
    assert done.returncode == 1
    assert "loss: " in done.stdout
    assert "not the same: 1 of 1 metrics differ" in done.stdout
    done = stack.runtide("reproduce", run, "--dir", str(tmp_path / "more"), "--run", "--tolerance", "1", "--json")
    assert done.returncode == 0


def test_a_script_whose_secrets_were_masked_is_not_started(stack: Stack, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(f'api_key = "T0PSECRETVALUE"\n{SHORT}')
    run = train(stack, tmp_path)
    done = stack.runtide("reproduce", run, "--dir", str(tmp_path / "again"), "--run")
    assert done.returncode != 0
    assert "train.py is not what ran" in done.stderr
    assert stack.sql(f"SELECT count() FROM runs WHERE has(tags, 'reproduces:{run}')") == [(0,)]


def test_what_is_missing_is_named_and_counted(stack: Stack, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SHORT)
    run = train(stack, tmp_path)
    told = json.loads(stack.runtide("reproduce", run, "--check", "--json").stdout)["completeness"]
    assert told["score"] == 75
    assert sorted(told["missing"]) == [
        "no configuration was given to init()",
        "no dataset was named by use_dataset()",
    ]
