"""From decoded ranges to Arrow blocks, one function for each raw table. Pure.

Points are nearly all of the rows: they are made by numpy from whole arrays, names are codes into small dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf.json_format import MessageToJson
from numpy.typing import NDArray

from runtide.sink.arrived import Arrived
from runtide.sink.streams import StreamState
from runtide.v1.records_pb2 import Role
from runtide.warehouse.dead_letters import Letter
from runtide.wire import canary
from runtide.wire.books import is_book
from runtide.wire.decode import Steps

DAYS_MOST = 65_535
"""The longest retention that a row can say."""
BLOCK_ROWS = 200_000
"""A block is closed when it has this many rows; a range is never cut, so a block may have one range more than that."""

_TIME = pa.timestamp("us", tz="UTC")
_RECEIVED = pa.timestamp("ms", tz="UTC")
_HOLES = pa.list_(pa.struct([("1", pa.uint64()), ("2", pa.uint64())]))
ROLES: dict[int, str] = {
    Role.ROLE_RANK: "rank",
    Role.ROLE_CHILD: "child",
    Role.ROLE_AGENT: "agent",
    Role.ROLE_USER: "user",
}


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a dead letter."""

    letter: Letter
    fate: str
    reason: str
    by: str
    at_us: int
    why: str = ""
    token: str = ""
    step: int = 1
    """How many revisions after the letter's last known one."""


