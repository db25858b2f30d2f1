"""Appending to one stream of the spool: segments, short writes, key sets and the disk budget.

What `append` returned True for is in the page cache and survives a kill -9 of the process. It never raises for a full
disk or a spent budget: the record is dropped, counted, and declared by a Gap record as soon as there is room again.
Not locked: the owner sees to it that one thread at a time appends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from runtide.spool.layout import Position, StreamInfo, replace_file, segment_name
from runtide.v1.records_pb2 import Gap, KeySet, Record, Role, StreamOpened
from runtide.wire import framing, limits
from runtide.wire.errors import BadInput

LINE_SHARE = 0.8
"""Console lines are dropped when this share of the budget is spent, so that the rest is left to the metrics."""
LAST_RESERVE_BYTES = limits.MIB
"""What records that end a stream may take beyond the budget."""
REREAD_SECONDS = 0.2
"""How often position.json is looked at while the budget is spent."""
GAP_SECONDS = 1.0
"""At most one Gap record in this time, however often room comes and goes."""


class Worth(IntEnum):
    """What goes first when room is short."""

    LINE = 0
    DATA = 1
    LAST = 2
    """StreamClosed and what belongs to it."""


class Count(NamedTuple):
    """Records and points up to some place of a stream."""

    records: int
    points: int


@dataclass(slots=True)
class KeySetUse:
    """A key set of a stream, and the segment that already holds it."""

    element: bytes
    points: int
    segment: int = -1

    @classmethod
    def of(cls, key_set: int, names: tuple[str, ...]) -> KeySetUse:
        """Make the use of a new key set. Raises BadInput where the names are too many for one record."""
        return cls(encode(Record(key_set=KeySet(id=key_set, names=names))), len(names))


def new_stream_id() -> str:
    """An id that sorts by opening time and that no other process has."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"


def opened(info: StreamInfo) -> StreamOpened:
    """The first word of a stream, as far as its stream.json says it too."""
    return StreamOpened(
        time_us=time.time_ns() // 1000,
        role=Role.Name(info.role),
        project=info.project,
        run_id=info.run_id,
        host=info.host,
        pid=info.pid,
        rank=info.rank,
        launch_id=info.launch_id,
        attempt=info.attempt,
    )


def encode(record: Record) -> bytes:
    """Make the element of a record. Raises BadInput where it is larger than a record may be."""
    said = record.SerializeToString()
    if len(said) + framing.CRC_BYTES > limits.RECORD_BYTES:
        kind = record.WhichOneof("said") or "record"
        raise BadInput(kind, f"{len(said)} bytes long", f"a record has at most {limits.RECORD_BYTES} bytes")
    return framing.seal(said)


def count(body: bytes | memoryview) -> Count:
    """Count the records and points of whole elements."""
    records = points = 0
    for element in framing.elements(body):
        records += 1
        points += framing.step_points(body, element)
    return Count(records, points)


