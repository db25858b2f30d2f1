"""Which points of earlier attempts are hidden, and which steps become out of date when that changes.

An attempt that resumes from step T hides, in all metrics, what earlier attempts logged after T; one without a T hides
per metric what they logged from its own first step on. The table keeps the least bound, so that order does not matter
and knowledge that is repeated changes nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from runtide.processor import sql
from runtide.processor.dirty import LAST_STEP, Run, Span
from runtide.processor.facts import Attempt
from runtide.processor.store import Store

_SCHEMA = pa.schema(
    [
        ("project", pa.string()),
        ("run_id", pa.string()),
        ("metric", pa.string()),
        ("attempt", pa.uint16()),
        ("hidden_from", pa.int64()),
    ]
)

KEPT = 4096
"""Runs whose bounds are in memory; those of one that was forgotten are read again when it speaks."""

Bound = tuple[str, int]
"""Metric and attempt."""


@dataclass(frozen=True, slots=True)
class Logged:
    """An attempt logged a metric, `step` the least of its steps. `again`: it may have been processed in part before."""

    attempt: int
    metric: str
    step: int
    again: bool = False


@dataclass(slots=True)
class _Known:
    bounds: dict[Bound, int]
    resumed: dict[int, int] = field(default_factory=dict)
    """Attempt to the first step that it hides in all metrics."""


class Bounds:
    """The bounds of the runs that have more than one attempt."""

    def __init__(self, store: Store, most: int = KEPT) -> None:
        self._store, self._most = store, most
        self._known: OrderedDict[Run, _Known] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def update(self, run: Run, attempts: Sequence[Attempt], logged: Sequence[Logged]) -> dict[str, list[Span]]:
        """Learn what attempts logged; returns the steps of each metric that must be derived anew."""
        known = self._known.get(run)
        if known is None:
            known = self._remember(run, _Known(self._read(run)))
        self._known.move_to_end(run)
        resumed = _resumed(attempts)
        metrics = {entry.metric for entry in logged}
        again = any(entry.again for entry in logged)
        if resumed and (again or resumed != known.resumed):
            metrics.update(metric for (metric,) in self._store.rows(sql.metrics_of(run)))
        hides = _hides(resumed, metrics, logged)
        lower, tails = _lowered(known.bounds, hides)
        self._write(run, lower)
        known.bounds.update(lower)
        known.resumed = resumed
        if again:
            for metric, _, step in hides:
                tails.setdefault(metric, []).append((step, LAST_STEP))
        return tails

    def remake(self, run: Run, attempts: Sequence[Attempt]) -> None:
        """Make the bounds of a run anew from all its points."""
        resumed = _resumed(attempts)
        logged = [Logged(attempt, metric, step) for metric, attempt, step in self._store.rows(sql.first_steps(run))]
        wanted, _ = _lowered({}, _hides(resumed, {entry.metric for entry in logged}, logged))
        before = self._read(run)
        if any(bound < wanted.get(key, LAST_STEP) for key, bound in before.items()):
            self._store.run(sql.without_bounds(run))
            before = {}
        self._write(run, {key: bound for key, bound in wanted.items() if before.get(key) != bound})
        self._remember(run, _Known(wanted, resumed))

    def new_resume(self, run: Run, attempts: Sequence[Attempt]) -> bool:
        """Say whether an attempt turns out to resume from a step, after points of it were taken to tell that."""
        known = self._known.get(run)
        if known is None:
            return False
        told = {key: step for key, step in _resumed(attempts).items() if key not in known.resumed}
        return any(
            attempt < key and bound < step for key, step in told.items() for (_, attempt), bound in known.bounds.items()
        )

    def _remember(self, run: Run, known: _Known) -> _Known:
        """Keep it in memory, in the place of the run that was not asked about for longest."""
        self._known[run] = known
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return known

    def _read(self, run: Run) -> dict[Bound, int]:
        return {(metric, attempt): step for metric, attempt, step in self._store.rows(sql.bounds(run))}

    def _write(self, run: Run, bounds: Mapping[Bound, int]) -> None:
        if not bounds:
            return
        rows = [
            {"project": run.project, "run_id": run.run_id, "metric": metric, "attempt": attempt, "hidden_from": step}
            for (metric, attempt), step in bounds.items()
        ]
        self._store.insert("attempt_bounds", pa.Table.from_pylist(rows, schema=_SCHEMA))


def _resumed(attempts: Sequence[Attempt]) -> dict[int, int]:
    return {
        attempt.attempt: attempt.resume_step + 1
        for attempt in attempts
        if attempt.attempt > 1 and attempt.resume_step is not None and attempt.resume_step < LAST_STEP
    }


def _hides(resumed: Mapping[int, int], metrics: Iterable[str], logged: Sequence[Logged]) -> list[tuple[str, int, int]]:
    """Metric, attempt and the first step from which that attempt hides all earlier ones."""
    out = [(metric, attempt, step) for attempt, step in resumed.items() for metric in metrics]
    firsts: dict[tuple[str, int], int] = {}
    for entry in logged:
        if entry.attempt > 1 and entry.attempt not in resumed:
            key = entry.metric, entry.attempt
            firsts[key] = min(entry.step, firsts.get(key, entry.step))
    out.extend((metric, attempt, step) for (metric, attempt), step in firsts.items())
    return out


def _lowered(
    bounds: Mapping[Bound, int], hides: Iterable[tuple[str, int, int]]
) -> tuple[dict[Bound, int], dict[str, list[Span]]]:
    """The bounds that become lower, and the steps of each metric that they hide in addition."""
    lower: dict[Bound, int] = {}
    tails: dict[str, list[Span]] = {}
    for metric, later, step in hides:
        for attempt in range(1, later):
            now = lower.get((metric, attempt), bounds.get((metric, attempt)))
            if now is None or step < now:
                lower[metric, attempt] = step
                tails.setdefault(metric, []).append((step, LAST_STEP if now is None else now - 1))
    return lower, tails
