"""Stores records the way the sink does, but without the wire: rows, ledger, hint. For tests of the processor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from runtide.wire.hints import Hint

ROLES = {"rank": 1, "child": 2, "agent": 3}
US = pa.timestamp("us", "UTC")
MS = pa.timestamp("ms", "UTC")
_COMMON = [("attempt", pa.uint16()), ("stream", pa.string()), ("offset", pa.uint64())]
_TAIL = [("of", pa.uint16()), ("received_at", MS), ("days", pa.uint16())]
_TYPES = {
    "step": pa.int64(),
    "last_step": pa.int64(),
    "rank": pa.int32(),
    "value": pa.float64(),
    "attempt": pa.uint16(),
    "of": pa.uint16(),
    "days": pa.uint16(),
    "received_at": MS,
    "holes": pa.list_(pa.struct([("1", pa.uint64()), ("2", pa.uint64())])),
    **dict.fromkeys(("time", "opened_at", "closed_at", "last_step_at"), US),
    **dict.fromkeys(("offset", "length", "mark", "records", "points", "gaps", "dead", "revision"), pa.uint64()),
}
"""Types of columns; those not named are strings."""


def _schema(columns: str) -> pa.Schema:
    return pa.schema([(name, _TYPES.get(name, pa.string())) for name in columns.split()])


_RAW = "project run_id rank time attempt stream offset length of received_at days"
SCHEMAS = {
    "points": _schema(f"{_RAW} metric step value"),
    "samples": _schema(f"{_RAW} host device name value"),
    "events": _schema(f"{_RAW} kind host json"),
    "ledger": _schema(
        "project run_id stream role rank host attempt mark holes records points gaps dead opened_at closed_at "
        "last_step last_step_at received_at revision"
    ),
}
LENGTH = 100
"""Bytes of every record: its offset is LENGTH times its place."""


@dataclass
class Record:
    """A step, a sample or an event."""

    kind: str
    time_us: int
    step: int = 0
    values: dict[str, float] = field(default_factory=dict)
    """Of a step by metric, of a sample by name."""
    message: dict[str, Any] = field(default_factory=dict)


@dataclass
class Stream:
    """One stream: all that it will ever say, and what of it is stored."""

    project: str
    run_id: str
    stream: str
    rank: int = 0
    attempt: int = 1
    role: str = "rank"
    host: str = "h1"
    records: list[Record] = field(default_factory=list)
    stored: set[int] = field(default_factory=set)
    revision: int = 0

    def holes(self) -> tuple[int, list[tuple[int, int]]]:
        """Mark and holes in bytes."""
        if not self.stored:
            return 0, []
        mark = max(self.stored) + 1
        holes: list[tuple[int, int]] = []
        for place in range(mark):
            if place not in self.stored:
                if holes and holes[-1][1] == place:
                    holes[-1] = (holes[-1][0], place + 1)
                else:
                    holes.append((place, place + 1))
        return mark * LENGTH, [(start * LENGTH, end * LENGTH) for start, end in holes]


class Feed:
    """Inserts into a store through a client."""

    def __init__(self, client: Any, now_us: int) -> None:
        self.client = client
        self.now_us = now_us

    def store(self, stream: Stream, first: int, last: int) -> Hint:
        """Store the records [first, last) of a stream, those that were not stored before, and say so."""
        return self.store_many([(stream, first, last)])[0]

    def store_many(self, chunks: Sequence[tuple[Stream, int, int]]) -> list[Hint]:
        """Store chunks of several streams in one block of each table."""
        tables: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
        hints = []
        for stream, first, last in chunks:
            places = [place for place in range(first, last) if place not in stream.stored]
            for place in places:
                self._rows(stream, place, tables)
            stream.stored.update(places)
            stream.revision += 1
            hints.append(_hint(stream, first, last))
            tables["ledger"].append(self._ledger(stream))
        for name, rows in tables.items():
            if rows:
                table = pa.Table.from_pylist(rows, schema=SCHEMAS[name])
                self.client.insert_arrow(name, table, database="runtide")
        return hints

    def _rows(self, stream: Stream, place: int, tables: dict[str, list[dict[str, Any]]]) -> None:
        record = stream.records[place]
        common = {
            "project": stream.project,
            "run_id": stream.run_id,
            "rank": stream.rank,
            "time": record.time_us,
            "attempt": stream.attempt,
            "stream": stream.stream,
            "offset": place * LENGTH,
            "length": LENGTH,
            "of": max(1, len(record.values)),
            "received_at": self.now_us // 1000,
            "days": 0,
        }
        if record.kind == "step":
            for metric, value in record.values.items():
                tables["points"].append({**common, "metric": metric, "step": record.step, "value": value})
        elif record.kind == "sample":
            for name, value in record.values.items():
                tables["samples"].append({**common, "host": stream.host, "device": "", "name": name, "value": value})
        else:
            said = json.dumps(record.message)
            tables["events"].append({**common, "kind": record.kind, "host": stream.host, "json": said})

    def _ledger(self, stream: Stream) -> dict[str, Any]:
        mark, holes = stream.holes()
        steps = [place for place in sorted(stream.stored) if stream.records[place].kind == "step"]
        last = stream.records[steps[-1]] if steps else None
        return {
            "project": stream.project,
            "run_id": stream.run_id,
            "stream": stream.stream,
            "role": stream.role,
            "rank": stream.rank,
            "host": stream.host,
            "attempt": stream.attempt,
            "mark": mark,
            "holes": [{"1": start, "2": end} for start, end in holes],
            "records": len(stream.stored),
            "points": sum(len(stream.records[place].values) for place in steps),
            "gaps": 0,
            "dead": 0,
            "opened_at": stream.records[0].time_us if 0 in stream.stored else None,
            "closed_at": None,
            "last_step": last.step if last else None,
            "last_step_at": last.time_us if last else None,
            "received_at": self.now_us // 1000,
            "revision": stream.revision,
        }


def _hint(stream: Stream, first: int, last: int) -> Hint:
    metrics: dict[str, tuple[int, int]] = {}
    kinds, times = set(), []
    for record in stream.records[first:last]:
        if record.kind == "step":
            for metric in record.values:
                low, high = metrics.get(metric, (record.step, record.step))
                metrics[metric] = min(low, record.step), max(high, record.step)
        elif record.kind == "sample":
            times.append(record.time_us)
        else:
            kinds.add(record.kind)
    return Hint(
        stream.project,
        stream.run_id,
        stream.stream,
        ROLES[stream.role],
        stream.rank,
        stream.attempt,
        first * LENGTH,
        last * LENGTH,
        metrics,
        frozenset(kinds),
        (min(times), max(times)) if times else None,
    )


def opened(time_us: int, world_size: int = 1, launch: str = "l1", **more: Any) -> Record:
    """A StreamOpened as the sink writes it: numbers of 64 bits as text, defaults left out."""
    message = {"role": "ROLE_RANK", "world_size": world_size, "launch_id": launch, **more}
    return Record("stream_opened", time_us, message=message)
