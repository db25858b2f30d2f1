"""The last lines that a run's processes printed."""

# ruff: noqa: S608 - values are bound parameters; only names and numbers of our own are put into the text

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runtide.warehouse.queries.reading import rows
from runtide.wire.clocks import CLOCK_TOLERANCE_US


@dataclass(frozen=True)
class LogRow:
    """One line of a console."""

    time: datetime
    rank: int
    stream: str
    line: str


def log_tail(
    client: Any,
    project: str,
    run_id: str,
    *,
    text: str = "",
    ranks: Sequence[int] = (),
    consoles: Sequence[str] = (),
    limit: int = 200,
) -> list[LogRow]:
    """The last lines that hold `text` (whatever the case), oldest first."""
    parts = ["project = {project:String}", "run_id = {run:String}"]
    parameters: dict[str, Any] = {"project": project, "run": run_id}
    if text:
        parts.append("positionCaseInsensitiveUTF8(line, {text:String}) > 0")
        parameters["text"] = text
    if ranks:
        parts.append("rank IN {ranks:Array(Int32)}")
        parameters["ranks"] = list(ranks)
    if consoles:
        parts.append("console IN {consoles:Array(String)}")
        parameters["consoles"] = list(consoles)
    # In the order of the key, so that only the end of a long log is read; LIMIT BY drops the copies FINAL would drop.
    # Where a host's clock was wrong, or was set, its time is no order: then by when the lines came.
    order = "received_at" if _clocks_are_wrong(client, project, run_id) else "time"
    found = rows(
        client,
        "SELECT time, rank, console, line FROM ("
        "SELECT time, rank, console, line, stream, offset, received_at FROM runtide.log_lines "
        f"WHERE {' AND '.join(parts)} ORDER BY {order} DESC, stream DESC, offset DESC "
        f"LIMIT 1 BY time, stream, offset LIMIT {int(limit)}) ORDER BY {order}, stream, offset",
        parameters,
    )
    return [LogRow(row["time"], row["rank"], row["console"], row["line"]) for row in found]


def _clocks_are_wrong(client: Any, project: str, run_id: str) -> bool:
    found = rows(
        client,
        "SELECT 1 AS wrong FROM runtide.ledger WHERE project = {project:String} AND run_id = {run:String} "
        f"AND greatest(abs(clock_least_us), abs(clock_most_us)) > {CLOCK_TOLERANCE_US} LIMIT 1",
        {"project": project, "run": run_id},
    )
    return bool(found)
