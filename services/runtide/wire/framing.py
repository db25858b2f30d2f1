"""Record framing: how one record becomes bytes of a stream, and how its edges are found again.

An element is what protobuf writes for one entry of `Batch.records`: tag 0x0a, the length as a varint, the record. A
record ends with its CRC-32, so that damage is found before bytes are decoded into wrong values. Positions are relative
to the buffer that is given; callers add the offset of its first byte.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

ELEMENT_TAG = 0x0A
CRC_TAG = 0x7D
CRC_BYTES = 5
"""Length of the crc field that closes every record: one tag byte and four bytes."""

_CRC = struct.Struct("<BI")
_MAX_VARINT_BYTES = 5


class FramingError(ValueError):
    """The bytes at `position` are not a whole, undamaged element; `reason` says why."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"{reason} at byte {position}")
        self.position = position
        self.reason = reason


class Element(NamedTuple):
    """Where one element lies in a buffer: [start, end), its record without the crc is [record, end - CRC_BYTES)."""

    start: int
    record: int
    end: int


def varint(value: int) -> bytes:
    """Encode an unsigned varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def seal(record: bytes) -> bytes:
    """Make an element of a serialized Record that has no crc yet."""
    return b"".join((b"\x0a", varint(len(record) + CRC_BYTES), record, _CRC.pack(CRC_TAG, crc32(record))))


def elements(body: bytes | memoryview, start: int = 0) -> Iterator[Element]:
    """Walk the elements of `body` from `start`, without looking at the crc.

    Raises FramingError at the first byte that does not begin a whole element; what was yielded before it is sound in
    its framing. A torn tail shows as reason "truncated".
    """
    position, size = start, len(body)
    while position < size:
        if body[position] != ELEMENT_TAG:
            raise FramingError(position, "not a record")
        at, length, shift = position + 1, 0, 0
        while True:
            if at >= size:
                raise FramingError(position, "truncated")
            byte = body[at]
            at += 1
            length |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift >= 7 * _MAX_VARINT_BYTES:
                raise FramingError(position, "length is not a varint")
        if length < CRC_BYTES:
            raise FramingError(position, "record without crc")
        if at + length > size:
            raise FramingError(position, "truncated")
        yield Element(position, at, at + length)
        position = at + length


def sound(body: bytes | memoryview, element: Element) -> bool:
    """Say whether an element's crc fits its bytes."""
    cut = element.end - CRC_BYTES
    tag, crc = _CRC.unpack_from(body, cut)
    return bool(tag == CRC_TAG and crc == crc32(body[element.record : cut]))


class Checked(NamedTuple):
    """What a sound body holds, as far as its frames say."""

    records: int = 0
    points: int = 0
    """Values of Steps, as `StepEncoder` lays them out."""
    key_sets: tuple[Element, ...] = ()
    """Where metric names are said."""


def check(body: bytes | memoryview, max_record: int | None = None) -> Checked:
    """Check framing and crc of a whole body, and the size of each record if told; say what it holds.

    Raises FramingError at the first element that is damaged or too large. This runs over every byte that a gateway
    takes in, so elements with a length of one or two bytes (nearly all) are walked here, whole runs of one kind and
    length by `_check_run`, and the others by `elements`.
    """
    data = bytes(body)
    count = points = position = 0
    key_sets: list[Element] = []
    size = len(data)
    while position < size:
        start, at, more = position, position + 3, 0
        end = size + 1
        if at < size and data[position] == ELEMENT_TAG:
            low = data[position + 1]
            if low < 0x80:
                at -= 1
                end = at + low
            elif (high := data[position + 2]) < 0x80:
                end = at + (low & 0x7F | high << 7)
        cut = end - CRC_BYTES
        small = max_record is None or cut - at <= max_record
        whole = at <= cut and end <= size and data[cut] == CRC_TAG
        if whole and small and int.from_bytes(data[cut + 1 : end], "little") == crc32(data[at:cut]):
            kind = data[at]
            if kind != _KEY_SET_TAG:
                more = _check_run(data, end, data[position:at], kind, end - position)
            position = end + more * (end - position)
        else:
            _, at, end = _check_one(data, position, max_record)
            kind, position = data[at], end
        count += 1 + more
        if kind == _STEP_TAG:
            points += (1 + more) * values_of(end - CRC_BYTES - at)
        elif kind == _KEY_SET_TAG:
            key_sets.append(Element(start, at, end))
    return Checked(count, points, tuple(key_sets))


