"""Stores what arrived, each record once. The heart of the promise "stored exactly once".

A flush goes through the tables in a fixed order, dead letters first and the ledger last, one insert at a time. Either
all of it is known to be stored, and the states of the streams in memory move on; or something is not known, and the
states are forgotten and read anew from the ledger and the tables (`recall`), which tells exactly what is missing.
So it does not matter where a flush broke off, nor whether the next one cuts the stream at other edges.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
from clickhouse_connect.driver.client import Client

from runtide.bus import Lapsed
from runtide.sink import columns
from runtide.sink.arrived import Arrived
from runtide.sink.audit import links
from runtide.sink.flood import Flood, RunKey, Shared, counted
from runtide.sink.recall import others_write, recall, understood
from runtide.sink.rulings import Judged, judge
from runtide.sink.streams import StreamKey, StreamState
from runtide.warehouse.errors import RowsRefused, StoreBusy
from runtide.warehouse.writer import Inserts
from runtide.wire.books import UNREADABLE
from runtide.wire.crash import crash_point
from runtide.wire.decode import Dead, Decoded
from runtide.wire.hints import Hint

log = logging.getLogger("runtide.sink")

REMEMBERED = 20_000
"""Streams whose state is kept in memory; one that was forgotten is read again when it speaks."""


Hold = Callable[[], AbstractContextManager[bool]]
"""Says whether the streams are still ours, and keeps them so while inside. Raises Lapsed where that is not known."""


class TakenAway(Exception):
    """The streams may belong to another sink now. What was stored so far it will find in the tables."""


class Stopped(Exception):
    """Told to stop while the store was away. Nothing is lost: what was not stored was not committed."""


@dataclass(slots=True)
class Counters:
    """What the store has done since it began."""

    flushes: int = 0
    rows: int = 0
    records: int = 0
    points: int = 0
    duplicate_ranges: int = 0
    """Ranges of which everything was stored already."""
    dead: int = 0
    gaps: int = 0
    recalls: int = 0
    """Streams read back from ledger and tables."""
    retries: int = 0
    """Flushes begun anew after an unknown result."""
    insert_seconds: float = 0.0
    build_seconds: float = 0.0


@dataclass(slots=True)
class _Plan:
    """One try of one flush: the new parts of what arrived, and the states as they will be once all is stored."""

    parts: list[Arrived] = field(default_factory=list)
    states: dict[StreamKey, StreamState] = field(default_factory=dict)
    touched: set[StreamKey] = field(default_factory=set)
    duplicates: int = 0
    judged: Judged = field(default_factory=Judged)
    """Dead letters that are stored with it."""
    flood: Flood = field(default_factory=Flood)
    buried: dict[StreamKey, Counter[str]] = field(default_factory=dict)
    """Kinds of the records that the store has refused."""

    def shared(self, client: Client) -> Shared:
        """Say whether more than one project writes, by what is stored and by what has just come."""
        return lambda part: (
            any(other.project != part.project for other in self.parts)
            or others_write(client, part.project, part.received_us)
        )


class Store:
    """Exactly-once storage over a client that reads and a writer that inserts. For one thread at a time."""

    def __init__(
        self,
        client: Client,
        writer: Inserts,
        days: int = 0,
        backoff_s: tuple[float, float] = (0.1, 10.0),
        stopping: threading.Event | None = None,
        flood: Flood | None = None,
    ) -> None:
        """`days` is the retention stamped on rows, `backoff_s` the first and the longest wait before a retry."""
        self._flood = flood or Flood()
        self._others = False
        """Another sink may have been at work on what is ours now."""
        self._hold: Hold = _always
        self.alarm = ""
        """What a person has to look at while a flush is tried again and again; empty while none is."""
        self._client = client
        self._writer = writer
        self._days = days
        self._backoff_s = backoff_s
        self._stopping = stopping or threading.Event()
        self._states: OrderedDict[StreamKey, StreamState] = OrderedDict()
        self.counters = Counters()

    def forget(self, others: bool = False) -> None:
        """Trust nothing that was learned so far; `others` may have been at work too, and may still be."""
        self._states.clear()
        self._others = self._others or others

    @property
    def remembered(self) -> int:
        """Streams whose state is in memory."""
        return len(self._states)

    def flush(self, arrived: Sequence[Arrived], hold: Hold | None = None) -> list[Hint]:
        """Store what is new of `arrived` and say what that was.

        Blocks until all of it is stored, however long the store is away. Every insert is made within a `hold`: once
        that says no, TakenAway is raised; while it cannot say, nothing is inserted. Raises StoreMisconfigured where
        waiting does not help, Stopped when told to stop meanwhile, and Flooded where all that a partition brings would
        become dead letters.
        """
        self._hold = hold or _always
        try:
            return self._keep_trying(arrived)
        finally:
            self.alarm = ""

    def _keep_trying(self, arrived: Sequence[Arrived]) -> list[Hint]:
        wait_s = self._backoff_s[0]
        while True:
            pause_s = wait_s
            try:
                return self._try(arrived)
            except StoreBusy as error:
                self.forget()
                self.counters.retries += 1
                self.alarm = str(error) if error.alarm else self.alarm
                level = logging.ERROR if error.alarm else logging.WARNING
                log.log(level, "store busy code=%d retry_s=%.1f said=%s", error.clickhouse_code, wait_s, error)
                wait_s = min(2 * wait_s, self._backoff_s[1])
            except Lapsed as error:
                self.forget(others=True)
                pause_s = self._backoff_s[0]
                log.warning("nothing is stored until the group answers: %s", error)
            except BaseException:
                self.forget()
                raise
            if self._stopping.wait(pause_s * random.uniform(0.5, 1.0)):  # noqa: S311  spreads retries, no secret
                raise Stopped

    def _try(self, arrived: Sequence[Arrived]) -> list[Hint]:
        self._check()
        self._writer.settle(self._others)
        self._others = False
        fresh = self._recall({part.key for part in arrived if part.key not in self._states})
        doubtful = self._doubtful(arrived, fresh)
        self._recall(doubtful)
        judged = self._judge([part for part in arrived if part.ruling is not None])
        plan = self._plan([*arrived, *judged.parts])
        plan.judged = judged
        for key in {part.key for part in arrived if part.ruling is not None}:
            if self._states[key].ahead:
                plan.states.setdefault(key, self._states[key].copy())
                plan.touched.add(key)
        plan.flood = self._flood.copy()
        for part in plan.parts:
            plan.flood.refused(part, part.said.dead, self._understood, plan.shared(self._client))
        crash_point("sink.planned")
        self._insert_links(plan)
        for table, count, build in columns.TABLES:
            for block in columns.blocks(plan.parts, count):
                self._insert(table, build, block, plan)
                crash_point("sink.inserted")
        crash_point("sink.stored")
        self._insert_ledger(plan)
        self._insert_fates(list(judged.last.values()))
        self._remember(plan)
        for part in plan.parts:
            plan.flood.stored(part, plan.buried.setdefault(part.key, Counter()))
        self._flood = plan.flood
        return _hints(plan.parts)

    def _insert_links(self, plan: _Plan) -> None:
        """Put changes into their chains, before they are events: so what is not an event yet is looked for there."""
        for batch in links(self._client, plan.parts):
            try:
                self._write("audit_rows", batch)
            except RowsRefused as error:  # without it nothing may pass
                raise StoreBusy(f"the audit trail cannot go on: {error}", error.clickhouse_code, alarm=True) from error
            crash_point("sink.chained")

    def _judge(self, rulings: Sequence[Arrived]) -> Judged:
        """Carry out what people say of dead letters, up to where it becomes an ordinary storing of what is missing."""
        if not rulings:
            return Judged()
        keys = {part.key for part in rulings}
        self._recall(keys)
        judged = judge(self._client, rulings, self._states, time.time_ns() // 1000)
        if judged.fates:
            self._insert_fates(judged.fates)
            self._recall(keys)  # a letter that is not replayed after all fills its hole again
        states = judged.reopen(self._states)
        if states:
            self._write("ledger", columns.ledger(states, self._days))
            for state in states:
                state.revision += 1
        return judged

    def _insert_fates(self, fates: Sequence[columns.Fate]) -> None:
        if fates:
            self._write("dead_letter_fates", columns.fates(fates))

    def _understood(self, kind: str, runs: Set[RunKey]) -> Set[RunKey]:
        return understood(self._client, kind, runs)

    def _recall(self, keys: set[StreamKey]) -> set[StreamKey]:
        if keys:
            self._states.update(recall(self._client, keys))
            # A sink that was frozen may still write the revision after the one that it has read: ours are later.
            now_ms = time.time_ns() // 1_000_000
            for key in keys:
                self._states[key].revision = max(self._states[key].revision, now_ms)
            self.counters.recalls += len(keys)
        return keys

    def _doubtful(self, arrived: Sequence[Arrived], fresh: set[StreamKey]) -> set[StreamKey]:
        """Streams that do not simply go on where memory says they ended; memory may be behind another sink's work."""
        ahead: dict[StreamKey, StreamState] = {}
        found: set[StreamKey] = set()
        for part in arrived:
            if part.key in fresh or part.key in found:
                continue
            state = ahead.setdefault(part.key, self._states[part.key].copy())
            if state.is_doubtful(part.start, part.end):
                found.add(part.key)
            else:
                state.extent.add(part.start, part.end)
        return found

    def _plan(self, arrived: Sequence[Arrived]) -> _Plan:
        plan = _Plan()
        for part in arrived:
            state = plan.states.get(part.key)
            if state is None:
                state = plan.states[part.key] = self._states[part.key].copy()
                if state.ahead:
                    plan.touched.add(part.key)
            missing = state.extent.missing(part.start, part.end)
            if not missing:
                plan.duplicates += 1
                continue
            new = part.only(missing)
            _count(state, new)
            for start, end in missing:
                state.extent.add(start, end)
            plan.touched.add(part.key)
            plan.parts.append(new)
        for part in plan.parts:
            self._note_ends(part, plan)
        return plan

    def _note_ends(self, part: Arrived, plan: _Plan) -> None:
        """An agent's finding that a process ended closes that process's stream too, where it is known here."""
        for other in part.said.others:
            if other.kind != "stream_ended":
                continue
            key = (part.project, part.run_id, other.message.stream)  # type: ignore[attr-defined]
            state = plan.states.get(key)
            if state is None and key in self._states:
                state = plan.states[key] = self._states[key].copy()
            if state is not None and state.closed_at is None:
                state.closed_at = other.time_us or part.received_us
                plan.touched.add(key)

    def _insert(self, table: str, build: columns.Build, block: list[Arrived], plan: _Plan) -> None:
        began = time.perf_counter()
        batch = build(block, self._days)
        built = time.perf_counter()
        try:
            self._write(table, batch)
        except RowsRefused as error:
            if table == "dead_letters":  # nothing of ours can be wrong in there, and without it nothing may pass
                raise StoreBusy(f"dead letters cannot be kept: {error}", error.clickhouse_code, alarm=True) from error
            self._halve(table, build, block, error, plan)
        self.counters.build_seconds += built - began
        self.counters.insert_seconds += time.perf_counter() - built
        self.counters.rows += batch.num_rows

    def _halve(self, table: str, build: columns.Build, block: list[Arrived], error: RowsRefused, plan: _Plan) -> None:
        """Store all of a refused block but the records that the store will not take; those become dead letters."""
        records = _records_of(table, block)
        if len(records) == 1:
            self._bury(records[0], table, error, plan)
            return
        middle = len(records) // 2
        for half in (records[:middle], records[middle:]):
            try:
                self._write(table, build(half, self._days))
            except RowsRefused as again:
                self._halve(table, build, half, again, plan)

    def _bury(self, record: Arrived, table: str, error: RowsRefused, plan: _Plan) -> None:
        offset, length, points = _place(record)
        reason = f"the store refuses it for {table}: {error}"
        if record.letter and offset == record.start:
            self._insert_fates([plan.judged.refuse(record, reason)])
        if record.letter and length == record.end - record.start:  # its bytes are there already
            return self._count_dead(record.key, points, plan)
        dead = Dead(offset, length, record.bytes_of(offset, length), table, reason)
        (kind,) = +counted(record.said)
        plan.buried.setdefault(record.key, Counter())[kind] += 1
        about = dead._replace(kind=kind, reason=f"the store refuses it for {table}: code {error.clickhouse_code}")
        plan.flood.refused(replace(record, said=Decoded()), [about], self._understood, plan.shared(self._client))
        self._write("dead_letters", columns.dead_letters([replace(record, said=Decoded(dead=[dead]))], 0))
        log.error("record refused by the store stream=%s offset=%d reason=%s", record.stream, offset, reason)
        return self._count_dead(record.key, points, plan)

    def _count_dead(self, key: StreamKey, points: int, plan: _Plan) -> None:
        state = plan.states[key]
        state.records -= 1
        state.points -= points
        state.dead += 1

    def _insert_ledger(self, plan: _Plan) -> None:
        states = [plan.states[key] for key in sorted(plan.touched) if not key[2].startswith(UNREADABLE)]
        if not states:
            return
        self._write("ledger", columns.ledger(states, self._days))
        for state in states:
            state.revision += 1
            state.ahead = False

    def _write(self, table: str, batch: pa.RecordBatch) -> None:
        with self._hold() as is_ours:
            if not is_ours:
                raise TakenAway
            self._writer.insert(table, batch)

    def _check(self) -> None:
        with self._hold() as is_ours:
            if not is_ours:
                raise TakenAway

    def _remember(self, plan: _Plan) -> None:
        for key, state in plan.states.items():
            before = self._states.get(key) or StreamState(*key)
            if key in plan.touched:
                self.counters.records += state.records - before.records
                self.counters.points += state.points - before.points
                self.counters.dead += state.dead - before.dead
                self.counters.gaps += state.gaps - before.gaps
            self._states[key] = state
            self._states.move_to_end(key)
        while len(self._states) > REMEMBERED:
            self._states.popitem(last=False)
        self.counters.flushes += 1
        self.counters.duplicate_ranges += plan.duplicates


