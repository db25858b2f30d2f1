"""Experiments on a whole stack: two real runs, progress, dependencies, a decision, the budget, and the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from runtide.testing.stack import Stack
from runtide.testing.waiting import until

from tests.pipeline.sampled_runs import ran, reading

JOB = """
import os, pathlib, sys, time, runtide
run_id, experiment, *values = sys.argv[1:]
run = runtide.init("default", run_id=run_id, experiment=experiment)
for value in values:
    run.log({"val/acc": float(value)})
    time.sleep(0.05)
file = pathlib.Path(os.environ["RUNTIDE_HOME"], run_id)
file.write_text(run_id)
run.log_artifact(file, "wide-net", kind="model")
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
    assert "waits for experiment:wide itself" in refused(stack, "depend", "wide", "experiment:tune")

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
    _edges_of_runs(stack)
    edges = stack.sql("SELECT * EXCEPT project FROM experiment_dependencies ORDER BY experiment, run_id, depends_on")
    assert edges == [
        ("", "third:1", "experiment:tune", "order", "", "blocked"),
        ("", "third:1", "run:second", "model", "its weights", "ready"),
        ("tune", "", "experiment:wide", "model", "starts from it", "ready"),
        ("tune", "", "run:second", "order", "", "ready"),
        ("wide", "first", "run:second", "data", "", "ready"),
    ]
    done(stack, "depend", "run:first", "run:second", "--remove")
    done(stack, "depend", "run:third:1", "experiment:tune", "--remove")
    done(stack, "depend", "run:third:1", "run:second", "--remove")
    assert done(stack, "depend", "tune", "run:second", "--remove")["depends"] == ["experiment:wide"]

    _budget(stack)
    assert "why it was decided" in refused(stack, "decide", "wide", "accepted", "--reason", " ")
    done(stack, "decide", "wide", "rejected", "--reason", "one seed only")
    assert done(stack, "decide", "wide", "accepted", "--reason", "0.96 | twice")["decision"] == "accepted"
    until(lambda: stack.sql("SELECT count() FROM artifacts") == [(2,)], 30, "both models are stored")
    _report(stack)
    assert stack.runtide("audit", "verify").returncode == 0


def _edges_of_runs(stack: Stack) -> None:
    """A run waits too, be it that it has not started yet."""
    done(stack, "depend", "run:third:1", "run:second", "--needs", "model", "--why", "its weights")
    told = done(stack, "depend", "run:third:1", "experiment:tune")
    assert told == {"project": "default", "waits": "run:third:1", "depends": ["experiment:tune", "run:second"]}
    done(stack, "depend", "run:first", "run:second", "--needs", "data")
    assert row(stack, "wide")["blocked_by"] == []
    assert "waits for run:second itself" in refused(stack, "depend", "run:second", "run:first")
    assert "depends on nothing" in refused(stack, "depend", "run:second", "run:first", "--remove")


def _budget(stack: Stack) -> None:
    """Every alert, told from what the runs took; the budget burns down run by run."""
    found = row(stack, "wide")
    hours = sum(seconds for (seconds,) in stack.sql("SELECT duration_s * world_size / 3600 FROM runs"))
    assert hours > 0
    assert found["budget_used"] == pytest.approx(hours)
    assert (found["budget_used_share"], found["budget_alert"]) == (pytest.approx(hours / 1000), "")
    for share, alert in ((0.5, ""), (0.9, "80 %"), (0.998, "80 %"), (1.002, "100 %"), (1.5, "100 %")):
        told = done(stack, "budget", "wide", f"{hours / share:.12f} hours")
        assert (told["budget_used_share"], told["budget_alert"]) == (pytest.approx(share, rel=1e-4), alert)
    runs = done(stack, "show", "wide")["runs"]
    assert [run["run_id"] for run in runs] == ["first", "second"]
    assert [run["best_so_far"] for run in runs] == [0.9, 0.96]
    assert runs[1]["budget_used"] == pytest.approx(hours)
    assert runs[1]["budget_left"] == pytest.approx(hours / 1.5 - hours, rel=1e-3)
    money = done(stack, "budget", "wide", "500 EUR")
    assert (money["budget_used"], money["budget_alert"]) == (None, ""), "what is not known is not 0"
    assert money["runs_not_priced"] == 2