class SpoolWriter:
    """Appends elements to a stream's segments."""

    def __init__(
        self,
        folder: Path,
        *,
        segment_bytes: int = limits.SEGMENT_BYTES,
        budget_bytes: int = limits.SPOOL_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the first segment in an existing, empty stream folder. Raises OSError where that cannot be done."""
        self.folder = folder
        self.segment = 0
        """Offset of the first byte of the open segment."""
        self.records = 0
        self.points = 0
        self.dropped_records = 0
        self.dropped_points = 0
        self.dropped_bytes = 0
        self.error = ""
        """Why the last record was dropped, if it was."""
        self.on_first_drop: Callable[[str], object] | None = None
        """Told the reason when the first record is dropped."""
        self._segment_bytes = segment_bytes
        self._room = (int(budget_bytes * LINE_SHARE), budget_bytes, budget_bytes + LAST_RESERVE_BYTES)
        self._clock = clock
        self._acknowledged = 0
        self._read_again_at = 0.0
        self._undeclared = Count(0, 0)
        self._gap_at = 0.0
        self._base = Count(0, 0)
        self._edges: list[tuple[int, Count]] = [(0, self._base)]
        self._rolling = False
        self._position = 0
        self._fd = self._open(0)
        self._ready = 0
        self._set_ready()

    @classmethod
    def create(
        cls,
        host_folder: Path,
        info: StreamInfo,
        *,
        segment_bytes: int = limits.SEGMENT_BYTES,
        budget_bytes: int = limits.SPOOL_BYTES,
        beside: Mapping[str, str] | None = None,
    ) -> SpoolWriter:
        """Make the folder of a new stream, say who speaks there, and open it. Raises OSError.

        `beside` are files by name that are there before the agent can find the stream, as far as the disk takes them.
        """
        host_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = host_folder / info.stream
        folder.mkdir(mode=0o700)
        try:
            for name, text in (beside or {}).items():
                with contextlib.suppress(OSError):  # the stream is worth more, and its own file tells what is wrong
                    replace_file(folder / name, text)
            info.write(folder)
        except OSError:  # a full disk must not fill with folders of streams that never were
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return cls(folder, segment_bytes=segment_bytes, budget_bytes=budget_bytes)

    @property
    def offset(self) -> int:
        """The stream's end: offset of the next byte."""
        return self.segment + self._position

    @property
    def closed(self) -> bool:
        """Whether nothing can be appended any more."""
        return self._fd < 0

    def append(self, element: bytes, points: int = 0, worth: Worth = Worth.DATA) -> bool:
        """Append one element. False: it was dropped and counted."""
        if self._position + len(element) > self._ready:
            return self._append_slowly(element, None, points, worth)
        return self._write(element, 1, points)

    def append_step(self, element: bytes, key_set: KeySetUse) -> bool:
        """Append a Step, with its key set before it where the open segment does not hold it yet."""
        size = len(element)
        if key_set.segment != self.segment or self._position + size > self._ready:
            return self._append_slowly(element, key_set, key_set.points, Worth.DATA)
        try:
            written = os.write(self._fd, element)
        except OSError as error:
            return self._failed(0, error.strerror or "write failed", key_set.points, size)
        if written != size:
            return self._failed(written, "disk full", key_set.points, size)
        self._position += size
        self.records += 1
        self.points += key_set.points
        return True

    def append_record(self, record: Record, worth: Worth = Worth.DATA) -> bool:
        """Append any record but a Step. Raises BadInput where it is too large."""
        return self.append(encode(record), 0, worth)

    def close(self) -> None:
        """Declare what was dropped, then close the file. Does nothing the second time."""
        if self._fd < 0:
            return
        self.settle()
        os.close(self._fd)
        self._fd = -1
        self._ready = -1

    def settle(self) -> None:
        """Bring counts and file together, and declare what was dropped, so that a StreamClosed may follow."""
        if self._fd < 0:
            return
        self._recount()
        if self._undeclared.records:
            gap = self._gap_element()
            if (self._position + len(gap) <= self._segment_bytes and not self._rolling) or self._roll():
                self._write_gap(gap)

    def forget(self) -> None:
        """Close the file descriptor without a word: in a forked child the stream is the parent's."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1
        self._ready = -1

    def count_below(self, offset: int) -> Count:
        """Records and points before `offset`, which must be a record's edge.

        Where the segment is gone already (acknowledged, but `offset` lags behind), those before that segment.
        """
        if offset >= self.offset:
            return Count(self.records, self.points)
        start, base = max((edge for edge in self._edges if edge[0] <= offset), key=lambda edge: edge[0])
        if start == offset:
            return base
        try:
            with (self.folder / segment_name(start)).open("rb") as file:
                found = count(file.read(offset - start))
        except FileNotFoundError:
            return base
        return Count(base.records + found.records, base.points + found.points)

    def _append_slowly(self, element: bytes, key_set: KeySetUse | None, points: int, worth: Worth) -> bool:
        size = len(element)
        if self._fd < 0:
            return self._drop(points, size, "the stream is closed")
        if not self._has_room(size, worth):
            return self._drop(points, size, "the spool's disk budget is spent")
        gap = self._gap_element() if self._gap_is_due(worth) else b""
        names = key_set.element if key_set else b""
        full = self._position and self._position + len(gap) + len(names) + size > self._segment_bytes
        if (full or self._rolling) and not self._roll():
            return self._drop(points, size, self.error)
        if gap and not self._write_gap(gap):
            return self._drop(points, size, self.error)
        if key_set is None or key_set.segment == self.segment:
            written = self._write(element, 1, points)
        elif written := self._write(names + element, 2, points):
            key_set.segment = self.segment
        self._set_ready()
        return written

    def _write(self, data: bytes, records: int, points: int) -> bool:
        try:
            written = os.write(self._fd, data)
        except OSError as error:
            return self._failed(0, error.strerror or "write failed", points, len(data))
        if written != len(data):
            return self._failed(written, "disk full", points, len(data))
        self._position += written
        self.records += records
        self.points += points
        return True

    def _failed(self, written: int, reason: str, points: int, size: int) -> bool:
        """Cut a short write back: half a record must never be followed by another one."""
        if written:
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
        return self._drop(points, size, reason)

    def _drop(self, points: int, size: int, reason: str) -> bool:
        self.error = reason
        self.dropped_records += 1
        self.dropped_points += points
        self.dropped_bytes += size
        self._undeclared = Count(self._undeclared.records + 1, self._undeclared.points + points)
        self._ready = -1
        if self.dropped_records == 1 and self.on_first_drop is not None:
            self.on_first_drop(reason)
        return False

    def _has_room(self, size: int, worth: Worth) -> bool:
        end = self.offset + size
        if end - self._acknowledged <= self._room[worth]:
            return True
        now = self._clock()
        if now < self._read_again_at:
            return False
        self._read_again_at = now + REREAD_SECONDS
        self._acknowledged = Position.read(self.folder).acknowledged
        return end - self._acknowledged <= self._room[worth]

    def _gap_is_due(self, worth: Worth) -> bool:
        return self._undeclared.records > 0 and (worth is Worth.LAST or self._clock() >= self._gap_at)

    def _gap_element(self) -> bytes:
        records, points = self._undeclared
        time_us = time.time_ns() // 1000
        gap = Gap(time_us=time_us, reason="spool_full", records=records, points=points, detail=self.error)
        return encode(Record(gap=gap))

    def _write_gap(self, gap: bytes) -> bool:
        """Write a Gap record. Not through `_write`: a gap that finds no room is not itself a loss to declare."""
        try:
            written = os.write(self._fd, gap)
        except OSError as error:
            self.error = error.strerror or "write failed"
            return False
        if written != len(gap):
            os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            return False
        self._position += written
        self.records += 1
        self._undeclared = Count(0, 0)
        self._gap_at = self._clock() + GAP_SECONDS
        return True

    def _set_ready(self) -> None:
        """Until which position of the segment append() may write without looking at anything else."""
        limit = self._acknowledged + self._room[Worth.LINE] - self.segment
        self._ready = -1 if self._undeclared.records else min(self._segment_bytes, limit)

    def _roll(self) -> bool:
        """Go on in a new segment. Once begun nothing more goes into the old one, even if an exception out of a signal
        handler comes in between: the new file is there then, and bears the old one's end as its name."""
        self._rolling = True
        self._ready = -1
        self._recount()
        start, base = self.offset, Count(self.records, self.points)
        try:
            fd = self._open(start)
        except OSError as error:
            self.error = error.strerror or "no new segment"
            return False
        old = self._fd
        self._fd, self.segment, self._position, self._base, self._rolling = fd, start, 0, base, False
        self._edges.append((start, base))
        os.close(old)
        self._set_ready()
        return True

    def _open(self, offset: int) -> int:
        flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        return os.open(self.folder / segment_name(offset), flags, 0o600)

    def _recount(self) -> None:
        """Trust the file where an exception out of a signal handler came between a write and its bookkeeping."""
        size = os.fstat(self._fd).st_size
        if size == self._position:
            return
        found = count((self.folder / segment_name(self.segment)).read_bytes())
        self._position = size
        self.records, self.points = self._base.records + found.records, self._base.points + found.points
