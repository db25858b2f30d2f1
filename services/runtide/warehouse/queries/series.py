"""A metric over its steps in a bounded number of buckets that keep minimum and maximum, so no spike is ever lost.

Buckets are 2^k steps wide and lie at multiples of it, so a bucket that is past never changes at a refresh. Where a
series is long its buckets are put together from the derived tiers, and the points that came after those are read one by
one, so a chart is live though the derivation is behind. A late or repeated step below them shows when it is derived.
Hidden points of earlier attempts do not count, and of a repeated step the later value does.
"""

# ruff: noqa: S608 - values are bound parameters; only names and numbers of our own are put into the text

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from runtide.warehouse.queries.reading import rows

_TIERS = (64, 4096, 262144)

_EXACT_POINTS = 20_000
"""Up to so many points of a metric are read one by one, which is exact at once."""

_COARSEST = 50
"""Where the least tier would give fewer buckets than that, points are read however many ranks there are."""

_SKEW_STEPS = 256
"""So far apart the ranks of a job are taken to be, where points newer than the tiers are looked for."""


@dataclass(frozen=True)
class Extent:
    """What is derived of one metric: where it lies and how much it is."""

    metric: str
    first_step: int
    """At most 4095 lower than the first step."""
    last_step: int
    count: int
    ranks: int
    derived: bool = True
    """False where nothing is derived yet and the figures come from the points."""


@dataclass(frozen=True)
class Window:
    """Which part of the series, and how fine."""

    x_from: int | None = None
    x_to: int | None = None
    buckets: int = 800
    """At most so many for each series (a few more where the tiers are behind)."""


class Source(StrEnum):
    """Where the buckets of a series are put together from."""

    POINTS = "points"
    TIERS = "tiers"
    STEP_STATS = "step_stats"


@dataclass(frozen=True)
class Plan:
    """How one metric is read."""

    source: Source
    shift: int
    """Buckets are 2^shift steps wide."""
    width: int = 0
    """Of the tier."""


def extents(client: Any, project: str, run_id: str) -> list[Extent]:
    """The metrics of a run, by name."""
    parameters = {"project": project, "run": run_id}
    found = rows(
        client,
        "SELECT metric, min(t.bucket) * 4096 AS first_step, max(t.last_step) AS last_step,"
        " toUInt64(sum(t.count + t.non_finite)) AS count, toUInt32(uniqExact(t.rank)) AS ranks "
        "FROM runtide.series_tiers AS t FINAL WHERE project = {project:String} AND run_id = {run:String}"
        " AND width = 4096 AND t.count + t.non_finite > 0 GROUP BY metric ORDER BY metric",
        parameters,
    )
    if found:
        return [Extent(**row) for row in found]
    found = rows(
        client,
        "SELECT metric, min(step) AS first_step, max(step) AS last_step, count() AS count,"
        " toUInt32(uniqExact(rank)) AS ranks FROM runtide.points "
        "WHERE project = {project:String} AND run_id = {run:String} GROUP BY metric ORDER BY metric",
        parameters,
    )
    return [Extent(**row, derived=False) for row in found]


