"""Real jobs through the whole stack, then read, compared, ranked and exported as a person would."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import runtide
from runtide.testing.stack import Stack

TRAIN = """
import random, sys, runtide
name, seed, lr = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
random.seed(seed)
run = runtide.init("vision", run_id=name, experiment="digits", config={"lr": lr, "seed": seed, "model": {"depth": 2}})
run.define_metric("acc", goal="max")
for step in range(40):
    run.log({"acc": lr * step + random.random() / 100, "loss": random.random()})
run.log_confusion_matrix([0, 1, 1], [0, 1, int(lr > 0.1)], step=39)
run.finish()
"""
RUNS = (("a1", 1, 0.1), ("a1-again", 1, 0.1), ("a2", 2, 0.1), ("b1", 1, 0.2), ("b2", 2, 0.2))


@pytest.fixture
def ran(stack: Stack, tmp_path: Path) -> Stack:
    """Five runs, of which one is another one again; the last comes of code that was changed."""
    stack.up("--no-dashboard")
    code = tmp_path / "train.py"
    for name, seed, lr in RUNS:
        code.write_text(TRAIN + ("# changed\n" if name == "b2" else ""))
        command = [sys.executable, str(code), name, str(seed), str(lr)]
        subprocess.run(command, env=stack.environment(), check=True, timeout=120, stdout=subprocess.DEVNULL)
    stack.wait_agent()
    for name, _, _ in RUNS:
        stack.wait_state(name, "finished")
    return stack


def said(stack: Stack, code: int, *arguments: str) -> str:
    done = stack.runtide(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_what_ran_is_read_compared_ranked_and_exported(ran: Stack, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{ran.state.ports.clickhouse}"
    with runtide.Api(url, project="vision") as api:
        found = api.runs("config.lr > 0.15 AND best('acc') > 1 AND state = 'finished'", "best('acc') DESC")
        assert {row["run_id"] for row in found} == {"b1", "b2"}
        run = api.run("b1")
        assert run.config == {"lr": 0.2, "seed": 1, "model": {"depth": 2}}
        (entry,) = [row["path"] for row in run.files if row["kind"] == "entry"]
        assert run.read_file(entry) == TRAIN
        assert run.environment["packages"]
        assert [row["kind"] for row in run.figures] == ["confusion_matrix"]
        assert len(run.history("acc")) == 40
        assert len(run.history("acc", x="loss")) == 40

        apart = api.compare(["a1", "b2"], step=3)
        assert apart.config == {"lr": [0.1, 0.2], "seed": [1, 2]}
        assert "+# changed\n" in apart.code["vision/b2"][entry]
        assert set(apart.figures) == {"confusion_matrix confusion_matrix"}
        assert apart.packages == {}
        acc = apart.metrics["acc"]
        assert acc["best"][0] == max(row["value"] for row in api.run("a1").history("acc"))
        third = [row["value"] for row in api.run("a1").history("acc") if row["step"] == 3]
        assert acc["at_step"][0] == third[0]

        again = api.compare(["a1", "a1-again"])
        assert again.outcomes() == []
        assert (again.config, again.code["vision/a1-again"], again.figures) == ({}, {}, {})

        first, second = api.leaderboard("acc", group="*")
        assert (first["group"], first["n"], first["seeds"]) == ({"lr": 0.2, "model.depth": 2}, 2, 2)
        assert (second["n"], second["seeds"]) == (3, 2)
        assert first["ci_low"] < first["mean"] < first["ci_high"]
        mean = api.leaderboard("acc", by="mean:5", filter="run_id = 'a2'").rows()[0]["value"]
        last = [row["value"] for row in api.run("a2").history("acc")][-5:]
        assert mean == pytest.approx(sum(last) / 5)
        assert api.importance("acc").rows()[0]["key"] == "lr"
        front = api.pareto({"acc": "max", "loss": "min", "duration_s": "min"}).rows()
        assert {"b1", "b2"} & {row["run_id"] for row in front}

    assert "the same: final values of 2 metrics" in said(ran, 0, "compare", "a1", "a1-again", "--tolerance", "0")
    differs = said(ran, 1, "compare", "a1", "a2", "--tolerance", "0")
    assert "acc: " in differs
    assert "not the same: 2 of 2 metrics" in differs
    assert json.loads(said(ran, 0, "compare", "a1", "a2", "--tolerance", "9", "--json"))["same"] is True
    shown = said(ran, 0, "compare", "a1", "b2")
    assert "lr" in shown
    assert "+# changed" in shown
    ranked = json.loads(said(ran, 0, "leaderboard", "--metric", "acc", "--experiment", "digits", "--json"))
    assert [row["place"] for row in ranked] == [1, 2, 3, 4, 4]
    assert "lr=0.2" in said(ran, 0, "leaderboard", "--metric", "acc", "--group", "lr")

    folder = tmp_path / "out"
    report = json.loads(said(ran, 0, "export", "--project", "vision", "--to", str(folder), "--json"))
    by_view = {one["view"]: one for one in report}
    assert by_view["metrics"]["rows"] == pq.read_table(folder / "metrics.parquet").num_rows == 5 * 40 * 2
    assert pq.read_table(folder / "runs.parquet", columns=["run_id"]).num_rows == 5
    assert {path.name for path in folder.iterdir()} == {f"{view}.parquet" for view in by_view}
