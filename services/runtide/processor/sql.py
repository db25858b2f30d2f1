"""The statements that derive rows from raw rows. Text only: nothing here talks to a store.

Each replaces rows whole: it reads the raw rows (or a lower tier) of whole buckets and inserts what they say now, under
a version that grows with what is stored.
"""

# Values are written into the text, quoted by `text`, because one statement serves many runs.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from runtide.processor.dirty import BASE, SHARD_RANKS, Run, Span, Work, widened
from runtide.wire.books import MARK
from runtide.wire.limits import LATEST_US

Versions = Mapping[Run, int]

TIERS = (BASE, 4096, 262_144)
"""Widths of the tiers, each 64 times the one below."""
_SHIFT = {BASE: 6, 4096: 12, 262_144: 18}

_TIER_COLUMNS = """(project, run_id, metric, width, rank, bucket, count, non_finite, sum, min, min_step, max, max_step,
    last, last_step, last_time, version)"""
_SUMMARY_COLUMNS = """(project, run_id, metric, rank, count, non_finite, sum, min, min_step, max, max_step,
    last, last_step, last_time, version)"""
_SHARD_COLUMNS = """(project, run_id, metric, step, shard, ranks, non_finite, mean, m2, min, min_rank, max, max_rank,
    version)"""

# Of rows of a lower tier. A row with no value at all says that there is none any more, and so may the sum of them.
# bitNot turns the order of integers round without overflow: of equal maxima the first step counts.
_OF_TIERS = """sum(count), sum(non_finite), sum(sum),
    if(sum(count) = 0, nan, minIf(min, count > 0)), argMinIf(min_step, (min, min_step), count > 0),
    if(sum(count) = 0, nan, maxIf(max, count > 0)), argMaxIf(max_step, (max, bitNot(max_step)), count > 0),
    argMaxIf(last, last_step, count + non_finite > 0), maxIf(last_step, count + non_finite > 0),
    argMaxIf(last_time, last_step, count + non_finite > 0)"""
# Of points in the order of `effective`, by one thread: of equal values the first step, and over ranks the lowest rank,
# is met first and kept. Saying so with tuples, as above, where rows are few and in no order, costs three times as much.
_OF_POINTS = """countIf(ok), countIf(NOT ok), sumIf(value, ok),
    if(countIf(ok) = 0, nan, minIf(value, ok)), argMinIf(step, value, ok),
    if(countIf(ok) = 0, nan, maxIf(value, ok)), argMaxIf(step, value, ok),
    argMax(value, step), max(step), argMax(time, step)"""
_NOTHING = "0, 0, 0, nan, 0, nan, 0, nan, 0, toDateTime64(0, 6, 'UTC')"


def text(value: str) -> str:
    """A string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def of_runs(runs: Iterable[Run]) -> str:
    """Condition: rows of these runs."""
    pairs = ", ".join(f"({text(run.project)}, {text(run.run_id)})" for run in runs)
    return f"(project, run_id) IN ({pairs})"


def version_of(versions: Versions, runs: Iterable[Run]) -> str:
    """Expression: the version of a row's run."""
    chosen = dict.fromkeys(runs)
    if len(chosen) == 1:
        return f"toUInt64({versions[next(iter(chosen))]})"
    keys = ", ".join(text(f"{run.project}\0{run.run_id}") for run in chosen)
    values = ", ".join(f"toUInt64({versions[run]})" for run in chosen)
    return f"transform(concat(toString(project), '\\0', toString(run_id)), [{keys}], [{values}], toUInt64(0))"


def _series(work: Work) -> str:
    names = ", ".join(text(metric) for metric in work.metrics)
    return f"project = {text(work.run.project)} AND run_id = {text(work.run.run_id)} AND metric IN ({names})"


def _ranks(work: Work) -> str:
    if work.shards == (0,):
        return f"rank BETWEEN 0 AND {SHARD_RANKS - 1}"
    return f"intDiv(rank, {SHARD_RANKS}) IN ({', '.join(map(str, work.shards))}) AND rank >= 0"