def _report(stack: Stack) -> None:
    done(stack, "depend", "wide", "run:first", "--needs", "data")
    done(stack, "create", "later")
    done(stack, "depend", "tune", "experiment:later")
    text = stack.runtide("experiment", "report", "--project", "default").stdout
    assert "# Experiments of project default" in text
    assert "1 of 1 objectives met, 0 late." in text
    assert "| val/acc max 0.95 | 0.96 | second | wide-net v2 | met |" in text
    assert "| accepted | 0.96 \\| twice |" in text
    assert "| rejected | one seed only |" in text
    assert "| experiment:tune | experiment:later | order |  | blocked |" in text
    assert "| experiment:wide | run:first | data |  | ready |" in text
    assert "0.00 gpu hours, 2 of 2 runs not priced" in text
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


PRICES = """
currency = "EUR"
valid_from = 2026-01-01T00:00:00Z
gpu = {"Tesla T4" = 100}
"""


@pytest.mark.slow
def test_budgets_of_devices_and_of_money_burn_down(stack: Stack, tmp_path: Path) -> None:
    stack.up("--no-dashboard")
    (tmp_path / "prices.toml").write_text(PRICES)
    assert stack.runtide("prices", "apply", str(tmp_path / "prices.toml")).returncode == 0
    busy = [reading("gpu0", "utilization_percent", 90)]
    done(stack, "create", "devices", "--budget", "0.2 gpu-hours")
    done(stack, "create", "money", "--budget", "8 EUR")
    for number, (name, model) in enumerate((("devices", "Tesla T4"), ("money", "Tesla T4"), ("money", "Mystery"))):
        host = f"node-{number}"
        ran(stack, f"run-{number}", host, 0, 360, busy, gpus=[model], experiment=name)
        stack.wait_state(f"run-{number}", "finished")
    for name, used in (("devices", 0.1), ("money", 10)):
        until(lambda n=name, u=used: row(stack, n)["budget_used"] == pytest.approx(u), 30, "its minutes are derived")
    found = row(stack, "devices")
    assert (found["budget_used_share"], found["budget_alert"]) == (pytest.approx(0.5), "")
    assert alerts(stack) == (1, ["money"])

    found = row(stack, "money")
    assert found["budget_used"] == pytest.approx(10), "0.1 hours at 100 EUR"
    assert (found["budget_alert"], found["runs_not_priced"]) == ("100 %", 1), "one has no rate, and is not 0"
    runs = done(stack, "show", "money")["runs"]
    assert [run["cost"] for run in runs] == [pytest.approx(10), None]
    assert [run["budget_left"] for run in runs] == pytest.approx([-2, -2])
    said = stack.runtide("experiment", "show", "money").stderr
    assert "experiment money has used 125% of its budget: 10.00 of 8 EUR, 1 of 2 runs not known" in said

    near = stack.runtide("experiment", "budget", "devices", "0.12 gpu-hours")
    assert "experiment devices has used 83% of its budget: 0.10 of 0.12 gpu-hours" in near.stderr
    assert row(stack, "devices")["budget_alert"] == "80 %"
    done(stack, "budget", "money", "100 USD")
    assert row(stack, "money")["budget_used"] is None, "no rate of exchange is known"
    done(stack, "budget", "money", "1000 EUR")
    assert alerts(stack) == (1, ["devices"])
    done(stack, "budget", "devices", "200 gpu-hours")
    assert alerts(stack) == (0, [])
    text = stack.runtide("experiment", "report", "--project", "default").stdout
    assert "To date: 0.30 gpu hours, 20.00 EUR, 1 of 3 runs not priced." in text
    assert "| 10.00 EUR, 1 of 2 not priced | 10.00 of 1000 EUR, 1 of 2 runs not known | 1% |" in text


def alerts(stack: Stack) -> tuple[int, list[str]]:
    """Exit code and experiments of `list --alerts`."""
    said = stack.runtide("experiment", "list", "--alerts", "--json")
    return said.returncode, [row["experiment"] for row in json.loads(said.stdout)]
