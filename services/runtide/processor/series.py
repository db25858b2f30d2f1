"""Derives the series of points anew where they are out of date, in statements of bounded size.

Promises: what fails or is not come to in time stays dirty. Blocks: it talks to the store.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from runtide.processor import sql
from runtide.processor.dirty import Dirty, Run, Work, halves, packed, shard_of
from runtide.processor.facts import LedgerRow
from runtide.processor.store import Store

PORTION_S = 1.0
"""How long series are derived before the rows of runs are looked after again."""
MOST_POINTS = 1_000_000
"""Points that one statement derives: well below a second, and below 100 MB in the engine."""

Ledger = Mapping[Run, Sequence[LedgerRow]]
"""What the ledger says of the streams of runs."""


class Series:
    """Makes what is dirty clean."""

    def __init__(self, store: Store, dirty: Dirty, most_points: int = MOST_POINTS) -> None:
        """A statement derives `most_points` or so."""
        self._store, self._dirty, self._most_points = store, dirty, most_points

    def derive(self, ledger: Ledger) -> None:
        """Derive for about PORTION_S. Raises StoreError, after which the work is dirty as before."""
        until = time.monotonic() + PORTION_S
        ranks = {run: _ranks_of_shards(streams) for run, streams in ledger.items()}

        def points(work: Work) -> int:
            return work.steps * len(work.metrics) * sum(ranks[work.run].get(shard, 1) for shard in work.shards)

        # Runs that became dirty after the ledger was read have no version yet; there are none in one thread.
        while self._dirty and time.monotonic() < until:
            works = self._dirty.take(points, self._most_points)
            try:
                left = self._derive_some(works, ledger, sum(map(points, works)), until)
            except BaseException:
                self._dirty.put_back(works)
                raise
            self._dirty.put_back(left)

    def _derive_some(self, works: Sequence[Work], ledger: Ledger, points: int, until: float) -> list[Work]:
        """Derive works, cut up where they are large; returns what was not come to in time."""
        if points <= self._most_points or len(works) > 1:
            self._replace(works, ledger)
            return []
        left = [(work, False) for work in works]
        while left and time.monotonic() < until:
            work, fits = left.pop()
            if fits:
                self._replace([work], ledger)
            else:
                left.extend(self._cut(work))
        return [work for work, _ in left]

    def _cut(self, work: Work) -> list[tuple[Work, bool]]:
        """The work in pieces, and of each whether it is known to be of a size that one statement should derive."""
        sizes = {metric: (count, middle) for metric, count, middle in self._store.rows(sql.sizes(work))}
        if len(work.metrics) > 1:
            counts = {metric: sizes[metric][0] if metric in sizes else 0 for metric in work.metrics}
            return [(replace(work, metrics=names), fits) for names, fits in packed(counts, self._most_points)]
        count, middle = sizes.get(work.metrics[0], (0, 0))
        pieces = (work,) if count <= self._most_points else halves(work, middle)
        return [(piece, len(pieces) == 1) for piece in pieces]

    def _replace(self, works: Sequence[Work], ledger: Ledger) -> None:
        """Derive works of runs with one attempt, and of those with several, whose points may be hidden."""
        versions = versions_of(ledger)
        for bounded in (False, True):
            some = [work for work in works if several_attempts(ledger[work.run]) == bounded]
            if not some:
                continue
            self._store.run(sql.base_tier(some, versions, bounded))
            if bounded:
                self._store.run(sql.vanished_base(some, versions))
            for width in sql.TIERS[1:]:
                self._store.run(sql.upper_tier(some, versions, width))
            self._store.run(sql.summaries(some, versions))
            self._store.run(sql.step_stats(some, versions, bounded))
            if bounded:
                self._store.run(sql.vanished_step_stats(some, versions))


def several_attempts(streams: Sequence[LedgerRow]) -> bool:
    """Whether a run has more than one attempt, so that points of an earlier one may be hidden."""
    return any(row.attempt > 1 for row in streams)


def versions_of(ledger: Ledger) -> dict[Run, int]:
    """Bytes stored of each run: grows with every record, late ones that fill a hole too."""
    return {run: sum(row.mark - row.stored.hole_bytes for row in streams) for run, streams in ledger.items()}


def _ranks_of_shards(streams: Sequence[LedgerRow]) -> dict[int, int]:
    ranks: dict[int, set[int]] = {}
    for row in streams:
        ranks.setdefault(shard_of(row.rank), set()).add(row.rank)
    return {shard: len(of) for shard, of in ranks.items()}
