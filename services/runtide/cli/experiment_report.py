"""The report of a project: objectives met, best runs and models, plan, cost to date, decisions, dependencies.

It is made once, as titles, sentences and tables of texts; Markdown and HTML are two ways to write the same.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from runtide.cli import experiment_pages as pages
from runtide.cli.experiments import best_models, decisions, edges, listed, waits
from runtide.cli.prices import amount, costs
from runtide.cli.tables import cell
from runtide.warehouse.client import Client

Row = dict[str, Any]
MOST = 10_000
"""Experiments whose cost is told."""

NO_EXPERIMENT: Row = {
    "experiment": "",
    "runs": 0,
    "budget": None,
    "budget_used_share": None,
    "budget_alert": "",
}
"""The line of the runs of none."""


@dataclass(slots=True)
class Section:
    """One part of the report."""

    title: str
    says: list[str] = field(default_factory=list)
    table: list[dict[str, str]] = field(default_factory=list)
    drawn: list[str] = field(default_factory=list)
    """Lines of a drawing, whose blanks count."""


@dataclass(slots=True)
class Report:
    """All of it."""

    title: str
    made: str
    sections: list[Section]


@dataclass(frozen=True, slots=True)
class Known:
    """What the report is of."""

    experiments: Sequence[Row] = ()
    edges: Sequence[Row] = ()
    decisions: Sequence[Row] = ()
    costs: Sequence[Row] = ()
    """Of each experiment, and of the runs of none."""
    models: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """Name and version of the model of a run, by project and run."""


def made(client: Client, project: str | None) -> Report:
    """The report of a project, or of all of them."""
    found = listed(client, project)
    known = Known(
        found,
        edges(client, project),
        decisions(client, project),
        costs(client, "experiment", project, MOST),
        best_models(client, found),
    )
    return of(project, known, datetime.now(UTC))


def of(project: str | None, known: Known, now: datetime) -> Report:
    """The report of what was found."""
    found = known.experiments
    goals, money = _goals(found, known.models, now), _cost(found, known.costs)
    sections = [goals, _plan(found, now), money, _decisions(known.decisions), _dependencies(known.edges)]
    title = f"Experiments of project {project}" if project else "Experiments of all projects"
    return Report(title, now.strftime("%Y-%m-%d %H:%M UTC"), sections)


def _goals(found: Sequence[Row], models: Mapping[tuple[str, str], str], now: datetime) -> Section:
    aimed = [row for row in found if row["metric"]]
    met = sum(row["met"] for row in aimed)
    late = sum(pages.late(row, now.date()) for row in aimed)
    table = [
        {
            "experiment": _name(row),
            "hypothesis": row["hypothesis"],
            "owner": row["owner"],
            "objective": pages.objective(row),
            "best": cell(row["best"]),
            "best run": row["best_run"],
            "best model": models.get((row["project"], row["best_run"]), ""),
            "outcome": pages.outcome(row),
            "deadline": f"{cell(row['deadline'])}{', late' if pages.late(row, now.date()) else ''}",
            "runs": f"{row['runs_finished']} finished of {row['runs']}",
        }
        for row in found
    ]
    return Section("Objectives", [f"{met} of {len(aimed)} objectives met, {late} late."], table)


def _plan(found: Sequence[Row], now: datetime) -> Section:
    chart = pages.gantt(found, now)
    table = [{name: row[name] for name in ("experiment", "planned", "real")} for row in chart]
    wide = max((len(row["experiment"]) for row in chart), default=0)
    drawn = [
        f"{name.ljust(wide)} {what.ljust(7)}|{row[bar]}|"
        for row in chart
        for name, what, bar in ((row["experiment"], "planned", "plan"), ("", "real", "actual"))
    ]
    return Section("Plan and actual", [] if chart else ["No dates."], table, drawn)


def _cost(found: Sequence[Row], spent: Sequence[Row]) -> Section:
    over = sum(row["budget_alert"] == "100 %" for row in found)
    near = sum(row["budget_alert"] == "80 %" for row in found)
    of_each: dict[tuple[str, str], list[Row]] = {}
    for row in spent:
        of_each.setdefault((row["project"], row["experiment"]), []).append(row)
    loose = [NO_EXPERIMENT | {"project": project} for project, name in of_each if not name]
    table = [
        {
            "experiment": _name(row),
            "runs": cell(row["runs"] if row["experiment"] else sum(one["runs"] for one in mine)),
            "process hours": f"{row['hours']:,.2f}" if row["experiment"] else "",
            "gpu hours": f"{sum(one['gpu_hours'] for one in mine):,.2f}",
            "cost": "; ".join(map(amount, mine)),
            "budget": pages.budget(row),
            "used": pages.share(row),
            "alert": row["budget_alert"],
        }
        for row in (*found, *loose)
        for mine in [of_each.get((row["project"], row["experiment"]), [])]
    ]
    says = f"To date: {_total(spent)}. Of the budgets {over} used up, {near} above 80 %."
    return Section("Cost to date", [says], table)


def _total(spent: Sequence[Row]) -> str:
    """All of it; amounts in different currencies are never added."""
    money: dict[str, float] = {}
    for row in spent:
        if row["currency"]:
            money[row["currency"]] = money.get(row["currency"], 0) + row["cost"]
    amounts = [f"{value:,.2f} {currency}" for currency, value in sorted(money.items())]
    unknown, runs = (sum(row[name] for row in spent) for name in ("not_priced", "runs"))
    missing = [f"{unknown} of {runs} runs not priced"] if unknown else []
    return ", ".join([f"{sum(row['gpu_hours'] for row in spent):,.2f} gpu hours", *amounts, *missing])


def _decisions(decided: Sequence[Row]) -> Section:
    table = [
        {name: cell(row[name]) for name in ("time", "experiment", "decision", "reason", "actor")} for row in decided
    ]
    return Section("Decisions", [] if table else ["None yet."], table)


def _dependencies(known: Sequence[Row]) -> Section:
    """The graph, edge by edge, what is blocked first."""
    ordered = sorted(known, key=lambda row: bool(row["state"] == "ready"))
    table = [
        {"waits": waits(row)} | {name: row[name] for name in ("depends_on", "needs", "why", "state")} for row in ordered
    ]
    open_ = sum(row["state"] == "blocked" for row in known)
    return Section("Dependencies", [f"{open_} open of {len(known)}."], table)


def _name(row: Row) -> str:
    return str(row["experiment"]) or "of no experiment"


def as_markdown(report: Report) -> str:
    """As Markdown; whatever people wrote is text there too."""
    lines = [f"# {_plain(report.title)}", "", report.made, ""]
    for section in report.sections:
        lines += [f"## {section.title}", ""]
        lines += [part for says in section.says for part in (_plain(says), "")]
        if section.table:
            lines += [_line(section.table[0]), _line(["---"] * len(section.table[0]))]
            lines += [*(_line(map(_plain, row.values())) for row in section.table), ""]
        if section.drawn:
            lines += [*(f"    {_flat(drawn)}" for drawn in section.drawn), ""]
    return "\n".join(lines)


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """No word of a person ends a cell or becomes a mark or HTML."""
    return html.escape(re.sub(r"([\\`*_\[\]|#~])", r"\\\1", _flat(text)), quote=False)


def _flat(text: str) -> str:
    return re.sub(r"[\r\n]+", " ", text)


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{border:1px solid #bbb;padding:.3rem .6rem;text-align:left}"
    "pre{overflow-x:auto}"
)


def as_html(report: Report) -> str:
    """As one page of HTML that needs nothing else."""
    title = html.escape(report.title)
    parts = [
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f"<style>{_STYLE}</style></head><body>",
        f"<h1>{title}</h1><p>{html.escape(report.made)}</p>",
    ]
    for section in report.sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        parts += [f"<p>{html.escape(says)}</p>" for says in section.says]
        if section.table:
            parts.append("<table>" + _cells("th", section.table[0]))
            parts += [_cells("td", row.values()) for row in section.table]
            parts.append("</table>")
        if section.drawn:
            parts.append(f"<pre>{html.escape(chr(10).join(map(_flat, section.drawn)))}</pre>")
    return "\n".join([*parts, "</body></html>", ""])


def _cells(kind: str, texts: Any) -> str:
    return "<tr>" + "".join(f"<{kind}>{html.escape(text)}</{kind}>" for text in texts) + "</tr>"
