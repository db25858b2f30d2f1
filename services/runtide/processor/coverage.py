"""Up to where derived rows cover each stream. Pure.

A cursor goes forward only over records that a hint has announced, so what a lost hint would have announced stays
uncovered and the sweep finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Hole = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Cursor:
    """`mark`: derived up to here; `hole_bytes`: bytes of holes below it that had not come."""

    mark: int = 0
    hole_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """What the ledger says of a stream."""

    mark: int
    holes: tuple[Hole, ...] = ()

    @property
    def hole_bytes(self) -> int:
        """Bytes below the mark that have not come."""
        return sum(end - start for start, end in self.holes)

    def has(self, start: int, end: int) -> bool:
        """Say whether [start, end) is stored."""
        return end <= self.mark and not any(low < end and start < high for low, high in self.holes)


def advanced(cursor: Cursor, stored: Stored, ranges: Sequence[tuple[int, int]]) -> Cursor:
    """The cursor after the records of `ranges`, all of them stored, were derived."""
    mark, hole_bytes = cursor.mark, cursor.hole_bytes
    for start, end in sorted(ranges):
        if start < mark:
            # Late data fell into a hole. A copy of known data would count too much, hence never below the ledger's.
            hole_bytes = max(hole_bytes - (min(end, mark) - start), min(hole_bytes, stored.hole_bytes))
        elif start > mark:
            open_bytes = sum(max(0, min(high, start) - max(low, mark)) for low, high in stored.holes)
            if open_bytes < start - mark:
                break  # something was stored in between that no hint announced
            hole_bytes += open_bytes
        mark = max(mark, end)
    return Cursor(mark, hole_bytes)


def behind(cursor: Cursor, stored: Stored) -> bool:
    """Say whether more is stored than is covered."""
    return stored.mark > cursor.mark or stored.hole_bytes < cursor.hole_bytes
