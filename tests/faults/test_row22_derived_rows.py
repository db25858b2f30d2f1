"""Incremental equals recomputed, and both equal a count in plain Python, whatever came in whatever order."""

from __future__ import annotations

import math
import random
import time

import pytest
from runtide.processor.deriver import Deriver
from runtide.processor.dirty import FIRST_STEP, LAST_STEP
from runtide.processor.rebuild import rebuild
from runtide.warehouse.client import Client
from runtide.wire.hints import Hint

from tests.pipeline import processor_oracle as oracle
from tests.pipeline.processor_feed import Feed, Record, Stream, opened

pytestmark = [pytest.mark.fault(22), pytest.mark.slow]

METRICS = ("loss", "it's \\ odd", "acc/top é")
SECOND = 1_000_000


def some_value(choose: random.Random) -> float:
    kind = choose.random()
    if kind < 0.1:
        return choose.choice([math.nan, math.inf, -math.inf])
    if kind < 0.3:
        return float(choose.randrange(3))
    return choose.gauss(1000.0, 10.0 ** choose.randrange(-3, 4))


def some_records(choose: random.Random, now: int, start: int, resume: int | None) -> list[Record]:
    more = {} if resume is None else {"resume_step": str(resume)}
    records = [opened(now, 4, **more)]
    step = start
    for place in range(choose.randrange(1, 120)):
        step += 1
        jump = choose.random()
        said = step
        if jump < 0.1:
            said = choose.randrange(step - 80, step + 1)
        elif jump < 0.12:
            said = choose.choice([-(2**40), 2**40 + place, FIRST_STEP, LAST_STEP, 5000, -4097])
        names = choose.sample(METRICS, choose.randrange(1, 4))
        records.append(Record("step", now + place, said, {name: some_value(choose) for name in names}))
    return records


def some_run(choose: random.Random, run_id: str, now: int) -> list[Stream]:
    streams = []
    start = choose.choice([0, -70, 4000])
    for attempt in range(1, choose.choice([1, 2, 3]) + 1):
        resume = choose.choice([None, start + choose.randrange(60)]) if attempt > 1 else None
        first = start if attempt == 1 else resume if resume is not None else start + choose.randrange(60)
        for rank in choose.sample([0, 1, 2, 70], choose.randrange(1, 5)):
            name = f"{now + attempt:012x}{rank:020x}"
            streams.append(Stream("p", run_id, name, rank, attempt, records=some_records(choose, now, first, resume)))
    for agent in range(choose.randrange(3)):
        records = [
            Record("sample", now + tick * 20 * SECOND, values={"cpu": choose.random(), "memory": float(tick)})
            for tick in range(choose.randrange(1, 12))
        ]
        streams.append(Stream("p", run_id, f"a{agent}", -1, 1, "agent", records=records))
    return streams


def chunks_of(choose: random.Random, streams: list[Stream]) -> list[tuple[Stream, int, int]]:
    """Pieces of all streams: in order per stream, but for those that come late and those that come twice."""
    chunks: list[tuple[float, Stream, int, int]] = []
    for stream in streams:
        begin, at = choose.random(), 0
        while at < len(stream.records):
            end = min(len(stream.records), at + choose.randrange(1, 60))
            late = choose.random() if choose.random() < 0.15 else 0.0
            chunks.append((begin + at / 100 + late, stream, at, end))
            if choose.random() < 0.1:
                chunks.append((begin + at / 100 + choose.random(), stream, max(0, at - 5), end))
            at = end
    return [(stream, first, last) for _, stream, first, last in sorted(chunks, key=lambda chunk: chunk[0])]


def read(client: Client, query: str, keys: int) -> oracle.Rows:
    return {tuple(row[:keys]): tuple(row[keys:]) for row in client.query(query).result_rows}


