"""Whether everything that a run declared is stored, once: counted in the base tables, without FINAL.

Each record says its offset and its length, so the records of a stream, dead letters and declared gaps among them, must
lie end to end from 0 to the stream's end; each row says how many rows its record makes. What does not fit is named.
What retention has deleted is told apart from what is missing: the ledger, which is kept, says that it was stored, and
what the shortest retention was that the stream ever had.
A stream that goes on is judged up to the ledger's mark: what lies beyond is on its way into the tables, one by one.
The counting is done by ClickHouse; only what is wrong comes back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from runtide.warehouse.errors import classified

LISTED = 1000
"""At most this many faults of a kind are listed for a stream, and counted."""


@dataclass(frozen=True, slots=True)
class MissingRange:
    """Bytes [start, end) of a stream that no table holds."""

    start: int
    end: int
    after_step: int | None = None
    """Of the last step stored before."""
    before_step: int | None = None
    """Of the first step stored after."""
    is_hole: bool = False
    """The ledger knows of it: it has not come, rather than got lost."""


@dataclass(frozen=True, slots=True)
class OddRecord:
    """A record that does not have as many rows as it makes."""

    table: str
    start: int
    end: int
    found: int
    of: int
    distinct: int
    step: int | None = None
    missing: tuple[str, ...] = ()
    """Metrics that its key set names and that are not there, where they are known."""


@dataclass(slots=True)
class StreamVerification:
    """One stream: what it declared and what is stored of it."""

    stream: str
    rank: int = 0
    host: str = ""
    role: str = ""
    attempt: int = 0
    declared_end: int | None = None
    """First byte that was never written, said by the process or by the agent; None while nobody has said."""
    declared_records: int | None = None
    """With its last word, which declares them; None where it had none."""
    declared_points: int | None = None
    stored_end: int = 0
    stored_records: int = 0
    """As the ledger counts them: with its last word, without dead letters and gaps."""
    stored_points: int = 0
    duplicates: int = 0
    """Rows beyond the distinct ones."""
    missing: list[MissingRange] = field(default_factory=list)
    expired: list[MissingRange] = field(default_factory=list)
    """Stored once, and deleted by retention since."""
    gone: bool = False
    """Bytes that were stored once are in no table: they have expired, or got lost."""
    odd: list[OddRecord] = field(default_factory=list)
    dead: int = 0
    discarded: int = 0
    """Of the dead letters: those that somebody gave up. The others can be replayed."""
    discards: list[str] = field(default_factory=list)
    """Who gave them up, when, and why."""
    gaps: int = 0
    """Declared losses."""
    losses: list[str] = field(default_factory=list)
    """What was declared lost, and why: at most LISTED."""
    lost_records: int = 0
    """Records within declared ranges that never came, as far as they were counted."""
    ledger_mark: int | None = None
    ledger_records: int = 0
    ledger_points: int = 0
    closed: bool = False
    other: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """How problems name it."""
        return f"stream {self.stream} (rank {self.rank})"

    @property
    def problems(self) -> list[str]:
        """What is wrong, one sentence each."""
        return [f"{self.name}: {text}" for text in (*_missing(self), *_odd(self), *_counts(self), *self.other)]


@dataclass(slots=True)
class Verification:
    """A run: its streams, and what is wrong."""

    project: str
    run_id: str
    streams: list[StreamVerification] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    """Artifacts that were logged and are not uploaded."""

    @property
    def problems(self) -> list[str]:
        """What is wrong, naming stream, rank, range and table."""
        if not self.streams:
            return [f"nothing is stored of run {self.run_id} of project {self.project}"]
        return [problem for stream in self.streams for problem in stream.problems] + [
            f"artifact {name}: not uploaded yet, it waits in the spool of its host" for name in self.waiting
        ]

    @property
    def clean(self) -> bool:
        """Everything declared is stored, once. Declared gaps and dead letters are losses that were not hidden."""
        return not self.problems

    @property
    def declared_records(self) -> int:
        """Of the streams that declared."""
        return sum(stream.declared_records or 0 for stream in self.streams)

    @property
    def declared_points(self) -> int:
        """Of the streams that declared."""
        return sum(stream.declared_points or 0 for stream in self.streams)

    @property
    def stored_records(self) -> int:
        """Of all streams."""
        return sum(stream.stored_records for stream in self.streams)

    @property
    def stored_points(self) -> int:
        """Rows of the table points."""
        return sum(stream.stored_points for stream in self.streams)

    @property
    def duplicates(self) -> int:
        """Rows beyond the distinct ones, in all tables."""
        return sum(stream.duplicates for stream in self.streams)

    @property
    def missing_ranges(self) -> int:
        """Ranges of streams that no table holds, and records with rows missing."""
        return sum(len(stream.missing) + sum(odd.distinct < odd.of for odd in stream.odd) for stream in self.streams)

    @property
    def expired(self) -> list[str]:
        """What retention has deleted, one sentence each."""
        return [f"{stream.name}: {text}" for stream in self.streams for text in _expired(stream)]

    @property
    def gone(self) -> bool:
        """Whether raw rows that were stored once are there no more, whatever took them."""
        return any(stream.gone for stream in self.streams)

    @property
    def gaps(self) -> int:
        """Declared losses."""
        return sum(stream.gaps for stream in self.streams)

    @property
    def dead(self) -> int:
        """Dead letters, those that were discarded among them, but not those that were replayed."""
        return sum(stream.dead for stream in self.streams)

    @property
    def discarded(self) -> int:
        """Dead letters that somebody gave up: declared losses."""
        return sum(stream.discarded for stream in self.streams)


def verify_run(client: Client, project: str, run_id: str) -> Verification:
    """Compare what a run's streams declared with what is stored. Raises StoreError."""
    run = _Run(client, project, run_id)
    streams: dict[str, StreamVerification] = {}
    run.read_ledger(streams)
    run.read_declared(streams)
    run.read_stored(streams)
    run.read_discarded(streams)
    run.look_at_ends(streams)
    ordered = sorted(streams.values(), key=lambda stream: (stream.role == "agent", stream.rank, stream.stream))
    return Verification(project, run_id, ordered, run.waiting_artifacts())