def _int64(value: int) -> str:
    return f"toInt64('{value}')"


def _between(column: str, span: Span) -> str:
    return f"{column} BETWEEN {_int64(span[0])} AND {_int64(span[1])}"


def points_in(works: Sequence[Work], width: int | None) -> str:
    """Condition on points: those of the works, in whole buckets of `width` or in their very steps."""
    return " OR ".join(
        f"({_series(work)} AND {_between('step', work.span if width is None else widened(work.span, width))}"
        f" AND {_ranks(work)})"
        for work in works
    )


def _buckets_in(works: Sequence[Work], width: int, of: int) -> str:
    """Condition on series_tiers: rows of the tier `width` in whole buckets of the tier `of`."""
    shift = _SHIFT[width]
    spans = [widened(work.span, of) for work in works]
    return " OR ".join(
        f"({_series(work)} AND width = {width} AND {_ranks(work)}"
        f" AND {_between('bucket', (span[0] >> shift, span[1] >> shift))})"
        for work, span in zip(works, spans, strict=True)
    )


@dataclass(frozen=True, slots=True)
class _Keys:
    """A number for each series of some works, to sort and group by instead of three strings and a rank.

    Sorting numbers and taking the first is a quarter of the cost of argMax in a GROUP BY over the strings.
    """

    runs: Sequence[Run]
    metrics: Sequence[str]

    @classmethod
    def of(cls, works: Sequence[Work]) -> _Keys:
        return cls(_runs(works), sorted({metric for work in works for metric in work.metrics}))

    def key(self) -> str:
        """Expression of points: series * 2^31 + rank, which sorts as series and rank do."""
        names = ", ".join(map(text, self.metrics))
        places = ", ".join(f"toInt64({place})" for place in range(len(self.metrics)))
        series = f"toInt64(transform(metric, [{names}], [{places}], toInt64(0)))"
        if len(self.runs) > 1:
            series = f"({self._run_place()} * {len(self.metrics)} + {series})"
        return f"({series} * {_RANKS} + rank)"

    def columns(self, series: str) -> str:
        """Expressions of project, run and metric from the number of a series."""
        metrics = ", ".join(map(text, self.metrics))
        metric = f"arrayElement([{metrics}], {series} % {len(self.metrics)} + 1)"
        if len(self.runs) == 1:
            run = self.runs[0]
            return f"{text(run.project)}, {text(run.run_id)}, {metric}"
        place = f"intDiv({series}, {len(self.metrics)}) + 1"
        projects = ", ".join(text(run.project) for run in self.runs)
        run_ids = ", ".join(text(run.run_id) for run in self.runs)
        return f"arrayElement([{projects}], {place}), arrayElement([{run_ids}], {place}), {metric}"

    def version(self, versions: Versions, series: str) -> str:
        """Expression of the version of a series' run."""
        numbers = ", ".join(f"toUInt64({versions[run]})" for run in self.runs)
        return f"arrayElement([{numbers}], intDiv({series}, {len(self.metrics)}) + 1)"

    def _run_place(self) -> str:
        keys = ", ".join(text(f"{run.project}\0{run.run_id}") for run in self.runs)
        places = ", ".join(f"toInt64({place})" for place in range(len(self.runs)))
        return f"transform(concat(toString(project), '\\0', toString(run_id)), [{keys}], [{places}], toInt64(0))"


_RANKS = 2**31


def effective(works: Sequence[Work], width: int | None, bounded: bool) -> str:
    """Query of the points that count: of a repeated step the later value, none that a later attempt hides."""
    return f"""SELECT {_Keys.of(works).key()} AS k, step, value, time, isFinite(value) AS ok
        FROM ({_shown(works, width, bounded)})
        ORDER BY k, step, attempt DESC, stream DESC, offset DESC LIMIT 1 BY k, step"""


