"""What the sink tells the processor after each flush: which derived rows may now be out of date. Pure data."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Hint:
    """New rows of one stream are stored. A hint may be lost: the processor's sweep finds the same from the ledger."""

    project: str
    run_id: str
    stream: str
    role: int
    """A value of `runtide.v1.Role`."""
    rank: int
    attempt: int
    start: int
    """Least offset of the new records."""
    end: int
    """First byte after the last of them."""
    metrics: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Metric to the least and greatest step that came."""
    kinds: frozenset[str] = frozenset()
    """Kinds of the records other than steps, samples and log lines, by their field in `Record.said`."""
    sampled: tuple[int, int] | None = None
    """Least and greatest time of the samples, microseconds since the epoch."""