_KEYS = {
    "points": "metric",
    "samples": "(device, name, host)",
    "log_lines": "offset",
    "figures": "offset",
    "events": "offset",
    "dead_letters": "offset",
}
"""What tells the rows of one record apart."""
_DAY_S = 86_400

_OF_RUN = "project = {project:String} AND run_id = {run_id:String}"


_REPLAYED = f"SELECT stream, offset FROM runtide.dead_letter_fates WHERE {_OF_RUN} AND fate = 'replayed'"  # noqa: S608
_RANGE_GAP = "any(kind) = 'gap' AND JSONHas(any(json), 'length')"


def _records_sql() -> str:
    """One row for each record of each table, with the bytes that it covers."""
    parts = []
    for table, key in _KEYS.items():
        but = f"AND (stream, offset) NOT IN ({_REPLAYED})" if table == "dead_letters" else ""
        made = "toUInt16(1)" if table == "dead_letters" else "any(of)"
        parts.append(
            f"SELECT stream, offset, any(length) AS bytes, '{table}' AS source, count() AS found, {made} AS made, "  # noqa: S608
            f"uniqExact({key}) AS apart, any(received_at) AS received, "
            f"{'any(step)' if table == 'points' else 'toInt64(0)'} AS said_step, "
            f"{_RANGE_GAP if table == 'events' else '0'} AS gap "
            f"FROM runtide.{table} WHERE {_OF_RUN} {but} "
            "GROUP BY stream, offset"
        )
    return " UNION ALL ".join(parts)