def _always() -> AbstractContextManager[bool]:
    return nullcontext(True)


def _count(state: StreamState, part: Arrived) -> None:
    """Count what a new part of a stream says. Called before its extent is added, which tells new from late."""
    said = part.said
    state.role, state.rank, state.host, state.attempt = part.role, part.rank, part.host, part.attempt
    state.received_us = max(state.received_us, part.received_us)
    state.note_clock(part.ahead_us)
    state.dead += len(said.dead)
    if part.gap is not None:
        state.gaps += max(part.gap.records, 1)
        return
    state.records += said.records
    state.points += len(said.steps.values)
    if len(said.steps):
        state.note_step(said.steps.step[-1], said.steps.time_us[-1], said.steps.offset[-1], part.received_us)
    for other in said.others:
        state.note_event(other.kind, other.time_us or part.received_us)
        if other.kind == "gap":
            state.gaps += max(other.message.records, 1)  # type: ignore[attr-defined]


def _records_of(table: str, block: Iterable[Arrived]) -> list[Arrived]:
    """One Arrived for each record that the block has in a table, with nothing but that record."""
    return [
        replace(part, said=part.said.only([(offset, offset + 1)]))
        for part in block
        for offset in _OFFSETS[table](part.said)
    ]


_OFFSETS: dict[str, Callable[[Decoded], Iterable[int]]] = {
    "points": lambda said: said.steps.offset,
    "samples": lambda said: [row.offset for row in said.samples],
    "log_lines": lambda said: [row.offset for row in said.log_lines],
    "figures": lambda said: [row.offset for row in said.figures],
    "events": lambda said: [row.offset for row in said.others],
}


