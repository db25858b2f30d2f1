"""Which derived rows are out of date: ranges of steps, gathered, widened to buckets and handed out in portions. Pure.

Promises that whatever was added is handed out, at least once, unless it was handed out and not put back; ranges may
grow on the way (neighbours are joined, and a series keeps few ranges), they never shrink.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

BASE = 64
"""Steps of a bucket of the lowest tier."""
SHARD_RANKS = 64
"""Ranks that are derived together."""
FIRST_STEP, LAST_STEP = -(2**63), 2**63 - 1
_MOST_RANGES = 8
"""Ranges that one series keeps apart; more are joined where the distance is least."""

Span = tuple[int, int]
"""Steps from the first to the second, both included."""


class Run(NamedTuple):
    """Identity of a run."""

    project: str
    run_id: str


@dataclass(frozen=True, slots=True)
class Work:
    """Steps to derive anew for some metrics of one run, in some shards of its ranks."""

    run: Run
    metrics: tuple[str, ...]
    shards: tuple[int, ...]
    span: Span

    @property
    def steps(self) -> int:
        """Steps that must be read, whole buckets."""
        low, high = widened(self.span)
        return high - low + 1


def shard_of(rank: int) -> int:
    """The shard that a rank belongs to."""
    return rank // SHARD_RANKS


def widened(span: Span, width: int = BASE) -> Span:
    """The least range of whole buckets that holds `span`. The 64-bit range is made of whole buckets: no overflow."""
    return span[0] // width * width, span[1] // width * width + width - 1


def joined(spans: Iterable[Span], most: int = _MOST_RANGES) -> list[Span]:
    """Sorted ranges without overlap, neighbours within a bucket joined, at most `most` of them."""
    out: list[Span] = []
    for low, high in sorted(spans):
        if out and low - out[-1][1] <= BASE:
            out[-1] = (out[-1][0], max(out[-1][1], high))
        else:
            out.append((low, high))
    while len(out) > most:
        at = min(range(1, len(out)), key=lambda place: out[place][0] - out[place - 1][1])
        out[at - 1 : at + 1] = [(out[at - 1][0], out[at][1])]
    return out


class Dirty:
    """The gathered ranges of all runs."""

    def __init__(self) -> None:
        self._runs: dict[Run, dict[tuple[int, str], list[Span]]] = {}

    def __bool__(self) -> bool:
        return bool(self._runs)

    def holds(self, run: Run) -> bool:
        """Say whether anything of a run is out of date."""
        return run in self._runs

    def runs(self) -> list[Run]:
        """Runs with something out of date."""
        return list(self._runs)

    def add(self, run: Run, shard: int, metric: str, span: Span) -> None:
        """Say that the steps of `span` are out of date. Shards below 0 (agents) have no series."""
        if shard < 0:
            return
        series = self._runs.setdefault(run, {})
        spans = series.get((shard, metric))
        if spans is None:
            series[shard, metric] = [span]
        elif spans[-1][0] <= span[0] <= spans[-1][1] + BASE:
            spans[-1] = (spans[-1][0], max(spans[-1][1], span[1]))
        else:
            series[shard, metric] = joined([*spans, span])

    def put_back(self, works: Iterable[Work]) -> None:
        """Take back what could not be done."""
        for work in works:
            for shard in work.shards:
                for metric in work.metrics:
                    self.add(work.run, shard, metric, work.span)

    def take(self, cells_of: Callable[[Work], int], most_cells: int, most_works: int = 32) -> list[Work]:
        """Hand out works of about `most_cells` together and at least one, if there is any.

        `cells_of` estimates the points of a work. A work that is larger alone is handed out alone.
        """
        chosen: list[Work] = []
        cells = 0
        for work in self._works():
            size = cells_of(work)
            if chosen and (cells + size > most_cells or len(chosen) >= most_works):
                break
            chosen.append(work)
            cells += size
        for work in chosen:
            self._remove(work)
        for run in dict.fromkeys(work.run for work in chosen):
            if run in self._runs:  # what is left of it waits behind the other runs
                self._runs[run] = self._runs.pop(run)
        return chosen

    def _works(self) -> Iterator[Work]:
        """Series of one run with the same buckets out of date, put together; the oldest run first."""
        for run, series in self._runs.items():
            same: dict[Span, list[tuple[int, str, Span]]] = {}
            for (shard, metric), spans in series.items():
                for span in spans:
                    same.setdefault(widened(span), []).append((shard, metric, span))
            by_shards: dict[tuple[Span, tuple[int, ...]], list[str]] = {}
            for found in same.values():
                hull = (min(span[0] for _, _, span in found), max(span[1] for _, _, span in found))
                shards: dict[str, list[int]] = {}
                for shard, metric, _ in found:
                    shards.setdefault(metric, []).append(shard)
                for metric, of in shards.items():
                    by_shards.setdefault((hull, tuple(sorted(of))), []).append(metric)
            for (hull, of_metrics), metrics in by_shards.items():
                yield from _in_pieces(Work(run, tuple(sorted(metrics)), of_metrics, hull))

    def _remove(self, work: Work) -> None:
        series = self._runs[work.run]
        low, high = work.span
        for shard in work.shards:
            for metric in work.metrics:
                left = [span for span in series[shard, metric] if span[0] < low or span[1] > high]
                if left:
                    series[shard, metric] = left
                else:
                    del series[shard, metric]
        if not series:
            del self._runs[work.run]


_PIECE = 512
"""Metrics of one work: statements stay well below the engine's limits."""


def _in_pieces(work: Work) -> Iterator[Work]:
    for at in range(0, len(work.metrics), _PIECE):
        yield Work(work.run, work.metrics[at : at + _PIECE], work.shards, work.span)


def halves(work: Work, at: int) -> Sequence[Work]:
    """Two works that meet at the bucket of step `at`; the work itself where that bucket is its first."""
    edge = widened((at, at))[0]
    low, high = work.span
    if not low < edge <= high:
        return (work,)
    return (
        Work(work.run, work.metrics, work.shards, (low, edge - 1)),
        Work(work.run, work.metrics, work.shards, (edge, high)),
    )


def packed(counts: Mapping[str, int], most: int) -> list[tuple[tuple[str, ...], bool]]:
    """Names in groups that count at most `most` together, and whether they do: one that counts more stands alone."""
    groups: list[tuple[list[str], bool]] = []
    total = 0
    for name, count in counts.items():
        if not groups or total + count > most:
            groups.append(([], count <= most))
            total = 0
        groups[-1][0].append(name)
        total += count
    return [(tuple(names), fits) for names, fits in groups]
