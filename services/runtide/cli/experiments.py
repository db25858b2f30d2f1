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
    budget_used_share, budget_alert, decision, depends, created_at, hours,
    runs_not_priced
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
SELECT project, experiment, run_id, depends_on, needs, why, state FROM runtide.experiment_dependencies
WHERE {project:String} = '' OR project = {project:String}
ORDER BY project, experiment, run_id, depends_on
"""
_DECISIONS = """
SELECT project, substring(subject, 12) AS experiment, time, JSONExtractString(after) AS decision, reason, actor
FROM runtide.audit
WHERE kind = 'decision' AND startsWith(subject, 'experiment:') AND ({project:String} = '' OR project = {project:String})
ORDER BY project, seq
"""
_MODELS = """
SELECT
    project, run_id,
    argMax(concat(a.name, ' v', toString(a.version)), (a.kind = 'model', has(a.aliases, 'best'), u.time)) AS model
FROM runtide.artifact_uses AS u
INNER JOIN runtide.artifacts AS a ON a.project = u.project AND a.name = u.name AND a.version = u.version
WHERE NOT u.used AND a.kind IN ('model', 'checkpoint') AND u.run_id IN {runs:Array(String)}
GROUP BY u.project AS project, u.run_id AS run_id
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


def best_models(client: Client, found: Sequence[Row]) -> dict[tuple[str, str], str]:
    """The model, else the best or last checkpoint, that the best run of each experiment made, by project and run."""
    runs = sorted({row["best_run"] for row in found if row["best_run"]})
    return {(row["project"], row["run_id"]): row["model"] for row in rows(client, _MODELS, runs=runs)}


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


def depend(what: str, on: str, needs: str, why: str, remove: bool, where: Where) -> Row:
    """Say that one waits for another, or does not any more. Raises BadInput where it would wait for itself.

    `what` is the name of an experiment or `run:ID`; such a run need not have started.
    """
    run = what.startswith("run:")
    with open_store(where.home, where.clickhouse) as client:
        project = where.project or "default" if run else find(client, what, where.project)["project"]
        subject = what if run else f"experiment:{what}"
        known = edges(client, project)
        if remove and on not in (had := _depends(subject, known)):
            raise BadInput("ON", repr(on), f"{what} depends on {', '.join(had) or 'nothing'}")
        if not remove:
            on = _existing(client, on, project)
            _check_acyclic(subject, on, known)
        after = {"on": on, "needs": needs, "why": why} | ({"removed": True} if remove else {})
        _change(client, subject, [("depends", after)], why, where, project)
        if not run:
            return find(client, what, project)
        return {"project": project, "waits": subject, "depends": _depends(subject, edges(client, project))}


def _existing(client: Client, on: str, project: str) -> str:
    """What one may wait for, by its whole name. Raises UnknownExperiment and UnknownRun."""
    form, _, rest = on.partition(":")
    if form == "run" and rest:
        return f"run:{find_run(client, rest, project).run_id}"
    if form == "experiment" and rest:
        find(client, rest, project)
    return on


def waits(edge: Row) -> str:
    """What waits, written as what it waits for is."""
    return f"run:{edge['run_id']}" if edge["run_id"] else f"experiment:{edge['experiment']}"


def _depends(subject: str, known: Sequence[Row]) -> list[str]:
    return [str(edge["depends_on"]) for edge in known if waits(edge) == subject]


def _check_acyclic(subject: str, on: str, known: Sequence[Row]) -> None:
    """Raises BadInput where `on` waits for `subject` already, however far away."""
    seen, open_ = set[str](), [on]
    while open_:
        current = open_.pop()
        if current == subject:
            raise BadInput("ON", on, f"that one waits for {subject} itself")
        if current not in seen:
            seen.add(current)
            open_ += _depends(current, known)


def say(name: str, kind: str, after: Any, reason: str, where: Where) -> Row:
    """One change of an experiment that exists."""
    with open_store(where.home, where.clickhouse) as client:
        project = find(client, name, where.project)["project"]
        return _say(client, name, [(kind, after)], reason, where, project)


def _say(client: Client, name: str, told: Told, reason: str, where: Where, project: str) -> Row:
    """Say it, wait until it is in the audit trail, and return the experiment as it is then."""
    _change(client, f"experiment:{name}", told, reason, where, project)
    return find(client, name, project)


def _change(client: Client, subject: str, told: Told, reason: str, where: Where, project: str) -> None:
    with pushing(where.url or gateway_url(where.home)) as push:
        outcome = make_changes(push, subject, told, reason, account(), project)
    if not wait(client, outcome):
        raise Unavailable("the gateway has taken it, but the sink has not got to it yet: see `runtide audit list`")


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
