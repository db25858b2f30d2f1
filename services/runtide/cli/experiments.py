"""What the commands of experiments do: say things of one as changes, and read what is so of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtide.cli.pushing import gateway_url, pushing
from runtide.cli.store import find_run, open_store, rows
from runtide.warehouse.changes import make_changes, wait
from runtide.warehouse.client import Client
from runtide.warehouse.rulings import account
from runtide.wire.errors import BadInput, RuntideError, Unavailable
from runtide.wire.experiments import DATES, parse_budget, parse_objective, parse_plan

Row = dict[str, Any]
Told = list[tuple[str, Any]]
"""Kinds of changes with what they say."""

_LIST = """
SELECT
    project, experiment, hypothesis, owner, metric, goal, target, deadline, planned_from, planned_to, started_at,
    ended_at, runs, runs_finished, runs_going, best, best_run, to_go, met, budget, budget_unit, budget_used,
    budget_used_share, budget_alert, decision, depends, created_at, hours
FROM runtide.experiments
WHERE ({project:String} = '' OR project = {project:String}) AND ({name:String} = '' OR experiment = {name:String})
ORDER BY project, coalesce(planned_from, toDate(started_at), toDate(created_at)), experiment
"""
_RUNS = """
SELECT
    project, experiment, run_id, name, state, started_at, ended_at, value, best_so_far, hours, cost, budget_used,
    budget_left
