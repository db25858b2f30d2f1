"""Resource readings of a run in time buckets: minimum, mean and maximum of each host, device, name and rank."""

# ruff: noqa: S608 - values are bound parameters; only names and numbers of our own are put into the text

from __future__ import annotations

from datetime import datetime
from typing import Any

from runtide.warehouse.queries.reading import rows

_RAW_SECONDS = 6 * 3600
"""Up to this long a run's readings are read one by one; longer ones by their minutes, with the newest one by one."""

_WIDTHS_S = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)


def resources(client: Any, project: str, run_id: str, buckets: int = 300) -> Any:
    """An Arrow table (host, device, name, rank, time, mean, min, max, last), ordered so."""
    parameters = {"project": project, "run": run_id}
    span = rows(
        client,
        "SELECT min(time) AS first, max(time) AS last, count() AS n FROM runtide.samples "
        "WHERE project = {project:String} AND run_id = {run:String}",
        parameters,
    )[0]
    seconds = _seconds(span["first"], span["last"]) if span["n"] else 0.0
    width = next((width for width in _WIDTHS_S if seconds / width <= buckets), _WIDTHS_S[-1])
    parts = _by_minutes() if seconds > _RAW_SECONDS and width >= 60 else _one_by_one("")
    return client.query_arrow(
        "SELECT host, device, name, rank,"
        " toDateTime64(toStartOfInterval(t, toIntervalSecond({width:UInt32})), 3, 'UTC') AS time,"
        " sum(s) / sum(n) AS mean, min(lo) AS min, max(hi) AS max, argMax(l, t) AS last "
        f"FROM ({parts}) GROUP BY host, device, name, rank, time ORDER BY host, device, name, rank, time",
        parameters={**parameters, "width": width},
        use_strings=True,
    )


def _seconds(first: datetime, last: datetime) -> float:
    return (last - first).total_seconds()


def _one_by_one(more: str) -> str:
    return (
        "SELECT host, device, name, rank, toDateTime(time, 'UTC') AS t, 1 AS n, value AS s, value AS lo, value AS hi,"
        " value AS l FROM runtide.samples FINAL "
        f"WHERE project = {{project:String}} AND run_id = {{run:String}} AND isFinite(value){more}"
    )


def _by_minutes() -> str:
    newest = "(SELECT max(time) FROM runtide.sample_windows WHERE project = {project:String} AND run_id = {run:String})"
    return (
        "SELECT host, device, name, rank, time AS t, toInt32(count) AS n, sum AS s, min AS lo, max AS hi, last AS l "
        "FROM runtide.sample_windows FINAL "
        f"WHERE project = {{project:String}} AND run_id = {{run:String}} AND count > 0 AND time < {newest} "
        "UNION ALL " + _one_by_one(f" AND time >= {newest}")
    )