def _place(record: Arrived) -> tuple[int, int, int]:
    """Offset, length and points of a part that has one record."""
    said = record.said
    if len(said.steps):
        return said.steps.offset[0], said.steps.length[0], len(said.steps.values)
    row: Any = (*said.samples, *said.log_lines, *said.figures, *said.others)[0]
    return row.offset, row.length, 0


def _hints(parts: Sequence[Arrived]) -> list[Hint]:
    """One hint for each stream that has new records, and for each dead letter that was replayed."""
    by_stream: dict[StreamKey, list[Arrived]] = {}
    replayed = [[part] for part in parts if part.letter]  # each by itself: they may lie far from what is new
    for part in parts:
        if not part.letter and not part.stream.startswith(UNREADABLE):
            by_stream.setdefault(part.key, []).append(part)
    return [_hint(same) for same in [*by_stream.values(), *replayed]]


def _hint(parts: list[Arrived]) -> Hint:
    last = parts[-1]
    metrics: dict[str, tuple[int, int]] = {}
    times = [row.time_us for part in parts for row in part.said.samples]
    for names, low, high in (spread for part in parts for spread in columns.spreads(part.said.steps)):
        for name in names:
            before = metrics.get(name)
            metrics[name] = (low, high) if before is None else (min(low, before[0]), max(high, before[1]))
    return Hint(
        last.project,
        last.run_id,
        last.stream,
        last.role,
        last.rank,
        last.attempt,
        min(part.start for part in parts),
        max(part.end for part in parts),
        metrics,
        frozenset(
            {other.kind for part in parts for other in part.said.others}
            | {"figure" for part in parts if part.said.figures}
        ),
        (min(times), max(times)) if times else None,
    )
