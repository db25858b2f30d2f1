"""Runs that were run before: one real script, started again and again, and what it is told before it trains."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtide.sdk.agent_link import AgentLink
from runtide.testing.stack import Stack
from runtide.testing.waiting import until

TRAIN = """
import sys, time, runtide
begin = time.monotonic()
config = {"model": {"depth": 3, "lr": float(sys.argv[1])}, "name": sys.argv[1], "seed": int(sys.argv[2])}
policy = sys.argv[3] if len(sys.argv) > 3 else None
try:
    run = runtide.init("vision", config=config, on_duplicate=policy)
except runtide.DuplicateRun as found:
    print("duplicate", found.duplicate.run_id, file=sys.stderr)
    raise
print("trains after", time.monotonic() - begin, file=sys.stderr)
run.define_metric("val/acc", goal="max")
for step, value in enumerate((0.5, 0.875, 0.75)):
    run.log({"val/acc": value, "loss": 1 - value}, step=step)
run.finish()
print("run", run.id, "attempt", run.attempt)
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("duplicates") / "home")
    made.up("--no-dashboard")
    yield made
    made.end()


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("code") / "train.py"
    path.write_text(TRAIN)
    return path


def train(stack: Stack, script: Path, *arguments: str, **variables: str) -> tuple[str, str]:
    """Run it; returns its run and what it said on stderr."""
    done = subprocess.run(
        [sys.executable, script.name, *arguments],
        cwd=script.parent,
        env=stack.environment() | {"RUNTIDE_ON_DUPLICATE": "warn", "RUNTIDE_SILENT": "0"} | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    run = done.stdout.removeprefix("run ").partition(" ")[0].strip()
    if run:
        stack.wait_state(run, "finished")
        until(lambda: bool(stack.sql(f"SELECT 1 FROM fingerprints WHERE run_id = '{run}' AND code != ''")))
    return run, done.stderr


def test_a_script_that_is_started_again_is_told_of_the_first_run_before_it_trains(stack: Stack, script: Path) -> None:
    first, said = train(stack, script, "0.1", "7")
    assert "the same as" not in said

    second, said = train(stack, script, "0.1", "7")
    told = said.splitlines()
    assert second != first
    warned = next((at for at, line in enumerate(told) if f"the same as run {first}, finished" in line), -1)
    assert warned >= 0, said
    assert warned < next(at for at, line in enumerate(told) if line.startswith("trains after"))
    assert sum("the same as" in line for line in told) == 1
    assert "nearly" not in told[warned]
    assert "val/acc 0.875" in told[warned]  # the best of a metric with a goal
    assert re.search(r"; cost: [0-9.e-]+ s", told[warned])


def test_one_parameter_that_differs_makes_it_a_near_duplicate_and_is_named(stack: Stack, script: Path) -> None:
    first, _ = train(stack, script, "0.25", "1")
    _, said = train(stack, script, "0.25", "2")
    line = next(line for line in said.splitlines() if f"nearly the same as run {first}" in line)
    assert "config.seed 1 there and 2 here" in line
    assert "model.lr" not in line


def test_other_code_with_the_same_configuration_is_near_too(stack: Stack, script: Path, tmp_path: Path) -> None:
    first, _ = train(stack, script, "0.3", "30")
    other = tmp_path / "train.py"
    other.write_text(TRAIN + "# changed\n")
    _, said = train(stack, other, "0.3", "30")
    line = next(line for line in said.splitlines() if f"nearly the same as run {first}" in line)
    assert "different: code" in line
    _, said = train(stack, other, "0.4", "40")
    assert "the same as" not in said


def test_skip_ends_the_script_and_attach_goes_on_with_the_first_run(stack: Stack, script: Path) -> None:
    first, _ = train(stack, script, "0.5", "5")
    run, said = train(stack, script, "0.5", "5", "skip")
    assert run == ""
    assert f"duplicate {first}" in said
    assert "trains after" not in said
    run, said = train(stack, script, "0.5", "5", "attach")
    assert run == first
    until(lambda: stack.sql(f"SELECT max(attempt) FROM attempts WHERE run_id = '{first}'") == [(2,)])
    run, said = train(stack, script, "0.5", "5", "ignore")
    assert run not in ("", first)
    assert "the same as" not in said


def test_where_nobody_answers_the_run_goes_on(script: Path, tmp_path: Path) -> None:
    env = os.environ | {"RUNTIDE_DIR": str(tmp_path), "RUNTIDE_URL": "grpc://127.0.0.1:1"}
    try:
        done = subprocess.run(
            [sys.executable, script.name, "1", "1", "skip"], cwd=script.parent, env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "trains after" in done.stderr
        assert "the same as" not in done.stderr
    finally:  # it would wait for the gateway for ever
        answer = AgentLink(tmp_path).ask({"op": "ping"})
        assert answer is not None
        os.kill(answer["pid"], signal.SIGTERM)


def test_what_repeating_cost_and_what_was_explored_is_sql_and_a_command(stack: Stack, script: Path) -> None:
    first, _ = train(stack, script, "0.9", "9")
    second, _ = train(stack, script, "0.9", "9")
    third, _ = train(stack, script, "0.9", "8")
    found = stack.sql(f"SELECT run_ids, runs, finished, seconds FROM duplicates WHERE first_run = '{first}'")
    ((seconds,),) = stack.sql(f"SELECT duration_s FROM runs WHERE run_id = '{second}'")
    assert found == [([first, second], 2, 2, seconds)]
    tried = stack.sql(
        "SELECT value, runs, finished FROM explored WHERE key = 'seed' AND value IN ('8', '9') ORDER BY value"
    )
    assert tried == [("8", 1, 1), ("9", 2, 2)]
    groups = json.loads(stack.runtide("duplicates", "--project", "vision", "--json").stdout)
    assert [first, second] in [group["run_ids"] for group in groups]
    assert third not in str(groups)
    shown = stack.runtide("explored", "--project", "vision").stdout
    assert "model.lr" in shown
