"""The value that stands for each run on a leaderboard, asked for all runs of a selection at once."""

# ruff: noqa: S608 - values are bound parameters; only numbers of our own are put into the text

from __future__ import annotations

from collections.abc import Sequence

from runtide.api.asking import rows
from runtide.api.board import Row, last_steps
from runtide.warehouse.client import Client
from runtide.wire.errors import BadInput

_PROJECT = "({project:String} = '' OR project = {project:String})"
_SUMMARY = f"""
SELECT project, run_id, last, last_step, min, min_step, max, max_step
FROM runtide.metric_summary WHERE {_PROJECT} AND metric = {{metric:String}} AND rank = -1
"""
_GOALS = f"""
SELECT DISTINCT goal FROM runtide.metric_definitions WHERE {_PROJECT} AND metric = {{metric:String}} AND goal != ''
"""
_DATASETS = f"""
SELECT project, run_id, groupUniqArray(name) AS names
FROM runtide.dataset_uses WHERE {_PROJECT} GROUP BY project, run_id
"""


def goal_of(client: Client, project: str | None, metric: str) -> str:
    """What define_metric said is better. Raises BadInput where it said nothing, or not the same in all runs."""
    found = rows(client, _GOALS, {"project": project or "", "metric": metric})
    if len(found) != 1:
        raise BadInput("goal", "missing", f"define_metric does not say for {metric} in all runs alike: say min or max")
    return str(found[0]["goal"])


def with_values(
    client: Client, project: str | None, runs: Sequence[Row], metric: str, goal: str, by: str, datasets: Sequence[str]
) -> list[Row]:
    """Runs with `value`, `step` (None for a mean), `process_hours`, `datasets` and `coverage`; those with a value only.

    Coverage is the part of all datasets that any of these runs used; with `datasets` runs that used all of them only.
    """
    told = {"project": project or "", "metric": metric}
    steps = last_steps(by)
    values: dict[tuple[str, str], tuple[float, int | None]] = {}
    if steps is not None:
        keys = [(row["project"], row["run_id"]) for row in runs]
        for row in rows(client, _mean_of(steps), {"keys": keys, "metric": metric}):
            values[row["project"], row["run_id"]] = (row["value"], None)
    else:
        column = "last" if by == "last" else goal
        for row in rows(client, _SUMMARY, told):
            values[row["project"], row["run_id"]] = (row[column], row[f"{column}_step"])
    used = {(row["project"], row["run_id"]): sorted(row["names"]) for row in rows(client, _DATASETS, told)}
    known = {name for row in runs for name in used.get((row["project"], row["run_id"]), ())}
    out = []
    for row in runs:
        key = (row["project"], row["run_id"])
        names = used.get(key, [])
        if key in values and set(datasets) <= set(names):
            coverage = len(names) / len(known) if known else None
            out.append(_standing(row, *values[key], names, coverage))
    return out


def _standing(row: Row, value: float, step: int | None, datasets: list[str], coverage: float | None) -> Row:
    return {
        "run_id": row["run_id"],
        "name": row["name"],
        "value": value,
        "step": step,
        "state": row["state"],
        "duration_s": row["duration_s"],
        "process_hours": row["duration_s"] * max(row["world_size"], 1) / 3600,
        "datasets": datasets,
        "coverage": coverage,
        "project": row["project"],
        "experiment": row["experiment"],
        "config": row["config"],
    }


def _mean_of(steps: int) -> str:
    """Mean of the last steps with a finite value; of a step the mean over ranks, of a repeated one the later value."""
    return f"""
SELECT project, run_id, avg(of_step) AS value
FROM
(
    SELECT project, run_id, step, avg(later) AS of_step
    FROM
    (
        SELECT project, run_id, step, rank, argMax(value, (attempt, time)) AS later
        FROM runtide.metrics
        WHERE (project, run_id) IN {{keys:Array(Tuple(String, String))}} AND metric = {{metric:String}}
        GROUP BY project, run_id, step, rank
    )
    WHERE isFinite(later)
    GROUP BY project, run_id, step
    ORDER BY project, run_id, step DESC
    LIMIT {int(steps)} BY project, run_id
)
GROUP BY project, run_id
"""
