"""Reads one stream's segments: cuts ranges between record edges, and says what is damaged.

Promises: every whole record comes out once and in order, in ranges that end at record edges; bytes that are no record
are named as `Damage`, never skipped in silence; a tail that is not whole yet is left alone. Looks at edges, kinds and
key-set ids only: a record whose frame is right but whose crc is wrong passes, unless `verify` is set (the gateway finds
it, and then it is read again with `verify`). Keeps no file open. Not safe to use from two threads.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.message import DecodeError

from runtide.spool.layout import segment_name, segments
from runtide.v1.records_pb2 import KeySet, Record
from runtide.wire import framing
from runtide.wire.framing import FramingError
from runtide.wire.limits import BATCH_BYTES, RECORD_BYTES, SEGMENT_BYTES

STALE_TAIL_SECONDS = 1.0
"""A record that has been torn for this long is no write under way any more; it may hide sound ones."""

MISSING = "segment is missing"
"""Damage of which it may be that another reader has shipped it."""

_STEP_TAG = 0x1A
_KEY_SET_TAG = 0x12
_FIXED32_TAG = 0x0D
_CLOSED_TAG = b"\x8a\x01"
"""Field 17, StreamClosed: the only kind but Step and KeySet that matters here."""
_FRAME_BYTES = 16
"""More than tag and length of an element take."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A range of whole records: [offset, end)."""

    offset: int
    body: bytes
    records: int
    key_sets: tuple[KeySet, ...] = ()
    """Used in the body but defined before it."""
    closed: bool = False
    """The body ends with the stream's StreamClosed."""

    @property
    def end(self) -> int:
        """Offset of the first byte after the range."""
        return self.offset + len(self.body)


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no record and never will be: [offset, end)."""

    offset: int
    length: int
    detail: str

    @property
    def end(self) -> int:
        """Offset of the first byte after the damage."""
        return self.offset + self.length


@dataclass(slots=True)
class Scan:
    """What a walk over the elements of a buffer found before it stopped."""

    end: int = 0
    """Edge where the walk stopped."""
    records: int = 0
    used: set[int] = field(default_factory=set)
    """Key sets used before the buffer defined them."""
    defined: dict[int, KeySet] = field(default_factory=dict)
    closed: bool = False
    reason: str = ""
    """Why it stopped before the limit; "truncated" may mean that more bytes would help."""
    needs: int = 0
    """For "truncated": how long the buffer must be to hold the next element, where that is known."""


def scan(body: bytes, limit: int) -> Scan:
    """Walk whole elements of `body` that end at or before `limit`, learning which key sets are used and defined."""
    found, position, size = Scan(), 0, len(body)
    while position < size:
        try:
            record, end = _edges(body, position)
        except FramingError as error:
            found.reason = error.reason
            return found
        if end > size or end - position > RECORD_BYTES + _FRAME_BYTES:
            found.reason, found.needs = ("truncated" if end > size else "too long"), end
            return found
        if end > limit:
            return found
        tag = body[record]
        if tag == _STEP_TAG:
            position = _hop_steps(body, position, record, end, limit, found)
            continue
        if tag == _KEY_SET_TAG and not _learn(body, framing.Element(position, record, end), found):
            return found
        found.closed = body.startswith(_CLOSED_TAG, record)
        found.records += 1
        found.end = position = end
    return found


def _edges(body: bytes, position: int) -> tuple[int, int]:
    """Return where the record of the element at `position` begins and ends, which may be past the buffer's end."""
    if body[position] != framing.ELEMENT_TAG:
        raise FramingError(position, "not a record")
    at, length, shift = position + 1, 0, 0
    while at < len(body):
        byte = body[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            if length < framing.CRC_BYTES:
                raise FramingError(position, "record without crc")
            return at, at + length
        shift += 7
        if shift > 28:
            raise FramingError(position, "length is not a varint")
    raise FramingError(position, "truncated")


def _hop_steps(body: bytes, start: int, record: int, end: int, limit: int, found: Scan) -> int:
    """Pass a Step and all that follow with the same frame and key set: what a training loop writes, at 0.1 us each."""
    at = record + 1
    while at < end and body[at] >= 0x80:
        at += 1
    key_set_at = at + 2
    if key_set_at + 4 <= end and body[at + 1] == _FIXED32_TAG:
        key_set = int.from_bytes(body[key_set_at : key_set_at + 4], "little")
    else:  # written by something else than our encoder
        key_set = _step_key_set(body[record:end])
    if key_set not in found.defined:
        found.used.add(key_set)
    stride, frame = end - start, body[start : min(key_set_at + 4, end)]
    position, last, count = end, min(limit, len(body)) - stride, 1
    same = body.startswith
    while position <= last and same(frame, position):
        position += stride
        count += 1
    found.records += count
    found.end, found.closed = position, False
    return position


def _step_key_set(record: bytes) -> int:
    try:
        return Record.FromString(record).step.key_set
    except DecodeError:
        return 0  # the sink judges records; 0 is no key set


def _learn(body: bytes, element: framing.Element, found: Scan) -> bool:
    """Learn a key set, unless it is damaged: the gateway finds that, but by then other ranges may carry its names."""
    if not framing.sound(body, element):
        return True
    try:
        key_set = Record.FromString(body[element.record : element.end]).key_set
    except DecodeError:
        found.reason = "not a record"
        return False
    found.defined[key_set.id] = key_set
    return True


def next_sound(body: bytes, start: int) -> int | None:
    """Position of the first element at or after `start` whose crc fits; None where there is none."""
    position = body.find(framing.ELEMENT_TAG, start)
    while position >= 0:
        if _sound_end(body, position) is not None:
            return position
        position = body.find(framing.ELEMENT_TAG, position + 1)
    return None


def damaged_spans(body: bytes) -> list[tuple[int, int]]:
    """Say which parts of `body` are not sound elements, as [start, end), by checking every crc."""
    spans: list[tuple[int, int]] = []
    position = 0
    while position < len(body):
        if (end := _sound_end(body, position)) is not None:
            position = end
            continue
        found = next_sound(body, position + 1)
        spans.append((position, len(body) if found is None else found))
        position = spans[-1][1]
    return spans


def _sound_end(body: bytes, position: int) -> int | None:
    """Return the end of the element at `position` if it is whole and its crc fits."""
    try:
        record, end = _edges(body, position)
    except FramingError:
        return None
    if end > len(body) or not framing.sound(body, framing.Element(position, record, end)):
        return None
    return end


class SegmentReader:
    """Walks one stream's segments from `position` on."""

    def __init__(self, folder: Path, position: int = 0, *, verify: bool = False) -> None:
        """With `verify` every crc is checked here, at about 0.4 us a record."""
        self.folder = folder
        self.position = position
        self.key_sets: dict[int, KeySet] = {}
        self.verify = verify
        self._segment: tuple[int, str] | None = None
        self._following_path = (-1, "")
        """Name of the segment that would begin at an offset: asked for at every look, so it is made once."""
        self._learned_to = -1
        self._stuck: tuple[int, float] = (-1, 0.0)
        """A torn record's offset and when it was first seen."""

    def rewind(self, offset: int) -> None:
        """Go back to an earlier edge: what was cut from there on comes again."""
        self.position = offset
        self._segment = None

    def unread(self) -> int:
        """How many bytes wait in the current segment, which is the next one where the last is read to its end."""
        segment = self._current()
        if segment is None:
            return 0
        waiting = _size(segment[1]) - (self.position - segment[0])
        if waiting <= 0 and self._next():
            waiting = _size(self._following_path[1])
        return max(0, waiting)

    def cut(self, limit: int = BATCH_BYTES, *, stop: int | None = None, dead: bool = False) -> Cut | Damage | None:
        """Take the next range of at most `limit` bytes, not past `stop`; None where no whole record waits.

        `dead` says that nobody writes any more, so that a torn record is known to stay one. A record that is longer
        than the wire allows comes alone, in a Cut larger than RECORD_BYTES. Raises OSError.
        """
        segment = self._current()
        if segment is None:
            return self._missing()
        first, path = segment
        try:
            body = _read(path, self.position - first, limit + _FRAME_BYTES)
        except FileNotFoundError:  # all of it was acknowledged, and it is deleted: by this agent, or by another
            self._segment = None
            return self._missing() if self._current() is None else self.cut(limit, stop=stop, dead=dead)
        if not body:
            return self._advance(dead)
        room = min(limit, len(body)) if stop is None else min(limit, len(body), stop - self.position)
        found = scan(body, room)
        if self.verify and found.end and (spans := damaged_spans(body[: found.end])):
            found = scan(body[: spans[0][0]], spans[0][0]) if spans[0][0] else Scan(reason="crc does not fit")
        if found.end:
            return self._take(body, found)
        return self._blocked(first, path, found, dead)

    def _take(self, body: bytes, found: Scan) -> Cut:
        key_sets = tuple(self.key_sets[used] for used in sorted(found.used) if used in self.key_sets)
        self.key_sets.update(found.defined)
        cut = Cut(self.position, body[: found.end], found.records, key_sets, found.closed)
        self.position = cut.end
        self._learned_to = max(self._learned_to, cut.end)
        return cut

    def _damage(self, length: int, detail: str) -> Damage:
        damage = Damage(self.position, length, detail)
        self.position = damage.end
        self._learned_to = max(self._learned_to, damage.end)
        return damage

    def _blocked(self, first: int, path: str, found: Scan, dead: bool) -> Cut | Damage | None:
        """No whole record of acceptable length begins at the position: decide between waiting, damage and oversize."""
        rest = _read(path, self.position - first, SEGMENT_BYTES * 2)
        following = self._following(first)
        if following is not None:
            rest = rest[: max(0, following - self.position)]  # beyond lies a write that was cut back too late
            if not rest:
                return self._advance(dead)
        if (end := _sound_end(rest, 0)) is not None:
            return self._take(rest, _single(rest, end))
        if found.reason == "truncated" and not dead and following is None and not self._stale():
            return None
        sound = next_sound(rest, 1)
        if sound is not None:
            return self._damage(sound, found.reason)
        if following is not None:
            return self._damage(following - self.position, found.reason)
        if found.reason != "truncated" and (dead or self._stale()):
            return self._damage(len(rest), found.reason)
        return None  # a torn tail: log() has not returned for it

    def _stale(self) -> bool:
        if self._stuck[0] != self.position:
            self._stuck = (self.position, time.monotonic())
        return time.monotonic() - self._stuck[1] > STALE_TAIL_SECONDS

    def _advance(self, dead: bool) -> Cut | Damage | None:
        """Go on in the segment that begins at the position, if there is one."""
        if self._next():
            return self.cut(dead=dead)
        if not dead:
            return None
        following = min((first for first, _ in segments(self.folder) if first > self.position), default=None)
        return None if following is None else self._damage(following - self.position, "segment is missing or short")

    def _next(self) -> bool:
        """Move to the segment that begins at the position, if it exists and is not the current one."""
        if self._segment is not None and self._segment[0] == self.position:
            return False
        if self._following_path[0] != self.position:
            self._following_path = (self.position, str(self.folder / segment_name(self.position)))
        if not os.path.exists(self._following_path[1]):  # noqa: PTH110  pathlib takes four times as long
            return False
        self._segment = self._following_path
        return True

    def _missing(self) -> Damage | None:
        """No segment holds the position: the first that follows it, if any, ends the loss."""
        following = min((first for first, _ in segments(self.folder) if first > self.position), default=None)
        return None if following is None else self._damage(following - self.position, MISSING)

    def _following(self, first: int) -> int | None:
        return min((other for other, _ in segments(self.folder) if other > first), default=None)

    def _current(self) -> tuple[int, str] | None:
        """Return the segment that holds the position, and learn the key sets that it defines before the position."""
        if self._segment is None or not self._segment[0] <= self.position:
            held = [segment for segment in segments(self.folder) if segment[0] <= self.position]
            self._segment = (held[-1][0], str(held[-1][1])) if held else None
        if self._segment and self._learned_to < self.position:
            self._learn_before(*self._segment)
        return self._segment

    def _learn_before(self, first: int, path: str) -> None:
        self._learned_to = self.position
        if first == self.position:
            return
        body, at = _read(path, 0, self.position - first), 0
        while at < len(body):
            found = scan(body[at:], len(body) - at)
            self.key_sets.update(found.defined)
            sound = next_sound(body, at + found.end + 1)
            at = len(body) if not found.reason or sound is None else sound


def _single(body: bytes, end: int) -> Scan:
    """Scan of the one record at the start of `body`, however long it is."""
    found = Scan(end=end, records=1)
    record, _ = _edges(body, 0)
    if body[record] == _STEP_TAG:
        found.used.add(_step_key_set(body[record:end]))
    elif body[record] == _KEY_SET_TAG:
        _learn(body, framing.Element(0, record, end), found)
    found.closed = body.startswith(_CLOSED_TAG, record)
    return found


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116  as above
    except FileNotFoundError:
        return 0


def _read(path: str, at: int, length: int) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(file, length, at)
    finally:
        os.close(file)