# Where a record begins after the end of all before it, [before, offset) is missing.
_STORED = """
SELECT stream,
    countIf(source != 'dead_letters' AND NOT gap), sumIf(found, source = 'points'),
    sum(toInt64(found) - toInt64(apart)), countIf(source = 'dead_letters'), max(offset + bytes),
    arraySort(odd -> odd.2, groupArrayIf({{limit:UInt32}})(
        (source, offset, offset + bytes, found, made, apart, said_step), found != made OR apart != made)),
    arraySort(groupArrayIf({{limit:UInt32}})((before, offset, before_step, step, before_received), before < offset))
FROM
(
    SELECT *, if(source = 'points', said_step, NULL) AS step,
        max(offset + bytes) OVER earlier AS before,
        anyLast(step) OVER earlier AS before_step,
        toUnixTimestamp(anyLast(received) OVER earlier) AS before_received
    FROM ({records})
    WINDOW earlier AS (PARTITION BY stream ORDER BY offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
GROUP BY stream
"""

_LEDGER = f"""
SELECT stream, rank, host, role, attempt, mark, records, points, holes,
    days, toUnixTimestamp(ifNull(opened_at, received_at)), toUnixTimestamp(received_at), toUnixTimestamp(now())
FROM runtide.ledger FINAL
WHERE {_OF_RUN}
"""  # noqa: S608  constants

_WAITING = f"""
SELECT any(name)
FROM
(
    SELECT
        JSONExtractString(json, 'name') AS name, JSONExtractString(json, 'json') AS told,
        JSONExtractString(told, 'of') AS logged, JSONExtractBool(told, 'pending') AS pending
    FROM runtide.events
    WHERE {_OF_RUN} AND kind = 'artifact_ref'
)
WHERE logged != ''
GROUP BY logged
HAVING NOT has(groupUniqArray(pending), false)
ORDER BY logged
"""  # noqa: S608  constants

_DISCARDED = f"""
SELECT stream, by, reason, formatDateTime(max(at), '%F %H:%i UTC', 'UTC'), count(), min(offset), max(offset)
FROM
(
    SELECT stream, offset, argMax(fate, revision) AS fate, argMax(by, revision) AS by,
        argMax(reason, revision) AS reason, max(dead_letter_fates.at) AS at
    FROM runtide.dead_letter_fates
    WHERE {_OF_RUN}
    GROUP BY stream, offset
)
WHERE fate = 'discarded'
GROUP BY stream, by, reason
ORDER BY stream, min(offset)
"""  # noqa: S608  constants

_DECLARED = f"""
SELECT kind, stream, rank, host, attempt, offset + length, json
FROM runtide.events
WHERE {_OF_RUN} AND kind IN ('stream_closed', 'stream_ended', 'gap')
ORDER BY stream, offset
LIMIT 1 BY stream, offset
"""  # noqa: S608  constants


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the ledger says of a stream's bytes. Times are seconds."""

    mark: int = 0
    holes: tuple[tuple[int, int], ...] = ()
    days: int = 0
    opened_s: int = 0
    received_s: int = 0
    now_s: int = 0

    def expired(self, end: int, received_s: int) -> bool:
        """Say whether bytes up to `end`, received at that time or later, may have been deleted by retention."""
        return 0 < self.days <= self.now_s // _DAY_S - received_s // _DAY_S and end <= self.mark


