"""Buckets of a series against a plain loop over the same points, on the real engine."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from runtide.processor.rebuild import rebuild
from runtide.testing.embedded import EmbeddedClickHouse
from runtide.warehouse import queries
from runtide.warehouse.client import ClickHouseSettings, connect
from runtide.warehouse.queries.series import Source, plan

PROJECT = "p"
METRIC = "train/loss"


@dataclass(frozen=True)
class Point:
    step: int
    value: float
    rank: int = 0
    attempt: int = 1
    offset: int = 0


@pytest.fixture(scope="module")
def writer(client: Client) -> Client:
    return client


@pytest.fixture(scope="module")
def reader(embedded_clickhouse: EmbeddedClickHouse) -> Client:
    return connect(ClickHouseSettings(port=embedded_clickhouse.port))


def store(client: Client, run: str, points: list[Point], metric: str = METRIC) -> None:
    """Write points; a stream for each rank and attempt."""
    count = len(points)
    streams = [f"{run}-{point.attempt}-{point.rank}" for point in points]
    now = np.datetime64("2026-03-01T00:00:00", "us")
    table = pa.table(
        {
            "project": [PROJECT] * count,
            "run_id": [run] * count,
            "metric": [metric] * count,
            "step": pa.array([point.step for point in points], pa.int64()),
            "rank": pa.array([point.rank for point in points], pa.int32()),
            "value": pa.array([point.value for point in points], pa.float64()),
            "time": pa.array(now + np.array([point.offset for point in points]), pa.timestamp("us", "UTC")),
            "attempt": pa.array([point.attempt for point in points], pa.uint16()),
            "stream": streams,
            "offset": pa.array([point.offset for point in points], pa.uint64()),
            "length": pa.array([1] * count, pa.uint32()),
            "of": pa.array([1] * count, pa.uint16()),
            "received_at": pa.array(np.full(count, now.astype("datetime64[ms]")), pa.timestamp("ms", "UTC")),
            "days": pa.array([0] * count, pa.uint16()),
        }
    )
    client.insert_arrow("runtide.points", table)
    for stream, rank, attempt in sorted({(s, p.rank, p.attempt) for s, p in zip(streams, points, strict=True)}):
        client.command(
            "INSERT INTO runtide.ledger SELECT {p:String}, {r:String}, {s:String}, 'rank', {k:Int32}, 'h', {a:UInt16},"
            " 1000000000, [], 0, 0, 0, 0, now64(6), NULL, 0, now64(6), now64(3), toUnixTimestamp64Micro(now64(6)), 0,"
            " 0, 0, 0, now64(3)",
            parameters={"p": PROJECT, "r": run, "s": stream, "k": rank, "a": attempt},
        )


def numbered(points: list[Point]) -> list[Point]:
    return [replace(point, offset=position) for position, point in enumerate(points)]


def expected(
    points: list[Point], shift: int, *, per_rank: bool = False, hidden: dict[int, int] | None = None
) -> dict[tuple[int, int], dict[str, Any]]:
    """The plain oracle."""
    hidden = hidden or {}
    effective: dict[tuple[int, int], Point] = {}
    for point in sorted(points, key=lambda p: (p.attempt, p.offset)):
        if point.step < hidden.get(point.attempt, point.step + 1):
            effective[point.step, point.rank] = point
    buckets: dict[tuple[int, int], list[Point]] = defaultdict(list)
    for point in effective.values():
        buckets[point.rank if per_rank else -1, point.step >> shift].append(point)
    return {key: _summary(found) for key, found in buckets.items()}


def _summary(found: list[Point]) -> dict[str, Any]:
    finite = [point.value for point in found if math.isfinite(point.value)]
    step = max(point.step for point in found)
    last = [point.value for point in found if point.step == step]
    return {
        "step": step,
        "mean": sum(finite) / len(finite) if finite else math.nan,
        "min": min(finite, default=math.nan),
        "max": max(finite, default=math.nan),
        "last": sum(last) / len(last),
        "count": len(finite),
        "non_finite": len(found) - len(finite),
    }


def compare(table: Any, wanted: dict[tuple[int, int], dict[str, Any]]) -> None:
    got = {(row["rank"], row["bucket"]): row for row in table.to_pylist()}
    assert sorted(got) == sorted(wanted)
    for key, row in wanted.items():
        for name, value in row.items():
            assert got[key][name] == pytest.approx(value, rel=1e-9, abs=1e-12, nan_ok=True), (key, name)


def ask(client: Client, run: str, window: queries.Window, **more: Any) -> tuple[Any, Any]:
    (extent,) = queries.extents(client, PROJECT, run)
    how = plan(
        extent,
        window,
        per_rank=more.get("per_rank", False),
        with_time=more.get("with_time", True),
        ranks=len(more.get("ranks", ())),
    )
    return how, queries.series(client, PROJECT, run, [extent], window, **more)


def wavy(steps: range, ranks: int = 1, seed: int = 1) -> list[Point]:
    """Values with NaN, both infinities, and a repeated step now and then."""
    dice = np.random.default_rng(seed)
    points: list[Point] = []
    for step in steps:
        for rank in range(ranks):
            value = float(dice.normal(math.sin(step / 500), 0.1))
            if step % 401 == 0:
                value = (math.nan, math.inf, -math.inf)[step % 3]
            points.append(Point(step, value, rank))
            if step % 701 == 0:
                points.append(Point(step, value + 1, rank))
    return numbered(points)


def test_few_points_come_as_they_are_before_anything_is_derived(writer: Client, reader: Client) -> None:
    points = wavy(range(-30, 40), ranks=2)
    store(writer, "few", points)
    how, table = ask(reader, "few", queries.Window())
    assert (how.source, how.shift) == (Source.POINTS, 0)
    compare(table, expected(points, 0))
    _, table = ask(reader, "few", queries.Window(), per_rank=True)
    compare(table, expected(points, 0, per_rank=True))


def test_a_long_series_is_put_together_from_tiers_and_what_is_newer(writer: Client, reader: Client) -> None:
    points = wavy(range(-5000, 60000))
    points[30000] = replace(points[30000], value=500.0)
    store(writer, "long", points)
    rebuild(writer, PROJECT, "long", force=True)
    how, table = ask(reader, "long", queries.Window(buckets=600))
    assert (how.source, how.shift) == (Source.TIERS, 7)
    compare(table, expected(points, 7))
    assert max(row["max"] for row in table.to_pylist()) == 500.0
    # Without any derivation the newest points are there, and old buckets are what they were.
    newer = [replace(p, offset=p.offset + 10**6) for p in wavy(range(60000, 60500), seed=2)]
    store(writer, "long", newer)
    how, table = ask(reader, "long", queries.Window(buckets=600))
    assert how.source is Source.TIERS
    compare(table, expected(points + newer, 7))


def test_a_window_of_a_long_series_is_exact(writer: Client, reader: Client) -> None:
    points = wavy(range(60000), seed=4)
    store(writer, "window", points)
    rebuild(writer, PROJECT, "window", force=True)
    inside = [point for point in points if 20000 <= point.step <= 20500]
    how, table = ask(reader, "window", queries.Window(20000, 20500, 800))
    assert (how.source, how.shift) == (Source.POINTS, 0)
    compare(table, expected(inside, 0))


def test_many_ranks_are_read_from_the_statistics_over_ranks(writer: Client, reader: Client) -> None:
    points = [point for point in wavy(range(6000), ranks=4, seed=5) if math.isfinite(point.value)]
    store(writer, "ranks", points)
    rebuild(writer, PROJECT, "ranks", force=True)
    late = [Point(step, step / 1000, rank, offset=10**6 + step) for step in range(6000, 6040) for rank in range(4)]
    store(writer, "ranks", late)
    how, table = ask(reader, "ranks", queries.Window(buckets=600), with_time=False)
    assert (how.source, how.shift) == (Source.STEP_STATS, 4)
    compare(table, expected(points + late, 4))


def test_lines_of_chosen_ranks(writer: Client, reader: Client) -> None:
    points = wavy(range(40000), ranks=3, seed=6)
    store(writer, "lines", points)
    rebuild(writer, PROJECT, "lines", force=True)
    chosen = [point for point in points if point.rank != 1]
    how, table = ask(reader, "lines", queries.Window(buckets=600), per_rank=True, ranks=(0, 2))
    assert how.source is Source.TIERS
    compare(table, expected(chosen, how.shift, per_rank=True))


def test_points_that_a_later_attempt_supersedes_are_hidden(writer: Client, reader: Client) -> None:
    first = [Point(step, 1.0, attempt=1) for step in range(1000)]
    second = [Point(step, 2.0, attempt=2) for step in range(600, 1200)]
    points = numbered(first + second)
    store(writer, "attempts", points)
    writer.command(
        "INSERT INTO runtide.attempt_bounds (project, run_id, metric, attempt, hidden_from)"
        " SELECT {p:String}, 'attempts', {m:String}, 1, 600",
        parameters={"p": PROJECT, "m": METRIC},
    )
    _, table = ask(reader, "attempts", queries.Window())
    compare(table, expected(points, 1, hidden={1: 600}))


def test_metrics_of_different_kinds_come_in_one_table(writer: Client, reader: Client) -> None:
    store(writer, "mixed", wavy(range(30000), seed=7))
    rare = [Point(step, step / 10, offset=10**7 + step) for step in range(0, 30000, 100)]
    store(writer, "mixed", rare, metric="val/loss")
    rebuild(writer, PROJECT, "mixed", force=True)
    found = queries.extents(reader, PROJECT, "mixed")
    table = queries.series(reader, PROJECT, "mixed", found, queries.Window(buckets=600))
    rows = [row for row in table.to_pylist() if row["metric"] == "val/loss"]
    assert [row["last"] for row in rows] == [point.value for point in rare]
    assert {row["metric"] for row in table.to_pylist()} == {METRIC, "val/loss"}


def test_a_run_that_is_not_known_has_no_series(reader: Client) -> None:
    assert queries.extents(reader, PROJECT, "nobody") == []
    assert queries.series(reader, PROJECT, "nobody", []).num_rows == 0