FROM runtide.experiment_runs WHERE project = {project:String} AND experiment = {name:String}
ORDER BY started_at, run_id
"""
_EDGES = """
SELECT project, experiment, depends_on, needs, why, state FROM runtide.experiment_dependencies
WHERE {project:String} = '' OR project = {project:String}
ORDER BY project, experiment, depends_on
"""
_DECISIONS = """
SELECT project, substring(subject, 12) AS experiment, time, JSONExtractString(after) AS decision, reason, actor
FROM runtide.audit
WHERE kind = 'decision' AND startsWith(subject, 'experiment:') AND ({project:String} = '' OR project = {project:String})
ORDER BY project, seq
"""


class UnknownExperiment(RuntideError):
    """No experiment, or more than one, has this name."""

    code = "unknown_experiment"


@dataclass(frozen=True, slots=True)
class Where:
    """Which project, gateway and store a command talks to."""

    project: str | None = None
    url: str | None = None
    home: Path | None = None
    clickhouse: str | None = None


def listed(client: Client, project: str | None, name: str | None = None) -> list[Row]:
    """Experiments with all columns of the view."""
    return rows(client, _LIST, project=project or "", name=name or "")


def edges(client: Client, project: str | None) -> list[Row]:
    """What experiments wait for."""
    return rows(client, _EDGES, project=project or "")


def decisions(client: Client, project: str | None) -> list[Row]:
    """Every decision, in the order in which they were made."""
    return rows(client, _DECISIONS, project=project or "")


def find(client: Client, name: str, project: str | None) -> Row:
    """The experiment of this name. Raises UnknownExperiment."""
    found = listed(client, project, name)
    if len(found) == 1:
        return found[0]
    if found:
        named = ", ".join(row["project"] for row in found)
        raise UnknownExperiment(f"experiment {name} is in the projects {named}: say which with --project")
    raise UnknownExperiment(
        f"there is no experiment {name}"
        + (f" in project {project}" if project else "")
        + "; see `runtide experiment list`"
    )


def whole(client: Client, name: str, project: str | None) -> Row:
    """All that is known of one experiment."""
    found = find(client, name, project)
    told = found["project"]
    return {
        "experiment": found,
        "runs": rows(client, _RUNS, project=told, name=name),
        "depends": [row for row in edges(client, told) if row["experiment"] == name],
        "decisions": [row for row in decisions(client, told) if row["experiment"] == name],
    }


def create(name: str, told: Told, where: Where) -> Row:
    """Say that an experiment is there, with everything that was said of it at once. Raises BadInput where it is."""
    project = where.project or "default"
    with open_store(where.home, where.clickhouse) as client:
        if any(row["created_at"] for row in listed(client, project, name)):
            limit = "it exists; `runtide experiment plan` changes it"
            raise BadInput("NAME", repr(name), limit)
        return _say(client, name, [("create", None), *told], "", where, project)


def plan(name: str, told: Told, reason: str, where: Where) -> Row:
    """Change what was said; dates that are not told stay as they are. Raises BadInput where nothing is told."""
    if not told:
        raise BadInput("the command", "without an option", "it must say what to change; see --help")
    with open_store(where.home, where.clickhouse) as client:
        row = find(client, name, where.project)
        return _say(client, name, [_completed(row, *each) for each in told], reason, where, row["project"])


def _completed(row: Row, kind: str, after: Any) -> tuple[str, Any]:
    if kind != "plan":
        return kind, after
    columns = {"from": "planned_from", "to": "planned_to", "deadline": "deadline"}
    before = {key: row[columns[key]].isoformat() for key in DATES if row[columns[key]] is not None}
    return kind, parse_plan(before | after)


def depend(name: str, on: str, needs: str, why: str, remove: bool, where: Where) -> Row:
    """Say that one waits for another, or does not any more. Raises BadInput where it would wait for itself."""
    with open_store(where.home, where.clickhouse) as client:
        row = find(client, name, where.project)
        project = row["project"]
        form, _, rest = on.partition(":")
        if form == "run" and rest and not remove:
            on = f"run:{find_run(client, rest, project).run_id}"
        if form == "experiment" and rest and not remove:
            find(client, rest, project)
            _check_acyclic(name, rest, edges(client, project))
        if remove and on not in row["depends"]:
            raise BadInput("ON", repr(on), f"{name} depends on {', '.join(row['depends']) or 'nothing'}")
        after = {"on": on, "needs": needs, "why": why} | ({"removed": True} if remove else {})
        return _say(client, name, [("depends", after)], why, where, project)


def _check_acyclic(name: str, on: str, known: Sequence[Row]) -> None:
    """Raises BadInput where `on` waits for `name` already, however far away."""
    seen, open_ = set[str](), [on]
    while open_:
        current = open_.pop()
        if current == name:
            raise BadInput("ON", f"experiment:{on}", f"that one waits for {name} itself")
        if current not in seen:
            seen.add(current)
            open_ += [
                row["depends_on"].partition(":")[2]
                for row in known
                if row["experiment"] == current and row["depends_on"].startswith("experiment:")
            ]


def say(name: str, kind: str, after: Any, reason: str, where: Where) -> Row:
    """One change of an experiment that exists."""
    with open_store(where.home, where.clickhouse) as client:
        project = find(client, name, where.project)["project"]
        return _say(client, name, [(kind, after)], reason, where, project)


def _say(client: Client, name: str, told: Told, reason: str, where: Where, project: str) -> Row:
    """Say it, wait until it is in the audit trail, and return the experiment as it is then."""
    with pushing(where.url or gateway_url(where.home)) as push:
        outcome = make_changes(push, f"experiment:{name}", told, reason, account(), project)
    if not wait(client, outcome):
        raise Unavailable("the gateway has taken it, but the sink has not got to it yet: see `runtide audit list`")
    return find(client, name, project)


def told_of(
    objective: str | None, hypothesis: str | None, owner: str | None, budget: str | None, dates: dict[str, str | None]
) -> Told:
    """What options say, as changes. Raises BadInput."""
    told: Told = [] if objective is None else [("objective", parse_objective(objective))]
    told += [] if hypothesis is None else [("hypothesis", hypothesis)]
    told += [] if owner is None else [("owner", owner)]
    told += [] if budget is None else [("budget", parse_budget(budget))]
    planned = parse_plan(dates)
    return [*told, ("plan", planned)] if planned else told