class _Run:
    """Asks of one run."""

    def __init__(self, client: Client, project: str, run_id: str) -> None:
        self._client = client
        self._told = {"project": project, "run_id": run_id}
        self._kept: dict[str, _Kept] = {}

    def read_ledger(self, streams: dict[str, StreamVerification]) -> None:
        for stream, rank, host, role, attempt, mark, records, points, holes, *times in self._rows(_LEDGER):
            found = StreamVerification(stream, rank, host, role, attempt)
            found.ledger_mark, found.ledger_records, found.ledger_points = mark, records, points
            self._kept[stream] = _Kept(mark, tuple((start, end) for start, end in holes), *times)
            streams[stream] = found

    def read_declared(self, streams: dict[str, StreamVerification]) -> None:
        """Last words, the agents' findings, and declared losses."""
        for kind, stream, rank, host, attempt, end, text in self._rows(_DECLARED):
            said = json.loads(text)
            speaker = streams.setdefault(stream, StreamVerification(stream, rank, host, "", attempt))
            if kind == "gap":
                speaker.gaps += max(int(said.get("records", 0)), 1)
                if len(speaker.losses) < LISTED:
                    speaker.losses.append(_loss(said))
                speaker.lost_records += int(said.get("records", 0)) if "length" in said else 0
            elif kind == "stream_closed":
                speaker.closed = True
                speaker.declared_end = max(end, speaker.declared_end or 0)
                speaker.declared_records = int(said.get("records", 0)) + 1
                speaker.declared_points = int(said.get("points", 0))
            elif ended := said.get("stream"):
                about = streams.setdefault(ended, StreamVerification(ended))
                about.declared_end = max(int(said.get("offset", 0)), about.declared_end or 0)

    def read_stored(self, streams: dict[str, StreamVerification]) -> None:
        """Counts of the base tables, and what in them does not fit."""
        for row in self._rows(_STORED.format(records=_records_sql()), limit=LISTED):
            found = streams.setdefault(row[0], StreamVerification(row[0]))
            found.stored_records, found.stored_points, found.duplicates, found.dead, found.stored_end = row[1:6]
            judged = self._judged_end(found)
            found.odd = [self._odd_record(found.stream, *odd) for odd in row[6] if odd[1] < judged or odd[3] > odd[5]]
            for start, end, after_step, before_step, received_s in row[7]:
                if start >= judged:
                    continue
                self._note(found, MissingRange(start, end, after_step, before_step), received_s)

    def _judged_end(self, found: StreamVerification) -> float:
        """First byte that is not judged."""
        goes_on = found.declared_end is None and found.ledger_mark is not None
        return found.ledger_mark or 0 if goes_on else math.inf

    def read_discarded(self, streams: dict[str, StreamVerification]) -> None:
        """Dead letters that were given up."""
        for stream, by, reason, at, number, first, last in self._rows(_DISCARDED):
            found = streams.setdefault(stream, StreamVerification(stream))
            found.discarded += number
            where = f"at {first}" if number == 1 else f"{number} from {first} to {last}"
            found.discards.append(f"dead letter {where} discarded by {by} on {at}: {reason}")

    def look_at_ends(self, streams: dict[str, StreamVerification]) -> None:
        """What is missing between the last record stored and the end that was declared, or that the ledger knows."""
        for found in streams.values():
            kept, end = self._kept.get(found.stream, _Kept()), found.stored_end
            found.gone = found.gone or end < kept.mark
            if end < kept.mark and kept.expired(kept.mark, kept.received_s):
                self._note(found, MissingRange(end, kept.mark), kept.received_s)
                end = kept.mark
            if found.declared_end is not None and end < found.declared_end:
                found.missing.append(MissingRange(end, found.declared_end))

    def waiting_artifacts(self) -> list[str]:
        """Names of what was logged and neither uploaded nor refused."""
        return [str(name) for (name,) in self._rows(_WAITING)]

    def _note(self, found: StreamVerification, gone: MissingRange, received_s: int) -> None:
        """Note a range that no table holds, and whether it has expired; what came before it came at `received_s`."""
        kept = self._kept.get(found.stream, _Kept())
        holes = [(max(low, gone.start), min(high, gone.end)) for low, high in kept.holes]
        holes = [(low, high) for low, high in holes if low < high]
        of_holes = sum(high - low for low, high in holes)
        found.gone = found.gone or gone.start + of_holes < min(gone.end, kept.mark)
        if kept.expired(gone.end, received_s or kept.opened_s) and holes != [(gone.start, gone.end)]:
            found.expired.append(gone)
            found.missing.extend(replace(gone, start=low, end=high, is_hole=True) for low, high in holes)
        else:
            found.missing.append(replace(gone, is_hole=holes == [(gone.start, gone.end)]))

    def _odd_record(
        self, stream: str, table: str, start: int, end: int, found: int, of: int, distinct: int, step: int
    ) -> OddRecord:
        if table != "points":
            return OddRecord(table, start, end, found, of, distinct)
        lacking = self._lacking(stream, start, of) if distinct < of else ()
        return OddRecord(table, start, end, found, of, distinct, step, lacking)

    def _lacking(self, stream: str, offset: int, of: int) -> tuple[str, ...]:
        """The metrics that a record lacks: of the stream's key sets, the one that has all its metrics and its size."""
        there = self._rows(
            f"SELECT DISTINCT metric FROM runtide.points WHERE {_OF_RUN} "  # noqa: S608  constants
            "AND stream = {stream:String} AND offset = {offset:UInt64}",
            stream=stream,
            offset=offset,
        )
        sets = self._rows(
            f"SELECT DISTINCT json FROM runtide.events WHERE {_OF_RUN} "  # noqa: S608  constants
            "AND stream = {stream:String} AND kind = 'key_set' ORDER BY offset LIMIT 10000",
            stream=stream,
        )
        metrics = {row[0] for row in there}
        candidates = {tuple(json.loads(row[0]).get("names", ())) for row in sets}
        fitting = [names for names in candidates if len(names) == of and metrics < set(names)]
        return tuple(name for name in fitting[0] if name not in metrics) if len(fitting) == 1 else ()

    def _rows(self, sql: str, **more: object) -> Sequence[Sequence[Any]]:
        parameters: Mapping[str, object] = {**self._told, **more}
        try:
            return self._client.query(sql, parameters=dict(parameters)).result_rows
        except (ClickHouseError, OSError) as error:
            raise classified(error) from error


