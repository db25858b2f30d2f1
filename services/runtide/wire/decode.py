"""From the bytes of a range to what was said.

Judges every record by itself: one that cannot be stored becomes a `Dead` with its bytes and the reason, and its
neighbours are read. Never raises for bad bytes. Steps, which are nearly all of the traffic, are read by their fixed
layout without building a message; whatever does not fit that layout goes through protobuf.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from zlib import crc32

from google.protobuf.message import DecodeError, Message

from runtide.v1 import records_pb2 as v1
from runtide.v1.ingest_pb2 import Range
from runtide.wire.errors import BadInput
from runtide.wire.framing import CRC_BYTES, CRC_TAG, Element, FramingError, elements, field_number, sound, varint
from runtide.wire.limits import EARLIEST_US, GAP_RECORDS, IDENTITY_BYTES, KEY_SET_NAMES, LATEST_US, NAME_BYTES

READINGS = 4096
"""Readings of one sample."""
ATTEMPTS = 65_535
"""The greatest attempt."""

Interval = tuple[int, int]
"""Bytes [from, to) of a stream."""


class SampleRow(NamedTuple):
    """One Sample record."""

    offset: int
    length: int
    time_us: int
    rank: int
    readings: tuple[tuple[str, str, float], ...]
    """Device, name and value."""


class LogRow(NamedTuple):
    """One LogLine record."""

    offset: int
    length: int
    time_us: int
    console: str
    line: str


class FigureRow(NamedTuple):
    """One Figure record."""

    offset: int
    length: int
    message: v1.Figure


class Other(NamedTuple):
    """A record of any other kind; `time_us` is 0 where it says none."""

    kind: str
    time_us: int
    offset: int
    length: int
    message: Message


class Dead(NamedTuple):
    """Bytes that could not be understood or stored."""

    offset: int
    length: int
    bytes: bytes
    kind: str
    reason: str


@dataclass(slots=True)
class Steps:
    """The Step records of a range as parallel arrays, in the order of the stream."""

    key_sets: list[tuple[str, ...]] = field(default_factory=list)
    """The key sets in use; `which` refers to them by place."""
    which: array[int] = field(default_factory=lambda: array("i"))
    offset: array[int] = field(default_factory=lambda: array("Q"))
    length: array[int] = field(default_factory=lambda: array("I"))
    step: array[int] = field(default_factory=lambda: array("q"))
    time_us: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))
    """All values, step after step, each in the order of its names."""

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def names(self) -> list[tuple[str, ...]]:
        """The metric names of each step."""
        return [self.key_sets[which] for which in self.which]

    def only(self, keep: Callable[[int], bool]) -> Steps:
        """The steps whose offset passes `keep`."""
        chosen = Steps(key_sets=self.key_sets)
        at = 0
        for place, which in enumerate(self.which):
            count = len(self.key_sets[which])
            if keep(self.offset[place]):
                chosen.which.append(which)
                chosen.offset.append(self.offset[place])
                chosen.length.append(self.length[place])
                chosen.step.append(self.step[place])
                chosen.time_us.append(self.time_us[place])
                chosen.values.extend(self.values[at : at + count])
            at += count
        return chosen


@dataclass(slots=True)
class Decoded:
    """What a range says. Every byte of it lies in exactly one record here, dead ones included."""

    steps: Steps = field(default_factory=Steps)
    samples: list[SampleRow] = field(default_factory=list)
    log_lines: list[LogRow] = field(default_factory=list)
    figures: list[FigureRow] = field(default_factory=list)
    others: list[Other] = field(default_factory=list)
    dead: list[Dead] = field(default_factory=list)

    @property
    def records(self) -> int:
        """Records that were understood."""
        return len(self.steps) + len(self.samples) + len(self.log_lines) + len(self.figures) + len(self.others)

    def only(self, intervals: Sequence[Interval]) -> Decoded:
        """The records that begin within one of the intervals."""

        def keep(offset: int) -> bool:
            return any(start <= offset < end for start, end in intervals)

        return Decoded(
            self.steps.only(keep),
            [row for row in self.samples if keep(row.offset)],
            [row for row in self.log_lines if keep(row.offset)],
            [row for row in self.figures if keep(row.offset)],
            [row for row in self.others if keep(row.offset)],
            [row for row in self.dead if keep(row.offset)],
        )


def decode(range_: Range, body: bytes) -> Decoded:
    """Read the body of a range. `range_` gives its offset and the key sets that were defined before it."""
    return _Reader(range_, body).read()


class _Reader:
    """Reads one body. Holds what the records so far have said of key sets."""

    def __init__(self, range_: Range, body: bytes) -> None:
        self._body = body
        self._base = range_.offset
        self._out = Decoded()
        self._places: dict[int, int] = {}
        """Key set id to its place in `steps.key_sets`."""
        self._layouts: dict[int, _Layout] = {}
        self._unfit = _unfit(range_)
        for key_set in range_.key_sets:
            if _judge_key_set(key_set) is None:
                self._define(key_set)

    def read(self) -> Decoded:
        body, position, size = self._body, 0, len(self._body)
        while position < size:
            position = self._read_alike(position)
            if position >= size:
                break
            try:
                element = next(elements(body, position))
            except FramingError as error:
                self._bury(position, size, "", f"framing: {error.reason}")
                break
            self._read_one(element)
            position = element.end
        return self._out

    def _read_one(self, element: Element) -> None:
        body = self._body
        kind = _KINDS.get(field_number(body, element), "")
        if not sound(body, element):
            return self._bury(element.start, element.end, kind, "crc does not fit")
        if self._unfit is not None:
            return self._bury(element.start, element.end, kind, self._unfit)
        try:
            record = v1.Record.FromString(body[element.record : element.end])
        except DecodeError as error:
            return self._bury(element.start, element.end, kind, f"not a record of this wire: {error}")
        kind = record.WhichOneof("said") or ""
        if not kind:
            return self._bury(element.start, element.end, "", "its kind is not known to this release")
        reason = self._take(kind, getattr(record, kind), element)
        if reason is not None:
            self._bury(element.start, element.end, kind, reason)
        return None

    def _take(self, kind: str, said: Any, element: Element) -> str | None:
        """Keep what a record says, or return why it cannot be stored."""
        offset, length = self._base + element.start, element.end - element.start
        time_us: int = getattr(said, "time_us", 0)
        if not EARLIEST_US <= time_us <= LATEST_US:
            return str(BadInput(f"{kind}.time_us", time_us, "the store holds the years 1900 to 2299"))
        if kind == "step":
            return self._take_step(said, offset, length)
        reason = _JUDGES[kind](said) if kind in _JUDGES else None
        if reason is not None:
            return reason
        out = self._out
        if kind == "sample":
            readings = tuple((reading.device, reading.name, reading.value) for reading in said.readings)
            out.samples.append(SampleRow(offset, length, time_us, said.rank, readings))
        elif kind == "log_line":
            out.log_lines.append(LogRow(offset, length, time_us, _CONSOLES.get(said.console, ""), said.line))
        elif kind == "figure":
            out.figures.append(FigureRow(offset, length, said))
        else:
            if kind == "key_set":
                self._define(said)
            out.others.append(Other(kind, time_us, offset, length, said))
        return None

    def _take_step(self, said: v1.Step, offset: int, length: int) -> str | None:
        place = self._places.get(said.key_set)
        if place is None:
            return "unknown key set"
        steps = self._out.steps
        expected = len(steps.key_sets[place])
        if len(said.values) != expected:
            return f"key set {said.key_set} has {expected} names, but the step has {len(said.values)} values"
        steps.which.append(place)
        steps.offset.append(offset)
        steps.length.append(length)
        steps.step.append(said.step)
        steps.time_us.append(said.time_us)
        steps.values.extend(said.values)
        return None

    def _read_alike(self, position: int) -> int:
        """Read steps of one key set from `position` on, as long as they are laid out alike and sound.

        Returns where it stopped: at something else, or at something to be judged more closely. All elements that begin
        with the same bytes up to the step number have the same key set and the same length.
        """
        layout = self._layout_at(position)
        if layout is None:
            return position
        body, steps = self._body, self._out.steps
        view, values = memoryview(body), steps.values
        start, skip, packed, values_from, cut, size, unpack = layout.hot()
        first, last = position, len(body) - size
        while position <= last and body.startswith(start, position):
            step, tag, time_us, length_bytes, crc_tag, crc = unpack(body, position)
            if (
                tag != _TIME_TAG
                or length_bytes != packed
                or crc_tag != CRC_TAG
                or crc != crc32(view[position + skip : position + cut])
                or not EARLIEST_US <= time_us <= LATEST_US
            ):
                break
            steps.step.append(step)
            steps.time_us.append(time_us)
            values.frombytes(view[position + values_from : position + cut])
            position += size
        count = (position - first) // size
        steps.which.extend([layout.place] * count)
        steps.length.extend([size] * count)
        steps.offset.extend(range(self._base + first, self._base + position, size))
        return position

    def _layout_at(self, position: int) -> _Layout | None:
        """The layout of the step at `position`, if it is one of a known key set in the usual order of fields."""
        body = self._body
        if self._unfit is not None or len(body) < position + _LEAST_STEP:
            return None
        at = _after_varint(body, position + 1)
        if body[at] != _STEP_TAG:
            return None
        at = _after_varint(body, at + 1)
        if body[at] != _KEY_SET_TAG:
            return None
        key_set = int.from_bytes(body[at + 1 : at + 5], "little")
        place = self._places.get(key_set)
        if place is None:
            return None
        layout = self._layouts.get(place)
        if layout is None:
            layout = self._layouts[place] = _Layout(key_set, place, len(self._out.steps.key_sets[place]))
        return layout

    def _define(self, key_set: v1.KeySet) -> None:
        """Remember a key set. A repeated definition keeps its place; another one under the same id replaces it."""
        names = tuple(key_set.names)
        key_sets = self._out.steps.key_sets
        place = self._places.get(key_set.id)
        if place is None or key_sets[place] != names:
            self._places[key_set.id] = len(key_sets)
            key_sets.append(names)

    def _bury(self, start: int, end: int, kind: str, reason: str) -> None:
        self._out.dead.append(Dead(self._base + start, end - start, bytes(self._body[start:end]), kind, reason))


_STEP_TAG, _KEY_SET_TAG, _TIME_TAG = 0x1A, 0x0D, 0x19
_LEAST_STEP = 35
"""No step of the usual layout is shorter, so within this many bytes nothing has to be checked for the end."""
_VARINT = 5


class _Layout:
    """How a step of `count` values is laid out by `framing.StepEncoder`."""

    def __init__(self, key_set: int, place: int, count: int) -> None:
        packed = b"\x22" + varint(8 * count)
        step_length = 5 + 9 + 9 + len(packed) + 8 * count
        inner = b"\x1a" + varint(step_length)
        element = b"\x0a" + varint(len(inner) + step_length + CRC_BYTES)
        start = element + inner + b"\x0d" + struct.pack("<I", key_set) + b"\x11"
        layout = struct.Struct(f"<{len(start)}xqBq{len(packed)}s{8 * count}xBI")
        self.place = place
        self._hot = (
            start,
            len(element),
            packed,
            layout.size - CRC_BYTES - 8 * count,
            layout.size - CRC_BYTES,
            layout.size,
            layout.unpack_from,
        )

    def hot(self) -> tuple[bytes, int, bytes, int, int, int, Callable[[bytes, int], tuple[Any, ...]]]:
        """First bytes up to the step number, where the record begins, the values' tag and length, where the values
        begin and end, the size of all, and what reads it.
        """
        return self._hot


def _after_varint(body: bytes, at: int) -> int:
    """The place after the varint at `at`; some place nearby if there is none."""
    end = at + _VARINT
    while body[at] >= 0x80 and at < end:
        at += 1
    return at + 1


def _unfit(range_: Range) -> str | None:
    """Why no record of a range could be stored under the identity that it claims."""
    for name in ("stream", "run_id", "host", "project"):
        if reason := _long(f"range.{name}", getattr(range_, name), IDENTITY_BYTES):
            return reason
    if range_.attempt > ATTEMPTS:
        return str(BadInput("range.attempt", range_.attempt, f"at most {ATTEMPTS} are told apart"))
    return None


def _long(name: str, value: str, limit: int) -> str | None:
    size = len(value.encode())
    return str(BadInput(f"length of {name}", f"{size} bytes", f"at most {limit} are taken")) if size > limit else None


def _first(reasons: Iterable[str | None]) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)


def _judge_key_set(said: v1.KeySet) -> str | None:
    if not 0 < len(said.names) <= KEY_SET_NAMES:
        return str(BadInput("key_set.names", f"{len(said.names)} names", f"1 to {KEY_SET_NAMES} are taken"))
    if len(set(said.names)) != len(said.names):
        return f"key set {said.id} names a metric twice"
    if "" in said.names:
        return f"key set {said.id} has an empty name"
    return _first(_long("key_set.names", name, NAME_BYTES) for name in said.names)


def _judge_sample(said: v1.Sample) -> str | None:
    if not 0 < len(said.readings) <= READINGS:
        return str(BadInput("sample.readings", f"{len(said.readings)} readings", f"1 to {READINGS} are taken"))
    named = {(reading.device, reading.name) for reading in said.readings}
    if len(named) != len(said.readings):
        return "sample has two readings of one device and name"
    return _first(_long("reading.name", text, NAME_BYTES) for pair in named for text in pair)


def _judge_figure(said: v1.Figure) -> str | None:
    fields = (("name", said.name), ("kind", said.kind), ("content_type", said.content_type))
    return _first(_long(f"figure.{name}", value, NAME_BYTES) for name, value in fields)


def _judge_ended(said: v1.StreamEnded) -> str | None:
    return _long("stream_ended.stream", said.stream, IDENTITY_BYTES)


def _judge_gap(said: Any) -> str | None:
    most = max(said.records, said.points)
    if most > GAP_RECORDS:
        return str(BadInput("gap.records, gap.points", most, f"a gap declares at most {GAP_RECORDS}"))
    return None


_JUDGES: dict[str, Callable[[Any], str | None]] = {
    "key_set": _judge_key_set,
    "sample": _judge_sample,
    "figure": _judge_figure,
    "stream_ended": _judge_ended,
    "gap": _judge_gap,
}
_CONSOLES = {v1.CONSOLE_STDOUT: "stdout", v1.CONSOLE_STDERR: "stderr"}
_KINDS: dict[int, str] = {field.number: field.name for field in v1.Record.DESCRIPTOR.oneofs_by_name["said"].fields}
