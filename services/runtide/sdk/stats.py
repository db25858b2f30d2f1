"""How far what a process said has come."""

from __future__ import annotations

from dataclasses import dataclass

from runtide.spool.layout import STREAM_FILE, Position
from runtide.spool.writer import SpoolWriter


@dataclass(frozen=True, slots=True)
class Amount:
    """So much of a stream."""

    records: int = 0
    points: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """How far a stream has come. Each stage counts what has reached it, so `written` is the largest."""

    written: Amount = Amount()
    """In the spool on the local disk: survives a kill of this process."""
    shipped: Amount = Amount()
    """Taken by a gateway. The agent notes it when the gateway has acknowledged, so the two are the same."""
    acknowledged: Amount = Amount()
    """Beyond any process death."""
    stored: Amount = Amount()
    """In ClickHouse. Known in full while wait_stored() asks for it; it may lag behind otherwise."""
    dropped: Amount = Amount()
    """Not kept, because the disk or its budget was full; declared as gaps."""
    refused: int = 0
    """Values and other things said that could not be taken; declared at the end as a gap."""
    error: str = ""
    """Why nothing moves now; empty when all is well."""


def stats(writer: SpoolWriter) -> Stats:
    """Measure a stream."""
    position = position_of(writer)
    acknowledged = _below(writer, position.acknowledged)
    return Stats(
        written=Amount(writer.records, writer.points, writer.offset),
        shipped=acknowledged,
        acknowledged=acknowledged,
        stored=acknowledged if position.stored == position.acknowledged else _below(writer, position.stored),
        dropped=Amount(writer.dropped_records, writer.dropped_points, writer.dropped_bytes),
        error=position.error or writer.error,
    )


def position_of(writer: SpoolWriter) -> Position:
    """Where the stream is. A closed stream whose folder is gone was shipped whole: only then is it removed."""
    if writer.closed and not (writer.folder / STREAM_FILE).exists():
        return Position(acknowledged=writer.offset, stored=writer.offset)
    return Position.read(writer.folder)


def _below(writer: SpoolWriter, offset: int) -> Amount:
    records, points = writer.count_below(offset)
    return Amount(records, points, min(offset, writer.offset))