def _loss(said: Mapping[str, Any]) -> str:
    """A declared loss in words."""
    counted = ", ".join(f"{said[name]} {name}" for name in ("records", "points") if int(said.get(name, 0)))
    detail = f": {said['detail']}" if said.get("detail") else ""
    return f"declared lost ({said.get('reason', 'no reason')}): {counted or 'not counted'}{detail}"


def _missing(found: StreamVerification) -> list[str]:
    hole = " (a hole in the ledger: they have not come)"
    return [f"{_range(gone)} are in no table{_steps(gone)}{hole if gone.is_hole else ''}" for gone in found.missing]


def _expired(found: StreamVerification) -> list[str]:
    return [f"{_range(gone)} have expired{_steps(gone)}" for gone in found.expired]


def _range(gone: MissingRange) -> str:
    return f"bytes [{gone.start}, {gone.end})"


def _steps(gone: MissingRange) -> str:
    if gone.after_step is not None and gone.before_step is not None:
        return f", between step {gone.after_step} and step {gone.before_step} in points"
    if gone.after_step is not None:
        return f", after step {gone.after_step} in points"
    if gone.before_step is not None:
        return f", before step {gone.before_step} in points"
    return ""


def _odd(found: StreamVerification) -> list[str]:
    texts = []
    for odd in found.odd:
        where = f"bytes [{odd.start}, {odd.end}) in {odd.table}"
        if odd.step is not None:
            where += f", step {odd.step}"
        if odd.distinct < odd.of:
            lacking = f", missing {', '.join(odd.missing)}" if odd.missing else ""
            texts.append(f"{where}: {odd.distinct} of {odd.of} rows{lacking}")
        if odd.found > odd.distinct:
            texts.append(f"{where}: {odd.found} rows, but {odd.distinct} distinct ones")
    return texts


def _counts(found: StreamVerification) -> list[str]:
    texts = []
    gone, declared = bool(found.missing or found.expired), found.declared_end is not None
    if found.declared_records is not None:
        accounted = found.stored_records + found.dead + found.lost_records
        if accounted != found.declared_records and not gone:
            texts.append(f"{found.declared_records} records declared, {accounted} accounted for")
        points = found.stored_points
        if points != found.declared_points and not (gone or found.odd or found.dead or found.lost_records):
            texts.append(f"{found.declared_points} points declared, {points} stored")
    if found.ledger_mark is None:
        texts.append("has rows but no row in the ledger")
    elif found.ledger_mark != found.stored_end and not gone and (declared or found.ledger_mark > found.stored_end):
        texts.append(f"the ledger's mark is {found.ledger_mark}, but the tables end at {found.stored_end}")
    return texts
