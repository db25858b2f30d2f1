"""The report of experiments: bars on one scale, and no word of a person becomes a mark."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from runtide.cli.experiment_pages import BAR, gantt
from runtide.cli.experiment_report import as_html, as_markdown, of

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
    report = of("p<q", [odd], [], [], NOW)
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
    met = aimed | {"best": 0.95, "best_run": "7c2f", "met": True, "to_go": 0.0, "hours": 3.0}
    missed = aimed | {"best": 0.5, "to_go": 0.4, "budget": 2.0, "budget_unit": "hours", "budget_alert": "over"}
    missed |= {"budget_used": 3.0, "budget_used_share": 1.5, "hours": 3.0}
    edge = {"project": "p", "experiment": "e", "depends_on": "run:x", "needs": "data", "why": "", "state": "blocked"}
    text = as_markdown(of("p", [met, missed], [edge, edge | {"state": "ready"}], [], NOW))
    assert "1 of 2 objectives met, 1 late." in text
    assert "0.4 to go | 2026-01-20, late" in text
    assert "6.00 hours of processes to date; 1 over the budget, 0 above 80 % of it." in text
    assert "3.00 of 2 hours | 150% | over" in text
    assert "1 open of 2." in text
