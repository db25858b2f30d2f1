"""The report of experiments: bars on one scale, and no word of a person becomes a mark."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from runtide.cli.experiment_pages import BAR, alert, blocked_by, gantt
from runtide.cli.experiment_report import Known, as_html, as_markdown, of

NOW = datetime(2026, 1, 21, tzinfo=UTC)
NOTHING: dict[str, Any] = {
    "project": "p",
    "experiment": "e",
    "hypothesis": "",
    "owner": "",
    "metric": "",
    "goal": "",
    "target": None,
    "deadline": None,
    "planned_from": None,
    "planned_to": None,
    "started_at": None,
    "ended_at": None,
    "runs": 0,
    "runs_finished": 0,
    "runs_going": 0,
    "best": None,
    "best_run": "",
    "to_go": None,
    "met": False,
    "budget": None,
    "budget_unit": "",
    "budget_used": None,
    "budget_used_share": None,
    "budget_alert": "",
    "decision": "",
    "hours": 0.0,
    "runs_not_priced": 0,
}


def test_bars_of_plan_and_actual_are_on_one_scale() -> None:
    planned = NOTHING | {"planned_from": date(2026, 1, 1), "planned_to": date(2026, 1, 10)}
    goes_on = NOTHING | {"started_at": datetime(2026, 1, 11, tzinfo=UTC), "runs_going": 1}
    first, second = gantt([planned, goes_on], datetime(2026, 1, 20, tzinfo=UTC))
    half = BAR // 2
    assert (first["plan"], first["actual"]) == ("░" * half + " " * half, " " * BAR)
    assert (second["plan"], second["actual"]) == (" " * BAR, " " * half + "█" * half)
    assert first["planned"] == "2026-01-01 to 2026-01-10"
    assert second["real"] == "2026-01-11 to 2026-01-20 (goes on)"
    assert gantt([NOTHING], NOW) == []


def test_a_day_is_seen_and_a_real_end_before_its_plan_fits() -> None:
    short = NOTHING | {"planned_from": date(2026, 1, 1), "deadline": date(2036, 1, 1)}
    early = NOTHING | {"started_at": datetime(2025, 1, 1, tzinfo=UTC), "ended_at": datetime(2025, 1, 1, tzinfo=UTC)}
    chart = gantt([short, early], NOW)
    assert chart[1]["actual"] == "█" + " " * (BAR - 1)
    assert {len(row[bar]) for row in chart for bar in ("plan", "actual")} == {BAR}


def test_what_people_wrote_stays_text() -> None:
    odd = NOTHING | {"experiment": "a|b\n# c", "hypothesis": "<script>*x*</script>", "planned_from": date(2026, 1, 1)}
    report = of("p<q", Known([odd]), NOW)
    page = as_html(report)
    assert "<script>" not in page
    assert "&lt;script&gt;*x*&lt;/script&gt;" in page
    assert "<title>Experiments of project p&lt;q</title>" in page
    text = as_markdown(report)
    assert "<script>" not in text
    assert "&lt;script&gt;\\*x\\*&lt;/script&gt;" in text
    assert "| a\\|b \\# c |" in text
    assert not any(line.startswith("# c") for line in text.splitlines())


def test_figures_of_the_report() -> None:
    aimed = NOTHING | {"metric": "acc", "goal": "max", "target": 0.9, "deadline": date(2026, 1, 20)}
    met = aimed | {"best": 0.95, "best_run": "7c2f", "met": True, "to_go": 0.0, "hours": 3.0, "runs": 2}
    missed = aimed | {"experiment": "f", "best": 0.5, "to_go": 0.4, "budget": 2.0, "budget_unit": "hours", "runs": 3}
    missed |= {"budget_used": 3.0, "budget_used_share": 1.5, "budget_alert": "100 %", "hours": 3.0}
    edge = {"project": "p", "experiment": "e", "run_id": "", "depends_on": "run:x", "needs": "data", "why": ""}
    edges = [edge | {"run_id": "y", "state": "ready"}, edge | {"state": "blocked"}]
    spent = [cost("e", 1.5, 12.0, "EUR"), cost("e", 0, 3.0, "USD"), cost("", 0.25, 1.0, "EUR", not_priced=1)]
    text = as_markdown(of("p", Known([met, missed], edges, [], spent, {("p", "7c2f"): "net v3"}), NOW))
    assert "1 of 2 objectives met, 1 late." in text
    assert "| 0.95 | 7c2f | net v3 | met |" in text
    assert "0.4 to go | 2026-01-20, late" in text
    assert "To date: 1.75 gpu hours, 13.00 EUR, 3.00 USD, 1 of 6 runs not priced." in text
    assert "Of the budgets 1 used up, 0 above 80 %." in text
    assert "| e | 2 | 3.00 | 1.50 | 12.00 EUR; 3.00 USD |" in text
    assert "| 3.00 of 2 hours | 150% | 100 % |" in text
    assert "| of no experiment | 2 |  | 0.25 | 1.00 EUR, 1 of 2 not priced |" in text
    assert "1 open of 2." in text
    rows = [line for line in text.splitlines() if line.endswith(("| blocked |", "| ready |"))]
    assert [row.split(" | ")[0] for row in rows] == ["| experiment:e", "| run:y"], "what is blocked comes first"


def cost(experiment: str, gpu_hours: float, amount: float, currency: str, not_priced: int = 0) -> dict[str, Any]:
    said = {"project": "p", "experiment": experiment, "runs": 2, "gpu_hours": gpu_hours, "cost": amount}
    return said | {"currency": currency, "not_priced": not_priced}


def test_an_alert_says_what_is_not_known() -> None:
    used = NOTHING | {"budget": 500.0, "budget_unit": "EUR", "budget_used": 400.0, "budget_used_share": 0.8, "runs": 3}
    assert alert(used) == ""
    told = alert(used | {"budget_alert": "80 %", "runs_not_priced": 1})
    assert told == "experiment e has used 80% of its budget: 400.00 of 500 EUR, 1 of 3 runs not known"


def test_a_run_that_waits_does_not_block_its_experiment() -> None:
    edge = {"project": "p", "experiment": "e", "run_id": "", "depends_on": "run:x", "state": "blocked"}
    others = [edge | {"run_id": "y"}, edge | {"state": "ready"}, edge | {"project": "q"}, edge | {"experiment": "f"}]
    assert blocked_by(NOTHING, others) == []
    assert blocked_by(NOTHING, [*others, edge]) == ["run:x"]