class _Names:
    """Texts as codes."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    def code(self, text: str) -> int:
        return self._codes.setdefault(text, len(self._codes))

    def column(self, codes: Any) -> pa.Array:
        indices = pa.array(codes, pa.int32())
        return pa.DictionaryArray.from_arrays(indices, pa.array(list(self._codes), pa.string()))


def _coded(texts: Iterable[str]) -> pa.Array:
    names = _Names()
    return names.column([names.code(text) for text in texts])


def points(parts: Sequence[Arrived], days: int) -> pa.RecordBatch:
    """Rows of `points`: one for each value of each step."""
    steps = [part.said.steps for part in parts]
    offset = _joined([each.offset for each in steps], np.uint64)
    metrics, set_start, set_size, set_base = _key_sets(parts)
    owner = np.repeat(np.arange(len(parts)), [len(each) for each in steps])
    which = _joined([each.which for each in steps], np.int32) + set_base[owner]
    size = set_size[which]
    total = int(size.sum())
    place = np.arange(total) - np.repeat(np.cumsum(size) - size - set_start[which], size)
    owner_of_point = np.repeat(owner, size)
    shared = _shared(parts, owner_of_point, days)
    return pa.RecordBatch.from_pydict(
        {
            "metric": metrics[1].column(metrics[0][place]),
            "step": np.repeat(_joined([each.step for each in steps], np.int64), size),
            "rank": _of_owner([part.rank for part in parts], np.int32, owner_of_point),
            "value": _joined([each.values for each in steps], np.float64),
            "time": pa.array(np.repeat(_joined([each.time_us for each in steps], np.int64), size)).view(_TIME),
            "offset": np.repeat(offset, size),
            "length": np.repeat(_joined([each.length for each in steps], np.uint32), size),
            "of": np.repeat(size.astype(np.uint16), size),
            **shared,
        }
    )


def samples(parts: Sequence[Arrived], days: int) -> pa.RecordBatch:
    """Rows of `samples`: one for each reading."""
    rows = [
        (owner, row, device, name, value)
        for owner, part in enumerate(parts)
        for row in part.said.samples
        for device, name, value in row.readings
    ]
    return pa.RecordBatch.from_pydict(
        {
            "host": _coded(parts[row[0]].host for row in rows),
            "device": _coded(row[2] for row in rows),
            "name": _coded(row[3] for row in rows),
            "rank": pa.array([row[1].rank for row in rows], pa.int32()),
            "time": pa.array([row[1].time_us for row in rows], _TIME),
            "value": pa.array([row[4] for row in rows], pa.float64()),
            **_placed((row[1] for row in rows), [len(row[1].readings) for row in rows], pa.uint32()),
            **_shared(parts, np.array([row[0] for row in rows], np.int64), days),
        }
    )


def log_lines(parts: Sequence[Arrived], days: int) -> pa.RecordBatch:
    """Rows of `log_lines`: one for each line."""
    owner, rows = _owned(parts, lambda part: part.said.log_lines)
    return pa.RecordBatch.from_pydict(
        {
            "rank": _of_owner([part.rank for part in parts], np.int32, owner),
            "time": pa.array([row.time_us for row in rows], _TIME),
            "console": _coded(row.console for row in rows),
            "line": pa.array([row.line for row in rows], pa.string()),
            **_placed(rows, [1] * len(rows), pa.uint32()),
            **_shared(parts, owner, days),
        }
    )


def figures(parts: Sequence[Arrived], days: int) -> pa.RecordBatch:
    """Rows of `figures`: one for each."""
    owner, rows = _owned(parts, lambda part: part.said.figures)
    said = [row.message for row in rows]
    return pa.RecordBatch.from_pydict(
        {
            "name": _coded(each.name for each in said),
            "kind": _coded(each.kind for each in said),
            "step": pa.array([each.step for each in said], pa.int64()),
            "rank": _of_owner([part.rank for part in parts], np.int32, owner),
            "time": pa.array([each.time_us for each in said], _TIME),
            "json": pa.array([each.json for each in said], pa.string()),
            "content": pa.array([each.content for each in said], pa.binary()),
            "content_type": _coded(each.content_type for each in said),
            **_placed(rows, [1] * len(rows), pa.uint32()),
            **_shared(parts, owner, days),
        }
    )


def events(parts: Sequence[Arrived], days: int) -> pa.RecordBatch:
    """Rows of `events`: one for each record of any other kind, and for each declared gap."""
    owner, rows = _owned(parts, lambda part: part.said.others)
    times = [row.time_us or parts[at].received_us for at, row in zip(owner.tolist(), rows, strict=True)]
    return pa.RecordBatch.from_pydict(
        {
            "kind": _coded(row.kind for row in rows),
            "time": pa.array(times, _TIME),
            "rank": _of_owner([part.rank for part in parts], np.int32, owner),
            "host": _coded(parts[at].host for at in owner.tolist()),
            "json": pa.array([as_json(row.message) for row in rows], pa.string()),
            "clock_ahead_us": pa.array([parts[at].ahead_us for at in owner.tolist()], pa.int64()),
            **_placed(rows, [1] * len(rows), pa.uint64()),
            **_shared(parts, owner, days),
        }
    )


def dead_letters(parts: Sequence[Arrived], days: int) -> pa.RecordBatch:
    """Rows of `dead_letters`: one for each record that could not be understood. They are kept whatever `days` says."""
    del days
    owner, rows = _owned(parts, lambda part: part.said.dead)
    owners = [parts[at] for at in owner.tolist()]
    return pa.RecordBatch.from_pydict(
        {
            "project": _coded(part.project for part in owners),
            "run_id": pa.array([part.run_id for part in owners], pa.string()),
            "stream": pa.array([part.stream for part in owners], pa.string()),
            "offset": pa.array([row.offset for row in rows], pa.uint64()),
            "length": pa.array([row.length for row in rows], pa.uint64()),
            "kind": _coded(row.kind for row in rows),
            "reason": pa.array([row.reason for row in rows], pa.string()),
            "bytes": pa.array([row.bytes for row in rows], pa.binary()),
            "rank": pa.array([part.rank for part in owners], pa.int32()),
            "host": _coded(part.host for part in owners),
            "attempt": pa.array([part.attempt for part in owners], pa.uint16()),
            "received_at": pa.array([part.received_us // 1000 for part in owners], _RECEIVED),
        }
    )


def fates(decided: Sequence[Fate]) -> pa.RecordBatch:
    """Rows of `dead_letter_fates`, each with the revision after the letter's last one."""
    letters = [fate.letter for fate in decided]
    revisions = [fate.letter.revision + fate.step for fate in decided]
    return pa.RecordBatch.from_pydict(
        {
            "project": _coded(letter.project for letter in letters),
            "run_id": pa.array([letter.run_id for letter in letters], pa.string()),
            "stream": pa.array([letter.stream for letter in letters], pa.string()),
            "offset": pa.array([letter.offset for letter in letters], pa.uint64()),
            "revision": pa.array(revisions, pa.uint32()),
            "fate": _coded(fate.fate for fate in decided),
            "reason": pa.array([fate.reason for fate in decided], pa.string()),
            "by": pa.array([fate.by for fate in decided], pa.string()),
            "at": pa.array([fate.at_us for fate in decided], _TIME),
            "why": pa.array([fate.why for fate in decided], pa.string()),
            "token": pa.array([fate.token for fate in decided], pa.string()),
        }
    )


