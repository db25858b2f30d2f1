"""`runtide tail`: console lines and last values of a run as they come."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from runtide.cli.store import RunKey, rows
from runtide.cli.tables import cell
from runtide.warehouse.client import Client
from runtide.wire.states import ENDED

_LINES = """
SELECT received_at, time, rank, console, line, stream, offset FROM runtide.log_lines FINAL
WHERE project = {project:String} AND run_id = {run:String}
  AND received_at >= fromUnixTimestamp64Milli({since:Int64}) ORDER BY time, stream, offset LIMIT 10000
"""
# By the gateway's clock, not the job's: a line of a slow host may come after later ones of others.
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
) -> str:
    """Print what comes until the run has ended and nothing more does; return its state. Blocks."""
    told = {"project": key.project, "run": key.run_id}
    seen: set[tuple[str, int]] = set()
    since_ms, last_step = 0, None
    while True:
        state = next((str(row["state"]) for row in rows(client, _STATE, **told)), "unknown")
        news = rows(client, _LINES, since=since_ms, **told)
        fresh = [row for row in news if (row["stream"], row["offset"]) not in seen]
        for row in fresh:
            say(line_of(row))
        if news:
            since_ms = max(_milliseconds(row["received_at"]) for row in news)
            seen |= {(row["stream"], row["offset"]) for row in fresh}
        values = rows(client, _VALUES, **told)
        step = max((int(row["last_step"]) for row in values), default=None)
        if step is not None and step != last_step:
            say(values_of(values, step))
        if state in ENDED and not fresh and step == last_step:
            return state
        last_step = step
        pause(every_s)


def line_of(row: dict[str, Any]) -> str:
    """One console line with its rank and time."""
    return f"{row['time']:%H:%M:%S} [{row['rank']}] {row['line']}"


def values_of(values: list[dict[str, Any]], step: int) -> str:
    """The metrics that have the newest step, in one line."""
    current = [f"{row['metric']}={cell(float(row['last']))}" for row in values if row["last_step"] == step]
    return f"step {step}  {'  '.join(current)}"


def _milliseconds(when: datetime) -> int:
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)