def _shown(works: Sequence[Work], width: int | None, bounded: bool) -> str:
    """Query of the points that no later attempt hides."""
    columns = "project, run_id, metric, step, rank, value, time, attempt, stream, offset"
    source = f"SELECT {columns} FROM runtide.points WHERE {points_in(works, width)}"
    if not bounded:
        return source
    return f"""SELECT {columns} FROM ({source}) AS p
        LEFT JOIN (SELECT project, run_id, metric, attempt, hidden_from, 1 AS bound
                   FROM runtide.attempt_bounds FINAL WHERE {of_runs(_runs(works))}) AS b
        USING (project, run_id, metric, attempt) WHERE bound = 0 OR step < hidden_from"""


def _runs(works: Sequence[Work]) -> list[Run]:
    return list(dict.fromkeys(work.run for work in works))


def base_tier(works: Sequence[Work], versions: Versions, bounded: bool) -> str:
    """Lowest tier from points."""
    keys, series = _Keys.of(works), f"intDiv(k, {_RANKS})"
    return f"""INSERT INTO runtide.series_tiers {_TIER_COLUMNS}
        SELECT {keys.columns(series)}, {BASE}, toInt32(k % {_RANKS}), bitShiftRight(step, 6) AS b, {_OF_POINTS},
            {keys.version(versions, series)}
        FROM ({effective(works, BASE, bounded)}) GROUP BY k, b"""


def vanished_base(works: Sequence[Work], versions: Versions) -> str:
    """Rows of the lowest tier in which no point counts any more, so that `base_tier` says nothing of them.

    Told by key: the version may be that of the rows themselves, as bounds change while nothing more is stored. Of rows
    with one version the one that was inserted last counts.
    """
    return f"""INSERT INTO runtide.series_tiers {_TIER_COLUMNS}
        SELECT project, run_id, metric, {BASE}, rank, bucket, {_NOTHING}, {version_of(versions, _runs(works))}
        FROM runtide.series_tiers FINAL WHERE ({_buckets_in(works, BASE, BASE)}) AND count + non_finite > 0
            AND (project, run_id, metric, rank, bucket) NOT IN
                (SELECT project, run_id, metric, rank, bitShiftRight(step, 6) FROM ({_shown(works, BASE, True)}))"""


def upper_tier(works: Sequence[Work], versions: Versions, width: int) -> str:
    """A tier from the one below."""
    lower = TIERS[TIERS.index(width) - 1]
    return f"""INSERT INTO runtide.series_tiers {_TIER_COLUMNS}
        SELECT project, run_id, metric, {width}, rank, bitShiftRight(bucket, 6) AS b, {_OF_TIERS},
            {version_of(versions, _runs(works))}
        FROM runtide.series_tiers FINAL WHERE {_buckets_in(works, lower, width)}
        GROUP BY project, run_id, metric, rank, b"""


def summaries(works: Sequence[Work], versions: Versions) -> str:
    """Summaries from the highest tier."""
    series = " OR ".join(f"({_series(work)} AND width = {TIERS[-1]} AND {_ranks(work)})" for work in works)
    return f"""INSERT INTO runtide.metric_summary_rows {_SUMMARY_COLUMNS}
        SELECT project, run_id, metric, rank, {_OF_TIERS}, {version_of(versions, _runs(works))}
        FROM runtide.series_tiers FINAL WHERE {series}
        GROUP BY project, run_id, metric, rank"""


def step_stats(works: Sequence[Work], versions: Versions, bounded: bool) -> str:
    """Moments over the ranks of each shard, from points of the very steps."""
    keys, series = _Keys.of(works), f"intDiv(ks, {_RANKS // SHARD_RANKS})"
    return f"""INSERT INTO runtide.step_stats_shards {_SHARD_COLUMNS}
        SELECT {keys.columns(series)}, step, toInt32(ks % {_RANKS // SHARD_RANKS}),
            countIf(ok) AS n, countIf(NOT ok),
            if(n = 0, 0, avgIf(value, ok)), if(n = 0, 0, varPopStableIf(value, ok) * n),
            if(n = 0, nan, minIf(value, ok)), argMinIf(toInt32(k % {_RANKS}), value, ok),
            if(n = 0, nan, maxIf(value, ok)), argMaxIf(toInt32(k % {_RANKS}), value, ok),
            {keys.version(versions, series)}
        FROM ({effective(works, None, bounded)}) GROUP BY intDiv(k, {SHARD_RANKS}) AS ks, step"""