def _check_run(data: bytes, position: int, head: bytes, kind: int, stride: int) -> int:
    """Return how many sound elements of one length and kind follow from `position`, as Steps of one key set do.

    It stops without a word at the first element that is different or damaged; the caller looks at that one.
    """
    if not data.startswith(head, position):
        return 0
    room = (len(data) - position) // stride
    layout = struct.Struct(f"<{len(head)}s{stride - len(head) - CRC_BYTES}sBI")
    count = 0
    for found, record, tag, crc in layout.iter_unpack(memoryview(data)[position : position + room * stride]):
        if crc != crc32(record) or found != head or tag != CRC_TAG or (record and record[0] != kind):
            break
        count += 1
    return count


def _check_one(data: bytes, position: int, max_record: int | None) -> Element:
    """Check the element at `position` in full and return it. Raises FramingError."""
    element = next(elements(data, position))
    if max_record is not None and element.end - CRC_BYTES - element.record > max_record:
        raise FramingError(position, "record too large")
    if not sound(data, element):
        raise FramingError(position, "crc does not fit")
    return element


def field_number(body: bytes | memoryview, element: Element) -> int:
    """The field number of the record's first field, which is its kind (see `Record.said`); 0 for an empty record."""
    at, number, shift = element.record, 0, 0
    while at < element.end - CRC_BYTES:
        byte = body[at]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number >> 3
        at, shift = at + 1, shift + 7
    return 0


STEP_FIELD = 3
KEY_SET_FIELD = 2
LOG_LINE_FIELD = 5
_STEP_TAG = STEP_FIELD << 3 | 2
_KEY_SET_TAG = KEY_SET_FIELD << 3 | 2


def values_of(length: int) -> int:
    """How many values a Step has whose record is so long, without its crc: `StepEncoder` always writes every field."""
    header = 2 if length <= 2 + 0x7F else 3 if length <= 3 + 0x3FFF else 4
    # 23 bytes of key set, step and time, then the tag of the values and the varint of their length
    return max(0, (length - header - 25) // 8)


def step_points(body: bytes | memoryview, element: Element) -> int:
    """Number of values of a Step as `StepEncoder` lays it out; 0 for any other record."""
    if field_number(body, element) != STEP_FIELD:
        return 0
    return values_of(element.end - CRC_BYTES - element.record)


def key_set_of(body: bytes | memoryview, element: Element) -> int:
    """The key set that a record says, or whose values it has, as our encoders lay it out; 0 for any other record."""
    cut, at = element.end - CRC_BYTES, element.record + 1
    kind = body[element.record]
    while at < cut and body[at] >= 0x80:
        at += 1
    if kind == _STEP_TAG and at + 6 <= cut and body[at + 1] == 0x0D:
        return int.from_bytes(body[at + 2 : at + 6], "little")
    if kind == _KEY_SET_TAG and at + 2 <= cut and body[at + 1] == 0x08:
        found = shift = 0
        for byte in body[at + 2 : min(at + 7, cut)]:
            found |= (byte & 0x7F) << shift
            if byte < 0x80:
                return found
            shift += 7
    return 0


class StepEncoder:
    """Encodes the Steps of one key set. All have the same layout, so one struct call writes everything but the crc."""

    def __init__(self, key_set: int, count: int) -> None:
        """`key_set` is the id that the stream gave to the names, `count` the number of values of every step."""
        packed = b"\x22" + varint(8 * count)
        step_length = 5 + 9 + 9 + len(packed) + 8 * count
        inner = b"\x1a" + varint(step_length)
        head = b"\x0a" + varint(len(inner) + step_length + CRC_BYTES)
        self._skip = len(head)
        start = head + inner + b"\x0d" + struct.pack("<I", key_set) + b"\x11"
        self._layout = struct.Struct(f"<{len(start)}sqBq{len(packed)}s{count}d")
        self._start, self._packed = start, packed

    def encode(self, step: int, time_us: int, values: list[float] | tuple[float, ...]) -> bytes:
        """Return the element of one Step. Raises struct.error where the step does not fit 64 bits."""
        said = self._layout.pack(self._start, step, 0x19, time_us, self._packed, *values)
        return said + _CRC.pack(CRC_TAG, crc32(said[self._skip :]))
