"""Appends changes to the chain of their project: what of a flush is not in it yet, behind the row that is the last.

The head is read from the table each time, never remembered, and so is which changes are in the chain: nothing that the
sink, or another one before it, may have got wrong outlives the flush. One sink owns a chain, since all changes of a
project have one key on the bus; a block is one insert, so the chain has all of it or nothing. Changes are stored here
before they are stored as events: one that is an event is in the chain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from runtide.sink.arrived import Arrived
from runtide.v1.records_pb2 import Change
from runtide.warehouse.audit import FIRST, Entry
from runtide.warehouse.errors import classified
from runtide.wire.books import CHANGES
from runtide.wire.changes import adds, following, slot

NOTHING = "null"
"""What is `before` where nobody knows of anything."""

_HEAD = "SELECT seq, hash FROM runtide.audit_rows WHERE project = {project:String} ORDER BY seq DESC LIMIT 1"
_THERE = """
SELECT stream, offset FROM runtide.audit_rows WHERE project = {project:String} AND stream IN {streams:Array(String)}
"""
_LAST = """
SELECT subject, kind, before, after FROM runtide.audit_rows
WHERE project = {project:String} AND subject IN {subjects:Array(String)}
ORDER BY seq DESC LIMIT 1 BY subject, kind
"""


def links(client: Client, parts: Sequence[Arrived]) -> Iterator[pa.RecordBatch]:
    """Rows of `audit_rows`, a block for each project that has changes. Raises StoreError."""
    by_project: dict[str, list[Entry]] = {}
    for part in parts:
        if part.run_id == CHANGES:
            by_project.setdefault(part.project, []).extend(_entries(part))
    for project, said in by_project.items():
        if new := _not_in_chain(client, project, said):
            yield _block(_chained(client, project, new))


def _entries(part: Arrived) -> Iterator[Entry]:
    for other in part.said.others:
        said = other.message
        if isinstance(said, Change):
            what = said.subject, said.kind, said.reason, said.before, said.after
            yield Entry(part.project, 0, part.received_us, part.actor, *what, part.stream, other.offset)


def _not_in_chain(client: Client, project: str, said: Sequence[Entry]) -> list[Entry]:
    streams = sorted({entry.stream for entry in said})
    there = {(row[0], row[1]) for row in _rows(client, _THERE, project=project, streams=streams)}
    return [entry for entry in said if (entry.stream, entry.offset) not in there]


def _chained(client: Client, project: str, new: Sequence[Entry]) -> Iterator[Entry]:
    """The entries in their places: with what was there before them, and with their hashes."""
    seq, head = next(iter(_rows(client, _HEAD, project=project)), (0, FIRST))
    held: dict[tuple[str, str], str] = {}
    subjects = sorted({entry.subject for entry in new})
    for subject, kind, before, after in _rows(client, _LAST, project=project, subjects=subjects):
        held.setdefault((subject, slot(kind)), following(kind, before, after))
    for entry in new:
        seq += 1
        place = entry.subject, slot(entry.kind)
        before = NOTHING if adds(entry.kind) else held.get(place, entry.before or NOTHING)
        held[place] = following(entry.kind, before, entry.after)
        linked = replace(entry, seq=seq, before=before, previous=head)
        head = linked.digest()
        yield replace(linked, hash=head)


def _block(entries: Iterator[Entry]) -> pa.RecordBatch:
    rows = list(entries)
    texts = ("project", "actor", "subject", "kind", "reason", "before", "after", "stream", "previous", "hash")
    numbers = ("seq", "offset")
    return pa.RecordBatch.from_pydict(
        {
            **{name: pa.array([getattr(row, name) for row in rows], pa.string()) for name in texts},
            **{name: pa.array([getattr(row, name) for row in rows], pa.uint64()) for name in numbers},
            "time": pa.array([row.time_us for row in rows], pa.timestamp("us", tz="UTC")),
        }
    )


def _rows(client: Client, sql: str, **told: Any) -> Sequence[Any]:
    try:
        return client.query(sql, parameters=told).result_rows
    except (ClickHouseError, OSError) as error:
        raise classified(error) from error
