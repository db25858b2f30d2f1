"""Runs: one, many by a filter, their last values, and a number that changes whenever something new is known of one."""

# ruff: noqa: S608 - values are bound parameters; only names and numbers of our own are put into the text

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runtide.warehouse.queries.reading import rows
from runtide.wire.canary import PROJECT as CANARY

_COLUMNS = (
    "project, run_id, experiment, name, state, reason, user, host, world_size, attempt, started_at, finished_at, "
    "heartbeat_at, duration_s, exit_code, config, tags, notes, git_commit, summary, group, job_type, last_step"
)


@dataclass(frozen=True)
class RunRow:
    """A row of the view runs, with its names."""

    project: str
    run_id: str
    experiment: str
    name: str
    state: str
    reason: str
    user: str
    host: str
    world_size: int
    attempt: int
    started_at: datetime
    finished_at: datetime | None
    heartbeat_at: datetime
    duration_s: float
    exit_code: int | None
    config: str
    tags: list[str]
    notes: str
    git_commit: str
    summary: str
    group: str
    job_type: str
    last_step: int | None


@dataclass(frozen=True)
class Selection:
    """Which runs: every condition that is given must hold. The canary's is found by its project only."""

    project: str | None = None
    text: str = ""
    """Found, whatever the case, in name, id, experiment, user, host or tags."""
    states: Sequence[str] = ()

    def condition(self) -> tuple[str, dict[str, Any]]:
        """The WHERE expression and its parameters."""
        parts: list[str] = ["1"]
        parameters: dict[str, Any] = {}
        if self.project:
            parts.append("project = {project:String}")
            parameters["project"] = self.project
        else:
            parts.append("project != {canary:String}")
            parameters["canary"] = CANARY
        for position, word in enumerate(self.text.split()):
            parts.append(
                "positionCaseInsensitiveUTF8(concat(name, ' ', run_id, ' ', experiment, ' ', user, ' ', host, ' ', "
                f"arrayStringConcat(tags, ' ')), {{word{position}:String}}) > 0"
            )
            parameters[f"word{position}"] = word
        if self.states:
            parts.append("state IN {states:Array(String)}")
            parameters["states"] = list(self.states)
        return " AND ".join(parts), parameters


def runs(client: Any, selection: Selection, limit: int = 100, offset: int = 0) -> list[RunRow]:
    """Runs of a selection, last started first."""
    where, parameters = selection.condition()
    found = rows(
        client,
        f"SELECT {_COLUMNS} FROM runtide.runs WHERE {where} ORDER BY started_at DESC, project, run_id "
        f"LIMIT {int(limit)} OFFSET {int(offset)}",
        parameters,
    )
    return [RunRow(**row) for row in found]


def count_runs(client: Any, selection: Selection) -> dict[str, int]:
    """How many runs of a selection there are in each state."""
    where, parameters = selection.condition()
    found = rows(client, f"SELECT state, count() AS n FROM runtide.runs WHERE {where} GROUP BY state", parameters)
    return {row["state"]: row["n"] for row in found}


def run(client: Any, project: str, run_id: str) -> RunRow | None:
    """One run, or None where nothing is known of it."""
    found = rows(
        client,
        f"SELECT {_COLUMNS} FROM runtide.runs WHERE project = {{project:String}} AND run_id = {{run:String}}",
        {"project": project, "run": run_id},
    )
    return RunRow(**found[0]) if found else None


def projects(client: Any) -> list[str]:
    """Every project that has a run, but for the canary's own."""
    found = rows(client, "SELECT DISTINCT project FROM runtide.run_rows ORDER BY project")
    return [row["project"] for row in found if row["project"] != CANARY]


def usual_metrics(client: Any, keys: Iterable[tuple[str, str]], limit: int = 3) -> list[str]:
    """The metrics that most of these runs have, those with common names of a loss or a score first."""
    keys = list(keys)
    if not keys:
        return []
    found = rows(
        client,
        "SELECT metric FROM runtide.metric_summary_rows WHERE (project, run_id) IN {keys:Array(Tuple(String, String))} "
        "GROUP BY metric "
        "ORDER BY match(lower(metric), 'loss|acc|f1|auc|reward|perplexity') DESC, uniq(project, run_id) DESC, "
        f"metric LIMIT {int(limit)}",
        {"keys": keys},
    )
    return [row["metric"] for row in found]


def last_values(
    client: Any, keys: Iterable[tuple[str, str]], metrics: Sequence[str]
) -> dict[tuple[str, str], dict[str, float]]:
    """Value at the last step of each metric of each run; the mean over the ranks that have that step."""
    keys = list(keys)
    if not keys or not metrics:
        return {}
    found = rows(
        client,
        "SELECT project, run_id, metric, avgArgMax(s.last, s.last_step) AS value "
        "FROM runtide.metric_summary_rows AS s FINAL "
        "WHERE (project, run_id) IN {keys:Array(Tuple(String, String))} AND metric IN {metrics:Array(String)} "
        "AND s.count + s.non_finite > 0 GROUP BY project, run_id, metric",
        {"keys": keys, "metrics": list(metrics)},
    )
    values: dict[tuple[str, str], dict[str, float]] = {}
    for row in found:
        values.setdefault((row["project"], row["run_id"]), {})[row["metric"]] = row["value"]
    return values


def content_version(client: Any, project: str, run_id: str) -> tuple[int, ...]:
    """Numbers that change with everything that becomes known of a run, stored or derived; cheap to ask for."""
    found = rows(
        client,
        "SELECT (SELECT sum(revision) FROM runtide.ledger WHERE project = {project:String} AND run_id = {run:String}),"
        " (SELECT sum(revision) FROM runtide.coverage WHERE project = {project:String} AND run_id = {run:String}),"
        " (SELECT sum(version) FROM runtide.run_rows WHERE project = {project:String} AND run_id = {run:String}),"
        " (SELECT max(seq) FROM runtide.audit_rows WHERE project = {project:String} AND subject = {subject:String})",
        {"project": project, "run": run_id, "subject": f"run:{run_id}"},
    )
    return tuple(int(value or 0) for value in found[0].values())
