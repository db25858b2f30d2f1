"""How experiments are shown to people: words for objectives, budgets and dates, and a chart of plan against actual."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from runtide.cli.tables import cell, print_table

Row = dict[str, Any]
BAR = 40
"""Characters of a bar."""
PLANNED, REAL = "░", "█"


def objective(row: Row) -> str:
    """What is to be reached."""
    return f"{row['metric']} {row['goal']} {cell(row['target'])}" if row["metric"] else ""


def outcome(row: Row) -> str:
    """How far it is."""
    if not row["metric"]:
        return "no objective"
    if row["best"] is None:
        return "nothing logged"
    return "met" if row["met"] else f"{cell(row['to_go'])} to go"


def budget(row: Row) -> str:
    """What is used of what."""
    if row["budget"] is None:
        return ""
    used = "?" if row["budget_used"] is None else f"{row['budget_used']:,.2f}"
    more = f", {row['runs_not_priced']} of {row['runs']} runs not known" if row["runs_not_priced"] else ""
    return f"{used} of {cell(row['budget'])} {row['budget_unit']}{more}"


def share(row: Row) -> str:
    """How much of the budget is used."""
    return "" if row["budget_used_share"] is None else f"{row['budget_used_share']:.0%}"


def alert(row: Row) -> str:
    """What to say of a budget that is nearly or wholly used up; empty of others."""
    if not row["budget_alert"]:
        return ""
    return f"experiment {row['experiment']} has used {share(row)} of its budget: {budget(row)}"


def late(row: Row, today: date) -> bool:
    """Whether the deadline went by and the objective is not met."""
    return bool(row["deadline"] and today > row["deadline"] and not row["met"])


def blocked_by(row: Row, edges: Sequence[Row]) -> list[str]:
    """What an experiment still waits for."""
    return [
        str(edge["depends_on"])
        for edge in edges
        if (edge["project"], edge["experiment"], edge["run_id"], edge["state"])
        == (row["project"], row["experiment"], "", "blocked")
    ]


def line(row: Row) -> Row:
    """What fits a line of a terminal."""
    waits = ", ".join(row["blocked_by"])
    return {
        "project": row["project"],
        "experiment": row["experiment"],
        "objective": objective(row),
        "best": row["best"],
        "outcome": outcome(row),
        "runs": f"{row['runs_finished']} of {row['runs']}",
        "budget": budget(row),
        "used": share(row),
        "alert": row["budget_alert"],
        "deadline": row["deadline"],
        "state": f"blocked by {waits}" if waits else "ready",
        "decision": row["decision"],
    }


def print_one(row: Row) -> None:
    """All that is known of an experiment itself."""
    shown = {name: value for name, value in row.items() if value not in (None, "", [])}
    print_table([{"experiment": name, "": value} for name, value in shown.items()])


def print_whole(found: Row) -> None:
    """One experiment with its runs."""
    print_one(found["experiment"])
    names = ("run_id", "name", "state", "started_at", "value", "best_so_far", "hours", "budget_used", "budget_left")
    print_table([{name: row[name] for name in names} for row in found["runs"]], title="runs", empty="no runs")
    for title, hidden in (("depends", ("project", "experiment")), ("decisions", ("project", "experiment"))):
        if found[title]:
            shown = [{name: value for name, value in row.items() if name not in hidden} for row in found[title]]
            print_table(shown, title=title)


def spans(row: Row, today: date) -> tuple[tuple[date, date] | None, tuple[date, date] | None]:
    """First and last day as planned, and as it was; one that goes on lasts until today."""
    begin, end = row["planned_from"], row["planned_to"] or row["deadline"]
    planned = (begin or end, end or begin) if begin or end else None
    if row["started_at"] is None:
        return planned, None
    last = row["ended_at"].date() if row["ended_at"] is not None else today
    return planned, (row["started_at"].date(), last)


def gantt(found: Sequence[Row], now: datetime) -> list[Row]:
    """One row for each experiment: planned and real dates with their bars on one scale; empty without any date."""
    today = now.astimezone(UTC).date()
    each = [(row, *spans(row, today)) for row in found]
    days = [day for _, *both in each for span in both if span for day in span]
    if not days:
        return []
    first, whole = min(days), max((max(days) - min(days)).days + 1, 1)
    return [
        {
            "experiment": row["experiment"],
            "planned": _dates(planned),
            "real": _dates(real) + (" (goes on)" if row["runs_going"] else ""),
            "plan": _bar(planned, first, whole, PLANNED),
            "actual": _bar(real, first, whole, REAL),
        }
        for row, planned, real in each
    ]


def _dates(span: tuple[date, date] | None) -> str:
    return f"{span[0]} to {span[1]}" if span else ""


def _bar(span: tuple[date, date] | None, first: date, days: int, mark: str) -> str:
    if span is None:
        return " " * BAR
    begin = (span[0] - first).days * BAR // days
    end = -(-(max(span) - first + timedelta(1)).days * BAR // days)
    return (" " * begin + mark * max(end - begin, 1)).ljust(BAR)
