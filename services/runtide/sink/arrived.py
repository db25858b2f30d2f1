"""A message of the bus, read: whose range it is, what it says, and what of it is new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from zlib import crc32

from google.protobuf.message import DecodeError

from runtide.bus import SCHEMA, Message
from runtide.sink.streams import Interval, StreamKey
from runtide.v1.ingest_pb2 import Range, Ruling
from runtide.v1.records_pb2 import Gap
from runtide.wire.books import UNREADABLE
from runtide.wire.decode import ATTEMPTS, Dead, Decoded, Other, decode
from runtide.wire.limits import STREAM_BYTES

DAY_US = 86_400_000_000
_SCHEMA_BYTES = 32
"""Of the name of a schema, in a dead letter."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """One range, decoded."""

    project: str
    run_id: str
    stream: str
    role: int
    rank: int
    host: str
    attempt: int
    received_us: int
    start: int
    end: int
    said: Decoded
    body: bytes
    gap: Gap | None = None
    """The range will never come."""
    ruling: Ruling | None = None
    """It says nothing itself, but what is to become of dead letters."""
    partition: int = 0
    """Of the bus."""
    letter: bool = False
    """It is a dead letter that is judged again."""
    ahead_us: int | None = None
    """By how much the sender's clock was ahead of the gateway's."""
    late_days: int = 0
    """Days from its receipt until it is stored. What is kept for some days is kept from then on: a gateway whose clock
    stands in 1970 would have it deleted as soon as it is stored."""
    actor: str = ""
    """Who says what is in a book, by the gateway's word; empty of a dead letter that is judged again."""

    @property
    def key(self) -> StreamKey:
        """Of its stream."""
        return self.project, self.run_id, self.stream

    def only(self, intervals: Sequence[Interval]) -> Arrived:
        """The part that lies in the intervals."""
        if list(intervals) == [(self.start, self.end)]:
            return self
        if self.gap is not None:
            return replace(self, said=Decoded(others=[_gap_row(self.gap, *interval) for interval in intervals]))
        return replace(self, said=self.said.only(intervals))

    def bytes_of(self, offset: int, length: int) -> bytes:
        """The bytes of one of its records."""
        return self.body[offset - self.start : offset - self.start + length]


def late_days(received_us: int, now_us: int) -> int:
    """Whole days that something has waited."""
    return max(0, now_us // DAY_US - received_us // DAY_US)


def read(message: Message, now_us: int = 0) -> Arrived:
    """Read a message. One that is no Range, or names no stream or no place in it, becomes a dead letter of its own.

    A value of another schema is not looked at: it may parse as a Range and mean something else.
    """
    if message.schema != SCHEMA:
        kind = f"schema {message.schema}"[:_SCHEMA_BYTES]
        return _unreadable(message, f"{kind} of the message is not known to this release, which knows {SCHEMA}", kind)
    try:
        range_ = Range.FromString(message.value)
    except DecodeError as error:
        return _unreadable(message, f"not a range of this wire: {error}")
    if not range_.stream:
        return _unreadable(message, "the range names no stream")
    body = range_.body
    end = range_.offset + (range_.gap.length if range_.HasField("gap") else len(body))
    if end > STREAM_BYTES:
        return _unreadable(message, f"the range ends at {end}, and a stream at {STREAM_BYTES} at the latest")
    if range_.HasField("gap"):
        said = Decoded(others=[_gap_row(range_.gap, range_.offset, end)] if range_.gap.length else [])
    else:
        said = decode(range_, body)
    return Arrived(
        message.project,
        range_.run_id,
        range_.stream,
        range_.role,
        range_.rank,
        range_.host,
        min(range_.attempt, ATTEMPTS),
        message.received_us,
        range_.offset,
        end,
        said,
        body,
        range_.gap if range_.HasField("gap") else None,
        range_.ruling if range_.HasField("ruling") else None,
        message.partition,
        ahead_us=message.ahead_us,
        late_days=late_days(message.received_us, now_us),
        actor=range_.actor,
    )


def _gap_row(gap: Gap, start: int, end: int) -> Other:
    said = Gap()
    said.CopyFrom(gap)
    said.length = end - start
    return Other("gap", gap.time_us, start, end - start, said)


def _unreadable(message: Message, reason: str, kind: str = "") -> Arrived:
    """A stream of its own, with a name that is the same however often the bus hands the message out."""
    stream = f"{UNREADABLE}-{message.received_us:x}-{crc32(message.value):08x}"
    size = len(message.value)
    said = Decoded(dead=[Dead(0, size, message.value, kind, reason)])
    who = message.project, "", stream, 0, 0, "", 0, message.received_us
    return Arrived(*who, 0, size, said, message.value, partition=message.partition)
