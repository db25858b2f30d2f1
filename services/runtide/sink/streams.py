"""What is stored of a stream, as interval arithmetic. Pure.

Everything below the mark is stored but for the holes; a record is new if it begins in a hole or at or past the mark.
A state is only ever as true as what it was read from: the sink forgets it whenever an insert's result is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

Interval = tuple[int, int]
"""Bytes [from, to) of a stream."""
StreamKey = tuple[str, str, str]
"""Project, run id and stream id."""


@dataclass(slots=True)
class Extent:
    """Which bytes of a stream are stored."""

    mark: int = 0
    holes: list[Interval] = field(default_factory=list)
    """Below the mark, in order, apart from each other."""

    def missing(self, start: int, end: int) -> list[Interval]:
        """The parts of [start, end) that are not stored, in order."""
        if start >= end:
            return []
        if start >= self.mark:
            return [(start, end)]
        parts = [(max(start, low), min(end, high)) for low, high in self.holes if low < end and start < high]
        if end > self.mark:
            parts.append((self.mark, end))
        return parts

    def add(self, start: int, end: int) -> None:
        """Count [start, end) as stored. What lies between the mark and a later start becomes a hole."""
        if start >= end:
            return
        if self.holes and start < self.mark:
            self.holes = [rest for hole in self.holes for rest in _without(hole, start, end)]
        if start > self.mark:
            self.holes.append((self.mark, start))
        self.mark = max(self.mark, end)

    def reopen(self, start: int, end: int) -> None:
        """Count [start, end), which is stored, as a hole again."""
        self.holes = sorted([*self.holes, (start, end)])

    def copy(self) -> Extent:
        """An independent copy."""
        return Extent(self.mark, list(self.holes))

    @property
    def hole_bytes(self) -> int:
        """Bytes below the mark that are not stored."""
        return sum(end - start for start, end in self.holes)


@dataclass(slots=True)
class StreamState:
    """A row of the ledger. Times are microseconds since the epoch."""

    project: str
    run_id: str
    stream: str
    role: int = 0
    rank: int = 0
    host: str = ""
    attempt: int = 0
    extent: Extent = field(default_factory=Extent)
    records: int = 0
    points: int = 0
    gaps: int = 0
    dead: int = 0
    opened_at: int | None = None
    closed_at: int | None = None
    last_step: int | None = None
    last_step_at: int | None = None
    received_us: int = 0
    stepped_us: int | None = None
    """When the last Step came, by the gateway's clock."""
    clock_us: int | None = None
    """By how much the host's clock was ahead of the gateway's, at the last range that said so."""
    clock_least_us: int | None = None
    clock_most_us: int | None = None
    days: int = 0
    """The shortest retention that its rows were ever written with; 0 for none."""
    revision: int = 0
    """Of the ledger's row: grows by one with each, and begins at the milliseconds of the clock whenever a sink reads
    it; so what a sink writes that was frozen since it read is older than what another one has written meanwhile."""
    ahead: bool = False
    """The tables hold more than the ledger's row says: it has to be written again."""

    @property
    def key(self) -> StreamKey:
        """What the ledger knows it by."""
        return self.project, self.run_id, self.stream

    def copy(self) -> StreamState:
        """An independent copy, to be changed while it is not known yet whether the change will hold."""
        return replace(self, extent=self.extent.copy())

    def is_doubtful(self, start: int, end: int) -> bool:
        """Whether [start, end) does not simply go on at the mark: then the state is read anew before it is trusted.

        Nothing missing is not doubtful: what was once stored stays stored.
        """
        return start != self.extent.mark and bool(self.extent.missing(start, end))

    def note_step(self, step: int, time_us: int, offset: int, received_us: int) -> None:
        """Remember the last Step, unless it only fills a hole."""
        if offset >= self.extent.mark or self.last_step is None:
            self.last_step, self.last_step_at, self.stepped_us = step, time_us, received_us

    def note_clock(self, ahead_us: int | None) -> None:
        """Remember what the host's clock was ahead, where that was said."""
        if ahead_us is not None:
            least, most = self.clock_least_us, self.clock_most_us
            self.clock_us = ahead_us
            self.clock_least_us = ahead_us if least is None else min(least, ahead_us)
            self.clock_most_us = ahead_us if most is None else max(most, ahead_us)

    def note_event(self, kind: str, time_us: int) -> None:
        """Remember the first and the last word."""
        if kind == "stream_opened" and self.opened_at is None:
            self.opened_at = time_us
        elif kind == "stream_closed":
            self.closed_at = time_us


def laid_out(stored: Iterable[Interval]) -> Extent:
    """The extent that the given intervals make, in whatever order."""
    extent = Extent()
    for start, end in sorted(stored):
        extent.add(start, end)
    return extent


def _without(hole: Interval, start: int, end: int) -> list[Interval]:
    low, high = hole
    if end <= low or high <= start:
        return [hole]
    return [part for part in ((low, start), (end, high)) if part[0] < part[1]]