def vanished_step_stats(works: Sequence[Work], versions: Versions) -> str:
    """Rows of step_stats_shards in which no point counts any more, told by key as above."""
    condition = " OR ".join(
        f"({_series(work)} AND {_between('step', work.span)} AND shard IN ({', '.join(map(str, work.shards))}))"
        for work in works
    )
    return f"""INSERT INTO runtide.step_stats_shards {_SHARD_COLUMNS}
        SELECT project, run_id, metric, step, shard, 0, 0, 0, 0, nan, 0, nan, 0, {version_of(versions, _runs(works))}
        FROM runtide.step_stats_shards FINAL WHERE ({condition}) AND ranks + non_finite > 0
            AND (project, run_id, metric, step, shard) NOT IN
                (SELECT project, run_id, metric, step, intDiv(rank, {SHARD_RANKS})
                 FROM ({_shown(works, None, True)}))"""


def sample_windows(minutes: Mapping[Run, Span], versions: Versions) -> str:
    """Minutes of resource readings; `minutes` are microseconds, both included.

    Readings that are not finite are left out, and those that several agents of one host write make one. A minute is a
    DateTime, which ends in 2106: readings of a clock that stands beyond have no windows, rather than wrong ones.
    """
    low_end, high_end = 0, 4_291_747_200  # 1970 and 2106
    condition = " OR ".join(
        f"(project = {text(run.project)} AND run_id = {text(run.run_id)}"
        f" AND time >= toDateTime64({max(low // 60_000_000 * 60, low_end)}, 6, 'UTC')"
        f" AND time < toDateTime64({min(high // 60_000_000 * 60 + 60, high_end)}, 6, 'UTC'))"
        for run, (low, high) in minutes.items()
    )
    return f"""INSERT INTO runtide.sample_windows
            (project, run_id, host, device, name, rank, time, count, min, max, sum, last, version)
        SELECT project, run_id, host, device, name, rank, toStartOfMinute(time) AS minute,
            countIf(isFinite(value)) AS n, if(n = 0, nan, minIf(value, isFinite(value))),
            if(n = 0, nan, maxIf(value, isFinite(value))), sumIf(value, isFinite(value)),
            argMax(value, time), {version_of(versions, minutes)}
        FROM (SELECT project, run_id, host, device, name, rank, time, value FROM runtide.samples WHERE {condition}
              ORDER BY project, run_id, host, device, name, rank, time, attempt DESC, stream DESC, offset DESC
              LIMIT 1 BY project, run_id, host, device, name, rank, time)
        GROUP BY project, run_id, host, device, name, rank, minute"""


def emptied(run: Run, version: int) -> list[str]:
    """Replace all derived series of a run by rows that say nothing: the first half of a rebuild."""
    of = of_runs([run])
    return [
        f"""INSERT INTO runtide.series_tiers {_TIER_COLUMNS}
            SELECT DISTINCT project, run_id, metric, width, rank, bucket, {_NOTHING}, {version}
            FROM runtide.series_tiers WHERE {of}""",
        f"""INSERT INTO runtide.metric_summary_rows {_SUMMARY_COLUMNS}
            SELECT DISTINCT project, run_id, metric, rank, {_NOTHING}, {version}
            FROM runtide.metric_summary_rows WHERE {of}""",
        f"""INSERT INTO runtide.step_stats_shards {_SHARD_COLUMNS}
            SELECT DISTINCT project, run_id, metric, step, shard, 0, 0, 0, 0, nan, 0, nan, 0, {version}
            FROM runtide.step_stats_shards WHERE {of}""",
    ]


def bounds(run: Run) -> str:
    """The bounds of a run as they stand."""
    return f"SELECT metric, attempt, hidden_from FROM runtide.attempt_bounds FINAL WHERE {of_runs([run])}"


