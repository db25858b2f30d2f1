"""Experiments on a whole stack: two real runs, progress, dependencies, a decision, the budget, and the report."""

from __future__ import annotations

import json
from typing import Any

import pytest
from runtide.testing.stack import Stack
from runtide.testing.waiting import until

JOB = """
import sys, time, runtide
run_id, experiment, *values = sys.argv[1:]
run = runtide.init("default", run_id=run_id, experiment=experiment)
for value in values:
    run.log({"val/acc": float(value)})
    time.sleep(0.05)
run.finish()
"""


def done(stack: Stack, *arguments: str) -> Any:
    said = stack.runtide("experiment", *arguments, "--json")
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


def refused(stack: Stack, *arguments: str) -> str:
    said = stack.runtide("experiment", *arguments)
    assert said.returncode == 1, said.stdout
    return said.stderr


def row(stack: Stack, name: str) -> Any:
    (found,) = [row for row in done(stack, "list") if row["experiment"] == name]
    return found


@pytest.mark.slow
def test_an_experiment_from_its_plan_to_its_report(stack: Stack) -> None:
    stack.up("--no-dashboard")
    objective = ("--objective", "val/acc max 0.95", "--hypothesis", "wider <b>nets</b>", "--owner", "ada")
    made = done(stack, "create", "wide", *objective, "--from", "2026-01-01", "--budget", "1000 hours")
    assert (made["metric"], made["goal"], made["target"], made["owner"]) == ("val/acc", "max", 0.95, "ada")
    assert (made["best"], made["to_go"], made["met"], made["runs"]) == (None, None, False, 0)
    assert "it exists" in refused(stack, "create", "wide")
    assert "METRIC max|min TARGET" in refused(stack, "plan", "wide", "--objective", "val/acc up 1")
    assert "there is no experiment wild" in refused(stack, "plan", "wild", "--owner", "ada")
    planned = done(stack, "plan", "wide", "--to", "2026-01-31", "--deadline", "2026-02-01")
    dates = ("planned_from", "planned_to", "deadline")
    assert [planned[name] for name in dates] == ["2026-01-01", "2026-01-31", "2026-02-01"]
    assert "to must not lie before from" in refused(stack, "plan", "wide", "--to", "2025-01-31")

    done(stack, "create", "tune")
    done(stack, "depend", "tune", "experiment:wide", "--needs", "model", "--why", "starts from it")
    assert row(stack, "tune")["blocked_by"] == ["experiment:wide"]
    assert "waits for wide itself" in refused(stack, "depend", "wide", "experiment:tune")

    stack.run_job(JOB, "first", "wide", "0.5", "0.9", "0.8")
    stack.wait_state("first", "finished")
    until(lambda: row(stack, "wide")["best"] == 0.9, 30, "the best value is there")
    found = row(stack, "wide")
    assert (found["best_run"], found["met"], found["runs"], found["runs_finished"]) == ("first", False, 1, 1)
    assert found["to_go"] == pytest.approx(0.05)
    stack.run_job(JOB, "second", "wide", "0.7", "0.96", "nan")
    stack.wait_state("second", "finished")
    until(lambda: row(stack, "wide")["met"], 30, "the objective is met")
    found = row(stack, "wide")
    assert (found["best"], found["best_run"], found["to_go"], found["runs"]) == (0.96, "second", 0, 2)
    assert row(stack, "tune")["blocked_by"] == []
    done(stack, "depend", "tune", "run:second")
    edges = stack.sql("SELECT experiment, depends_on, needs, why, state FROM experiment_dependencies ORDER BY 2")
    assert edges == [
        ("tune", "experiment:wide", "model", "starts from it", "ready"),
        ("tune", "run:second", "order", "", "ready"),
    ]
    assert done(stack, "depend", "tune", "run:second", "--remove")["depends"] == ["experiment:wide"]

    _budget(stack)
    assert "why it was decided" in refused(stack, "decide", "wide", "accepted", "--reason", " ")
    done(stack, "decide", "wide", "rejected", "--reason", "one seed only")
    assert done(stack, "decide", "wide", "accepted", "--reason", "0.96 | twice")["decision"] == "accepted"
    _report(stack)
    assert stack.runtide("audit", "verify").returncode == 0


def _budget(stack: Stack) -> None:
    """Every alert, told from what the runs took; the budget burns down run by run."""
    found = row(stack, "wide")
    hours = sum(seconds for (seconds,) in stack.sql("SELECT duration_s * world_size / 3600 FROM runs"))
    assert hours > 0
    assert found["budget_used"] == pytest.approx(hours)
    assert (found["budget_used_share"], found["budget_alert"]) == (pytest.approx(hours / 1000), "")
    for share, alert in ((0.5, ""), (0.9, "80 %"), (1.5, "over")):
        told = done(stack, "budget", "wide", f"{hours / share:.12f} gpu-hours")
        assert (told["budget_used_share"], told["budget_alert"]) == (pytest.approx(share, rel=1e-3), alert)
    runs = done(stack, "show", "wide")["runs"]
    assert [run["run_id"] for run in runs] == ["first", "second"]
    assert [run["best_so_far"] for run in runs] == [0.9, 0.96]
    assert runs[1]["budget_used"] == pytest.approx(hours)
    assert runs[1]["budget_left"] == pytest.approx(hours / 1.5 - hours, rel=1e-3)
    money = done(stack, "budget", "wide", "500 EUR")
    assert (money["budget_used"], money["budget_alert"]) == (None, ""), "what is not known is not 0"


def _report(stack: Stack) -> None:
    done(stack, "depend", "wide", "run:first", "--needs", "data")
    done(stack, "create", "later")
    done(stack, "depend", "tune", "experiment:later")
    text = stack.runtide("experiment", "report", "--project", "default").stdout
    assert "# Experiments of project default" in text
    assert "1 of 1 objectives met, 0 late." in text
    assert "| val/acc max 0.95 | 0.96 | second | met |" in text
    assert "| accepted | 0.96 \\| twice |" in text
    assert "| rejected | one seed only |" in text
    assert "| tune | experiment:later | order |" in text
    assert "1 open of 3." in text
    assert "2026-01-01 to 2026-01-31" in text
    assert "█" in text
    page = stack.home.parent / "report.html"
    assert stack.runtide("experiment", "report", "--format", "html", "--out", str(page)).returncode == 0
    written = page.read_text()
    assert "<td>wider &lt;b&gt;nets&lt;/b&gt;</td>" in written
    assert "<td>1 open" not in written
    assert "<p>1 open of 3.</p>" in written
    assert "it cannot be written" in refused(stack, "report", "--format", "html", "--out", str(page))