def derived(client: Client, run_id: str) -> dict[str, oracle.Rows]:
    of = f"project = 'p' AND run_id = '{run_id}'"
    return {
        "tiers": read(
            client,
            f"""SELECT metric, width, rank, bucket, count, non_finite, sum, min, min_step, max, max_step, last,
                    last_step
                FROM runtide.series_tiers FINAL WHERE {of} AND count + non_finite > 0""",
            4,
        ),
        "summaries": read(
            client,
            f"""SELECT metric, rank, last, last_step, min, min_step, max, max_step, mean, count, non_finite
                FROM runtide.metric_summary WHERE {of}""",
            2,
        ),
        "step_stats": read(
            client,
            f"""SELECT metric, step, ranks, mean, min, max, std, min_rank, max_rank, non_finite
                FROM runtide.step_stats WHERE {of}""",
            2,
        ),
        "windows": read(
            client,
            f"""SELECT host, name, rank, toUnixTimestamp(time), count, min, max, sum, last
                FROM runtide.sample_windows FINAL WHERE {of}""",
            4,
        ),
    }


def feed_at_random(
    choose: random.Random, client: Client, chunks: list[tuple[Stream, int, int]], clock: list[int], most: int
) -> Deriver:
    """Store chunks; lose and repeat hints and start the deriver anew in between. Returns the last deriver."""

    def fresh() -> Deriver:
        return Deriver(lambda: client, lambda: clock[0], most)

    feed, deriver = Feed(client, clock[0]), fresh()
    old: list[Hint] = []
    at = 0
    while at < len(chunks):
        some = chunks[at : at + choose.randrange(1, 12)]
        at += len(some)
        for stream, first, last in some:
            hint = feed.store(stream, first, last)
            if choose.random() < 0.85:
                deriver.add([hint])
            old.append(hint)
        if choose.random() < 0.2:
            deriver.add([choose.choice(old)])
        clock[0] += 2 * SECOND
        if choose.random() < 0.7:
            deriver.tick()
        if choose.random() < 0.15:
            deriver = fresh()
    return deriver


@pytest.mark.parametrize("seed", range(4))
def test_incremental_equals_recomputed_and_a_plain_count(client: Client, seed: int) -> None:
    choose = random.Random(seed)
    now = time.time_ns() // 1000
    run_ids = [f"{seed}-{place}'" for place in range(2)]
    runs = {run_id: some_run(choose, run_id, now) for run_id in run_ids}
    clock = [now]
    chunks = chunks_of(choose, [stream for streams in runs.values() for stream in streams])
    deriver = feed_at_random(choose, client, chunks, clock, choose.choice([400, 2_000_000]))
    deriver.sweep(everything=True)
    deriver.settle()
    assert deriver.idle
    for run_id, streams in runs.items():
        check(client, run_id, streams, f"seed {seed} incremental")
    assert not client.query(
        "SELECT * FROM runtide.ledger AS l FINAL LEFT JOIN runtide.coverage AS c FINAL USING (project, run_id, stream)"
        " WHERE l.mark > c.mark"
    ).result_rows
    for run_id in run_ids:
        assert rebuild(client, "p", run_id).made == 1
    for run_id, streams in runs.items():
        check(client, run_id, streams, f"seed {seed} rebuilt")


def check(client: Client, run_id: str, streams: list[Stream], when: str) -> None:
    found = derived(client, run_id.replace("'", "\\'"))
    series = oracle.effective(streams)
    values = [abs(value) for of in series.values() for value in of.values() if math.isfinite(value)]
    magnitude = max(values, default=1.0)
    expected = {
        "tiers": oracle.tiers(series),
        "summaries": oracle.summaries(series),
        "step_stats": oracle.step_stats(series),
        "windows": oracle.windows(streams),
    }
    for name, rows in expected.items():
        assert not oracle.differences(found[name], rows, magnitude * max(1, len(values))), f"{when} {name}"
    assert all(rows for name, rows in expected.items() if name != "windows")