def everything(run: Run) -> str:
    """All series of a run by shard, with their first and last step."""
    return f"""SELECT metric, intDiv(rank, {SHARD_RANKS}) AS shard, min(step), max(step)
        FROM runtide.points WHERE {of_runs([run])} AND rank >= 0 GROUP BY metric, shard"""


def metrics_of(run: Run) -> str:
    """The names of all metrics of a run."""
    return f"SELECT DISTINCT metric FROM runtide.points WHERE {of_runs([run])}"


def first_steps(run: Run) -> str:
    """The first step of each metric in each attempt, from all points of a run."""
    return f"SELECT metric, attempt, min(step) FROM runtide.points WHERE {of_runs([run])} GROUP BY metric, attempt"


def without_bounds(run: Run) -> str:
    """Forget the bounds of a run; returns when it is done."""
    return f"ALTER TABLE runtide.attempt_bounds DELETE WHERE {of_runs([run])} SETTINGS mutations_sync = 2"


def ledger(runs: Iterable[Run]) -> str:
    """What is stored of each stream of these runs; times in microseconds."""
    return f"""SELECT project, run_id, stream, role, rank, host, attempt, mark, holes, points, revision,
            toUnixTimestamp64Micro(opened_at), toUnixTimestamp64Micro(closed_at), last_step,
            toUnixTimestamp64Micro(last_step_at), toUnixTimestamp64Milli(received_at) * 1000,
            toUnixTimestamp64Milli(stepped_received_at) * 1000
        FROM runtide.ledger FINAL WHERE {of_runs(runs)}"""


def uncovered() -> str:
    """Streams of which more is stored than the coverage says, and from where on that is not covered."""
    return f"""SELECT l.project, l.run_id, l.stream, l.role, l.rank, l.attempt, l.mark,
            arraySum(h -> h.2 - h.1, l.holes) AS open_bytes, l.revision, c.mark, c.hole_bytes
        FROM (SELECT * FROM runtide.ledger FINAL) AS l
        LEFT JOIN (SELECT * FROM runtide.coverage FINAL) AS c
            ON c.project = l.project AND c.run_id = l.run_id AND c.stream = l.stream
        WHERE (l.mark > c.mark OR open_bytes < c.hole_bytes) AND NOT startsWith(l.run_id, {text(MARK)})"""


def replayed(since_us: int) -> str:
    """Streams in which dead letters were replayed since then, from which offset on, and when at the last."""
    return f"""SELECT project, run_id, stream, min(offset), toUnixTimestamp64Micro(max(at))
        FROM runtide.dead_letter_fates WHERE fate = 'replayed' AND at >= fromUnixTimestamp64Micro({since_us})
            AND NOT startsWith(run_id, {text(MARK)})
        GROUP BY project, run_id, stream"""


def coverage(streams: Iterable[tuple[Run, str]]) -> str:
    """What the coverage says of these streams."""
    keys = ", ".join(f"({text(run.project)}, {text(run.run_id)}, {text(stream)})" for run, stream in streams)
    return f"""SELECT project, run_id, stream, mark, hole_bytes FROM runtide.coverage FINAL
        WHERE (project, run_id, stream) IN ({keys})"""


def _since(run: Run, streams: Mapping[str, int]) -> str:
    names = ", ".join(text(stream) for stream in streams)
    marks = ", ".join(f"toUInt64({mark})" for mark in streams.values())
    return (
        f"project = {text(run.project)} AND run_id = {text(run.run_id)} AND stream IN ({names})"
        f" AND offset >= transform(toString(stream), [{names}], [{marks}], toUInt64(0))"
    )


def spoken_since(run: Run, streams: Mapping[str, int]) -> str:
    """Steps that streams of a run have logged from given offsets on."""
    return f"""SELECT stream, metric, min(step), max(step) FROM runtide.points
        WHERE {_since(run, streams)} GROUP BY stream, metric"""