def ledger(states: Sequence[StreamState], days: int) -> pa.RecordBatch:
    """Rows of `ledger`, each with the revision after the one that its state was read from.

    `days` is said of the raw rows, and the shortest retention that a stream ever had stands; these are kept.
    """
    return pa.RecordBatch.from_pydict(
        {
            "project": _coded(state.project for state in states),
            "run_id": pa.array([state.run_id for state in states], pa.string()),
            "stream": pa.array([state.stream for state in states], pa.string()),
            "role": _coded(ROLES.get(state.role, "") for state in states),
            "rank": pa.array([state.rank for state in states], pa.int32()),
            "host": _coded(state.host for state in states),
            "attempt": pa.array([state.attempt for state in states], pa.uint16()),
            "mark": pa.array([state.extent.mark for state in states], pa.uint64()),
            "holes": pa.array([[{"1": a, "2": b} for a, b in state.extent.holes] for state in states], _HOLES),
            "records": pa.array([state.records for state in states], pa.uint64()),
            "points": pa.array([state.points for state in states], pa.uint64()),
            "gaps": pa.array([state.gaps for state in states], pa.uint64()),
            "dead": pa.array([state.dead for state in states], pa.uint64()),
            "opened_at": pa.array([state.opened_at for state in states], _TIME),
            "closed_at": pa.array([state.closed_at for state in states], _TIME),
            "last_step": pa.array([state.last_step for state in states], pa.int64()),
            "last_step_at": pa.array([state.last_step_at for state in states], _TIME),
            "received_at": pa.array([state.received_us // 1000 for state in states], _RECEIVED),
            "clock_ahead_us": pa.array([state.clock_us for state in states], pa.int64()),
            "clock_least_us": pa.array([state.clock_least_us for state in states], pa.int64()),
            "clock_most_us": pa.array([state.clock_most_us for state in states], pa.int64()),
            "stepped_received_at": pa.array([_milliseconds(state.stepped_us) for state in states], _RECEIVED),
            "revision": pa.array([state.revision + 1 for state in states], pa.uint64()),
            "days": pa.array([_shortest(state.days, _days(state, days)) for state in states], pa.uint16()),
        }
    )


def _days(of: Arrived | StreamState, days: int) -> int:
    """The retention of a run's raw rows: what the canary says must not pile up, and books are kept."""
    if is_book(of.run_id):
        return 0
    return canary.DAYS if of.project == canary.PROJECT else days


def _kept(part: Arrived, days: int) -> int:
    """Days from its receipt until a row of a part is deleted; 0 for never."""
    return min(days + part.late_days, DAYS_MOST) if days else 0


def _milliseconds(time_us: int | None) -> int | None:
    return None if time_us is None else time_us // 1000


def _shortest(*days: int) -> int:
    return min(filter(None, days), default=0)


def _point_count(part: Arrived) -> int:
    return len(part.said.steps.values)


def _reading_count(part: Arrived) -> int:
    return sum(len(row.readings) for row in part.said.samples)


Build = Callable[[Sequence[Arrived], int], pa.RecordBatch]
Count = Callable[[Arrived], int]

TABLES: tuple[tuple[str, Count, Build], ...] = (
    ("dead_letters", lambda part: len(part.said.dead), dead_letters),
    ("points", _point_count, points),
    ("samples", _reading_count, samples),
    ("log_lines", lambda part: len(part.said.log_lines), log_lines),
    ("figures", lambda part: len(part.said.figures), figures),
    ("events", lambda part: len(part.said.others), events),
)
"""Table, how many rows a range makes in it, and how: in the order in which they are stored, the ledger after all."""


def rows(part: Arrived) -> int:
    """Rows that a range makes in all tables."""
    return sum(count(part) for _, count, _ in TABLES)


def blocks(parts: Sequence[Arrived], count: Count, limit: int = BLOCK_ROWS) -> Iterator[list[Arrived]]:
    """Cut ranges into blocks for one table: within a month of receipt, which is a partition, and about `limit` rows."""
    block: list[Arrived] = []
    size, month = 0, -1
    for part in parts:
        if (more := count(part)) == 0:
            continue
        received = _month(part.received_us)
        if block and (received != month or size + more > limit):
            yield block
            block, size = [], 0
        block.append(part)
        size, month = size + more, received
    if block:
        yield block


def as_json(message: Any) -> str:
    """A record's fields by their names in records.proto."""
    return MessageToJson(message, preserving_proto_field_name=True, indent=None, ensure_ascii=False)


def _month(time_us: int) -> int:
    """A number that is the same within a calendar month, UTC."""
    return int(np.datetime64(time_us, "us").astype("datetime64[M]").astype(np.int64))


def _joined(arrays: Sequence[Any], dtype: Any) -> NDArray[Any]:
    if not arrays:
        return np.empty(0, dtype)
    return np.concatenate([np.frombuffer(each, dtype) if len(each) else np.empty(0, dtype) for each in arrays])


def _key_sets(
    parts: Sequence[Arrived],
) -> tuple[tuple[NDArray[np.int32], _Names], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """All key sets of the parts, laid end to end; equal ones are laid once.

    Returns the metric codes, where each set begins in them, how many names it has, and each part's first set.
    """
    names = _Names()
    codes: list[int] = []
    starts: list[int] = []
    sizes: list[int] = []
    bases: list[int] = []
    spans: dict[tuple[str, ...], int] = {}
    for part in parts:
        bases.append(len(starts))
        for key_set in part.said.steps.key_sets:
            start = spans.get(key_set)
            if start is None:
                start = spans[key_set] = len(codes)
                codes.extend(map(names.code, key_set))
            starts.append(start)
            sizes.append(len(key_set))
    as_ints = [np.array(each, np.int64) for each in (starts, sizes, bases)]
    return (np.array(codes, np.int32), names), as_ints[0], as_ints[1], as_ints[2]


def _owned(
    parts: Sequence[Arrived], rows_of: Callable[[Arrived], Sequence[Any]]
) -> tuple[NDArray[np.int64], list[Any]]:
    found = [rows_of(part) for part in parts]
    owner = np.repeat(np.arange(len(parts)), [len(each) for each in found])
    return owner, [row for each in found for row in each]


def _of_owner(values: Sequence[Any], dtype: Any, owner: NDArray[np.int64]) -> NDArray[Any]:
    return np.array(values, dtype)[owner]


def _placed(rows_: Iterable[Any], of: Sequence[int], length: pa.DataType) -> dict[str, pa.Array]:
    """Where the records lie in their stream, and how many rows each makes."""
    held = list(rows_)
    return {
        "offset": pa.array([row.offset for row in held], pa.uint64()),
        "length": pa.array([row.length for row in held], length),
        "of": pa.array(of, pa.uint16()),
    }


def _shared(parts: Sequence[Arrived], owner: NDArray[np.int64], days: int) -> dict[str, Any]:
    """The columns that say whose rows they are; `owner` is the part of each row."""
    columns: dict[str, Any] = {}
    for name in ("project", "run_id", "stream"):
        names = _Names()
        codes = [names.code(getattr(part, name)) for part in parts]
        columns[name] = names.column(_of_owner(codes, np.int32, owner))
    columns["attempt"] = _of_owner([part.attempt for part in parts], np.uint16, owner)
    received = _of_owner([part.received_us // 1000 for part in parts], np.int64, owner)
    columns["received_at"] = pa.array(received).view(_RECEIVED)
    columns["days"] = _of_owner([_kept(part, _days(part, days)) for part in parts], np.uint16, owner)
    return columns


def spreads(steps: Steps) -> Iterator[tuple[tuple[str, ...], int, int]]:
    """Least and greatest step of each key set that is in use."""
    if not len(steps):
        return
    step = np.frombuffer(steps.step, np.int64)
    if len(steps.key_sets) == 1:
        yield steps.key_sets[0], int(step.min()), int(step.max())
        return
    which = np.frombuffer(steps.which, np.int32)
    for place in np.unique(which).tolist():
        own = step[which == place]
        yield steps.key_sets[place], int(own.min()), int(own.max())
