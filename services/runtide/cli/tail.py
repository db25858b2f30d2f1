"""`runtide tail`: console lines and last values of a run as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from runtide.cli.store import RunKey, rows
from runtide.cli.tables import cell
from runtide.warehouse.client import Client
from runtide.wire.states import ENDED

_LINES = """
SELECT toUnixTimestamp64Milli(received_at) AS received_ms, time, rank, line, stream, offset
FROM runtide.log_lines FINAL
WHERE project = {project:String} AND run_id = {run:String}
  AND (received_ms > transform(toString(stream), {streams:Array(String)}, {received:Array(Int64)}, toInt64(-1))
    OR toInt64(offset) > transform(toString(stream), {streams:Array(String)}, {offsets:Array(Int64)}, toInt64(-1)))
ORDER BY received_ms, stream, offset LIMIT {most:UInt32}
"""
# From where each stream was left: streams become visible in any order, but the ranges of one come one after the other.
# By the gateway's clock too, since what fills a hole comes later than what lies above it; not by that alone, since it
# may be set back.
_VALUES = """
SELECT metric, last, last_step FROM runtide.metric_summary
WHERE project = {project:String} AND run_id = {run:String} AND rank = -1 ORDER BY metric
"""
_STATE = "SELECT state FROM runtide.runs WHERE project = {project:String} AND run_id = {run:String}"


def follow(
    client: Client,
    key: RunKey,
    say: Callable[[str], None],
    every_s: float = 0.5,
    pause: Callable[[float], None] = time.sleep,
    most: int = 10_000,
) -> str:
    """Print what comes until the run has ended and nothing more does; return its state. Blocks.

    Lines are asked for `most` at a time. Each such page is printed as its streams said it, one among the other by the
    jobs' clocks.
    """
    told = {"project": key.project, "run": key.run_id}
    left: dict[str, tuple[int, int]] = {"": (0, 0)}  # of each stream the latest receipt and the highest offset
    last_step = None
    while True:
        state = next((str(row["state"]) for row in rows(client, _STATE, **told)), "unknown")
        received, offsets = map(list, zip(*left.values(), strict=True))
        page = rows(client, _LINES, streams=list(left), received=received, offsets=offsets, most=most, **told)
        for row in page:
            received_ms, offset = left.get(row["stream"], (-1, -1))
            left[row["stream"]] = max(received_ms, row["received_ms"]), max(offset, row["offset"])
        for row in merged(page):
            say(line_of(row))
        if len(page) == most:
            continue
        values = rows(client, _VALUES, **told)
        step = max((int(row["last_step"]) for row in values), default=None)
        if step is not None and step != last_step:
            say(values_of(values, step))
        if state in ENDED and not page and step == last_step:
            return state
        last_step = step
        pause(every_s)


def merged(page: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines by time, but those of a stream never in another order than they were printed: its clock may be set back."""
    latest: dict[str, Any] = {}
    keyed = []
    for row in sorted(page, key=lambda row: row["offset"]):
        latest[row["stream"]] = max(row["time"], latest.get(row["stream"], row["time"]))
        keyed.append((latest[row["stream"]], row))
    return [row for _, row in sorted(keyed, key=lambda entry: entry[0])]


def line_of(row: dict[str, Any]) -> str:
    """One console line with its rank and time."""
    return f"{row['time']:%H:%M:%S} [{row['rank']}] {row['line']}"


def values_of(values: list[dict[str, Any]], step: int) -> str:
    """The metrics that have the newest step, in one line."""
    current = [f"{row['metric']}={cell(float(row['last']))}" for row in values if row["last_step"] == step]
    return f"step {step}  {'  '.join(current)}"