def sampled_since(run: Run, streams: Mapping[str, int]) -> str:
    """Times of the readings that streams of a run have given from given offsets on."""
    return f"""SELECT stream, toUnixTimestamp64Micro(min(time)), toUnixTimestamp64Micro(max(time))
        FROM runtide.samples WHERE {_since(run, streams)} GROUP BY stream"""


def sizes(work: Work) -> str:
    """How many points each metric of a work has, and the step in the middle of them."""
    return f"""SELECT metric, count(), toInt64(quantileExactLow(0.5)(step))
        FROM runtide.points WHERE {points_in([work], BASE)} GROUP BY metric"""


def unended(ended: Iterable[str]) -> str:
    """Runs whose state is none of these."""
    states = ", ".join(map(text, ended))
    return f"SELECT project, run_id FROM runtide.run_rows FINAL WHERE state NOT IN ({states})"


def known_runs(project: str | None, run_id: str | None) -> str:
    """All runs, or those of a project, or those with an id. Books are none."""
    conditions = [f"NOT startsWith(run_id, {text(MARK)})"]
    if project is not None:
        conditions.append(f"project = {text(project)}")
    if run_id is not None:
        conditions.append(f"run_id = {text(run_id)}")
    where = " AND ".join(conditions)
    return f"SELECT DISTINCT project, run_id FROM runtide.ledger WHERE {where} ORDER BY project, run_id"


def events(runs: Iterable[Run], kinds: Iterable[str]) -> str:
    """Events of these kinds, in any order; times in microseconds."""
    names = ", ".join(map(text, kinds))
    return f"""SELECT project, run_id, kind, stream, attempt, rank, toUnixTimestamp64Micro(time), json, offset,
            toUnixTimestamp64Milli(received_at) * 1000, clock_ahead_us
        FROM runtide.events FINAL WHERE {of_runs(runs)} AND kind IN ({names})"""


def heartbeats(runs: Iterable[Run], after: Mapping[tuple[Run, str], int]) -> str:
    """When streams were last named by each agent, by the gateway's clock in microseconds, and at which offset.

    Only what agents said behind the offsets in `after`: by a clock the new could not be told from the old.
    """
    known = ""
    if after:
        names = ", ".join(text(f"{run.project}\0{run.run_id}\0{stream}") for run, stream in after)
        offsets = ", ".join(f"toInt64({offset})" for offset in after.values())
        agent = "concat(toString(project), '\\0', toString(run_id), '\\0', toString(stream))"
        known = f"AND toInt64(offset) > transform({agent}, [{names}], [{offsets}], toInt64(-1))"
    return f"""SELECT project, run_id, stream, max(offset),
            arrayJoin(JSONExtract(json, 'streams', 'Array(String)')) AS named,
            toUnixTimestamp64Milli(argMax(received_at, offset)) * 1000
        FROM runtide.events WHERE {of_runs(runs)} AND kind = 'heartbeat' {known}
        GROUP BY project, run_id, stream, named"""


def versions(runs: Iterable[Run]) -> str:
    """The greatest version that a row of these runs or of their attempts has, of those that a clock can have given."""
    of = f"{of_runs(runs)} AND version <= {LATEST_US}"
    return f"""SELECT project, run_id, max(version) FROM (
            SELECT project, run_id, version FROM runtide.run_rows WHERE {of}
            UNION ALL SELECT project, run_id, version FROM runtide.attempt_rows WHERE {of})
        GROUP BY project, run_id"""


def lasts(runs: Iterable[Run], most: int) -> str:
    """Last values over all ranks, as the view metric_summary has them, and the highest step of the run."""
    return f"""SELECT project, run_id, metric,
            arrayAvg(x -> x.2, arrayFilter(x -> x.1 = top, groupArray((last_step, last)))) AS mean,
            max(max(last_step) AS top) OVER (PARTITION BY project, run_id)
        FROM runtide.metric_summary_rows FINAL WHERE {of_runs(runs)} AND count + non_finite > 0
        GROUP BY project, run_id, metric
        ORDER BY project, run_id, metric LIMIT {most} BY project, run_id"""