def plan(extent: Extent, window: Window, *, per_rank: bool, with_time: bool = True, ranks: int = 0) -> Plan:
    """The cheapest way that keeps the promise; `with_time`: the buckets need their time; `ranks`: of so many only."""
    first = extent.first_step if window.x_from is None else max(window.x_from, extent.first_step)
    last = extent.last_step if window.x_to is None else min(window.x_to, extent.last_step)
    span = max(last - first + 1, 1)
    shift = max((span - 1) // window.buckets, 0).bit_length()
    total = max(extent.last_step - extent.first_step + 1, 1)
    expected = extent.count * min(span / total, 1.0)
    if per_rank and ranks and extent.ranks > ranks:
        expected *= ranks / extent.ranks
    few = expected <= _EXACT_POINTS or span < _COARSEST * _TIERS[0]
    if extent.derived and shift < 6 and not few and extent.ranks > 1 and not (per_rank or with_time):
        return Plan(Source.STEP_STATS, shift)
    if not extent.derived or few:
        return Plan(Source.POINTS, shift)
    shift = max(shift, 6)
    return Plan(Source.TIERS, shift, max(width for width in _TIERS if width <= 1 << shift))


def series(
    client: Any,
    project: str,
    run_id: str,
    metrics: Sequence[Extent],
    window: Window | None = None,
    *,
    per_rank: bool = False,
    ranks: Sequence[int] = (),
    with_time: bool = True,
) -> Any:
    """An Arrow table of buckets: metric, rank, bucket, first_step, step, time, mean, min, max, last, count, non_finite.

    One series for each metric over all ranks (rank -1), or with `per_rank` one for each rank, of `ranks` where given.
    step and time are those of the bucket's last point, last is its value (the mean of the ranks that have that step).
    mean, min and max are of finite values, and NaN where a bucket has none.
    """
    import pyarrow as pa  # only here: the command line lists runs without it

    window = window or Window()
    groups: dict[Plan, list[Extent]] = {}
    for extent in metrics:
        groups.setdefault(plan(extent, window, per_rank=per_rank, with_time=with_time, ranks=len(ranks)), []).append(
            extent
        )
    tables = [
        _Question(project, run_id, how, tuple(group), window, per_rank, tuple(ranks)).ask(client)
        for how, group in groups.items()
    ]
    if not tables:
        return pa.table({})
    return pa.concat_tables(tables) if len(tables) > 1 else tables[0]


@dataclass(frozen=True)
class _Question:
    """One statement for the metrics that are read in one way."""

    project: str
    run_id: str
    plan: Plan
    metrics: tuple[Extent, ...]
    window: Window
    per_rank: bool
    ranks: tuple[int, ...]

    def ask(self, client: Any) -> Any:
        rank = "toInt32(rank)" if self.per_rank else "toInt32(-1)"
        sql = (
            f"SELECT metric, {rank} AS rank_, bitShiftRight(at, {self.plan.shift}) AS bucket,"
            f" bucket * {1 << self.plan.shift} AS first_step, max(ls) AS step, max(lt) AS time,"
            " if(sum(c) = 0, nan, sum(s) / sum(c)) AS mean,"
            " if(sum(c) = 0, nan, minIf(lo, c > 0)) AS min, if(sum(c) = 0, nan, maxIf(hi, c > 0)) AS max,"
            " avgArgMax(l, ls) AS last, toUInt64(sum(c)) AS count, toUInt64(sum(b)) AS non_finite "
            f"FROM ({self._partials()}) GROUP BY metric, rank_, bucket ORDER BY metric, rank_, bucket"
        )
        parameters: dict[str, Any] = {
            "project": self.project,
            "run": self.run_id,
            "metrics": [extent.metric for extent in self.metrics],
        }
        parameters |= {f"m{position}": extent.metric for position, extent in enumerate(self.metrics)}
        if self.ranks:
            parameters["ranks"] = list(self.ranks)
        return client.query_arrow(
            f"SELECT toString(metric) AS metric, rank_ AS rank, * EXCEPT (metric, rank_) FROM ({sql})",
            parameters=parameters,
            use_strings=True,
        )

    def _partials(self) -> str:
        if self.plan.source is Source.POINTS:
            return self._points(self._range("step"))
        if self.plan.source is Source.STEP_STATS:
            # Points of steps whose derivation is behind come from the points, as with the tiers.
            return f"{self._step_stats()} UNION ALL {self._points(self._newer(), after_stats=True)}"
        if not self._reaches_end():
            return self._tiers()
        return f"{self._tiers()} UNION ALL {self._points(self._newer(), after_tiers=True)}"

    def _range(self, step: str, width: int = 1) -> str:
        parts = []
        if self.window.x_from is not None:
            parts.append(f" AND {step} >= {int(self.window.x_from) // width}")
        if self.window.x_to is not None:
            parts.append(f" AND {step} <= {int(self.window.x_to) // width}")
        return "".join(parts)

    def _reaches_end(self) -> bool:
        newest = max(extent.last_step for extent in self.metrics)
        return self.window.x_to is None or self.window.x_to > newest - _SKEW_STEPS

    def _newer(self) -> str:
        """Per metric, for the primary key: a metric that ended early must not drag the others' points in."""
        either = " OR ".join(
            f"(metric = {{m{position}:String}} AND step > {extent.last_step - _SKEW_STEPS})"
            for position, extent in enumerate(self.metrics)
        )
        return f" AND ({either})" + self._range("step")

    def _of_run(self) -> str:
        return "project = {project:String} AND run_id = {run:String} AND metric IN {metrics:Array(String)}"

    def _of_ranks(self) -> str:
        return " AND rank IN {ranks:Array(Int32)}" if self.ranks else ""

    def _tiers(self) -> str:
        return (
            f"SELECT metric, rank, bucket * {self.plan.width} AS at, count AS c, non_finite AS b, sum AS s, min AS lo,"
            " max AS hi, last AS l, last_step AS ls, last_time AS lt FROM runtide.series_tiers FINAL "
            f"WHERE {self._of_run()} AND width = {self.plan.width} AND count + non_finite > 0"
            f"{self._of_ranks()}{self._range('bucket', self.plan.width)}"
        )

    def _step_stats(self) -> str:
        return (
            "SELECT metric, toInt32(-1) AS rank, step AS at, ranks AS c, s.non_finite AS b, mean * ranks AS s,"
            " min AS lo, max AS hi, if(ranks = 0, nan, mean) AS l, step AS ls, toDateTime64(0, 6, 'UTC') AS lt "
            f"FROM runtide.step_stats AS s WHERE {self._of_run()}{self._range('step')}"
        )

    def _points(self, more: str, *, after_tiers: bool = False, after_stats: bool = False) -> str:
        newer = join = ""
        if after_tiers:
            join, newer = self._tops_by_rank(), " AND (t.known = 0 OR p.step > t.top)"
        elif after_stats:
            join, newer = self._tops(), " AND (t.known = 0 OR p.step > t.top)"
        # The order is that of the key as far as it goes; LIMIT BY takes the later value of a repeated step.
        return (
            "SELECT p.metric AS metric, p.rank AS rank, p.step AS at, toUInt64(isFinite(p.value)) AS c,"
            " toUInt64(not isFinite(p.value)) AS b, if(isFinite(p.value), p.value, 0) AS s, p.value AS lo,"
            " p.value AS hi, p.value AS l, p.step AS ls, p.time AS lt FROM ("
            "SELECT q.metric AS metric, q.rank AS rank, q.step AS step, q.value AS value, q.time AS time FROM ("
            "SELECT metric, rank, step, value, time, attempt, stream, offset FROM runtide.points "
            f"WHERE {self._of_run()}{self._of_ranks()}{more}) AS q "
            "LEFT JOIN (SELECT toString(metric) AS metric, attempt, hidden_from, 1 AS bounded"
            f" FROM runtide.attempt_bounds FINAL WHERE {self._of_run()}) AS h"
            " ON h.metric = q.metric AND h.attempt = q.attempt "
            "WHERE h.bounded = 0 OR q.step < h.hidden_from "
            "ORDER BY q.metric, q.step, q.rank, q.attempt DESC, q.stream DESC, q.offset DESC "
            f"LIMIT 1 BY q.metric, q.step, q.rank) AS p {join}WHERE 1{newer}"
        )

    def _tops_by_rank(self) -> str:
        width = self.plan.width
        newest = " OR ".join(
            f"(metric = {{m{position}:String}} AND bucket >= {(extent.last_step - _SKEW_STEPS) // width})"
            for position, extent in enumerate(self.metrics)
        )
        return (
            "LEFT JOIN (SELECT toString(metric) AS metric, rank, max(last_step) AS top, 1 AS known"
            f" FROM runtide.series_tiers FINAL WHERE {self._of_run()} AND width = {width} AND ({newest})"
            " AND count + non_finite > 0 GROUP BY metric, rank) AS t ON t.metric = p.metric AND t.rank = p.rank "
        )

    def _tops(self) -> str:
        return (
            "LEFT JOIN (SELECT toString(metric) AS metric, max(step) AS top, 1 AS known"
            f" FROM runtide.step_stats_shards WHERE {self._of_run()}{self._newer()}"
            " GROUP BY metric) AS t ON t.metric = p.metric "
        )
