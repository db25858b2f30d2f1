"""The calculus of what is out of date: nothing added is lost, nothing is cut."""

from __future__ import annotations

import random

import pytest
from runtide.processor.dirty import (
    BASE,
    FIRST_STEP,
    LAST_STEP,
    Dirty,
    Run,
    Span,
    Work,
    halves,
    joined,
    packed,
    shard_of,
    widened,
)

R = Run("p", "r")


def steps_in_buckets(work: Work) -> int:
    return work.steps * len(work.metrics) * len(work.shards)


@pytest.mark.parametrize(
    ("span", "width", "expected"),
    [
        ((0, 0), 64, (0, 63)),
        ((63, 64), 64, (0, 127)),
        ((-1, 0), 64, (-64, 63)),
        ((-65, -64), 64, (-128, -1)),
        ((5000, 5001), 4096, (4096, 8191)),
        ((FIRST_STEP, FIRST_STEP), 262_144, (FIRST_STEP, FIRST_STEP + 262_143)),
        ((LAST_STEP, LAST_STEP), 262_144, (LAST_STEP - 262_143, LAST_STEP)),
    ],
)
def test_whole_buckets_stay_within_64_bits(span: Span, width: int, expected: Span) -> None:
    assert widened(span, width) == expected


def test_neighbours_are_joined_and_few_ranges_kept() -> None:
    assert joined([(10, 20), (0, 5), (500, 600)]) == [(0, 20), (500, 600)]
    far = [(at * 10_000, at * 10_000 + 1) for at in range(20)]
    kept = joined(far, most=3)
    assert len(kept) == 3
    assert all(any(low <= a and b <= high for low, high in kept) for a, b in far)


def test_agents_have_no_series() -> None:
    dirty = Dirty()
    dirty.add(R, shard_of(-1), "loss", (0, 1))
    assert not dirty


def test_metrics_logged_together_are_one_work() -> None:
    dirty = Dirty()
    for metric in ("b", "a"):
        for rank in (0, 63, 64):
            dirty.add(R, shard_of(rank), metric, (rank % 3, 10))
    assert dirty.take(steps_in_buckets, 10**6) == [Work(R, ("a", "b"), (0, 1), (0, 10))]
    assert not dirty
    assert not dirty.holds(R)


def test_a_large_run_does_not_keep_small_ones_waiting() -> None:
    dirty, small = Dirty(), Run("p", "small")
    for at in range(6):
        dirty.add(R, 0, f"m{at}", (at * 1_000_000, at * 1_000_000 + 900_000))
    dirty.add(small, 0, "loss", (0, 1))
    taken = [dirty.take(steps_in_buckets, 1000) for _ in range(2)]
    assert [work.run for works in taken for work in works] == [R, small]


def test_what_was_not_done_is_put_back() -> None:
    dirty = Dirty()
    dirty.add(R, 0, "loss", (5, 70))
    works = dirty.take(steps_in_buckets, 10)
    dirty.add(R, 0, "loss", (60, 200))
    dirty.put_back(works)
    assert dirty.take(steps_in_buckets, 10**6) == [Work(R, ("loss",), (0,), (5, 200))]


def test_halves_meet_at_a_bucket() -> None:
    work = Work(R, ("loss",), (0,), (FIRST_STEP, LAST_STEP))
    low, high = halves(work, 100)
    assert (low.span, high.span) == ((FIRST_STEP, 63), (64, LAST_STEP))
    assert halves(Work(R, ("loss",), (0,), (64, 100)), 70) == (Work(R, ("loss",), (0,), (64, 100)),)


@pytest.mark.parametrize("seed", range(5))
def test_everything_added_is_handed_out(seed: int) -> None:
    choose = random.Random(seed)
    dirty = Dirty()
    missing: set[tuple[Run, str, int, int]] = set()
    for _ in range(300):
        run = Run("p", str(choose.randrange(3)))
        metric, shard = choose.choice("abc"), choose.randrange(3)
        low = choose.choice([choose.randrange(-500, 500), choose.randrange(-(10**9), 10**9)])
        high = low + choose.randrange(100)
        dirty.add(run, shard, metric, (low, high))
        missing.update((run, metric, shard, step) for step in (low, high))
        if choose.random() < 0.1:
            works = dirty.take(steps_in_buckets, choose.choice([1, 5000]))
            if choose.random() < 0.5:
                dirty.put_back(works)
            else:
                missing -= covered(missing, works)
    while dirty:
        missing -= covered(missing, dirty.take(steps_in_buckets, 5000))
    assert not missing


def covered(wanted: set[tuple[Run, str, int, int]], works: list[Work]) -> set[tuple[Run, str, int, int]]:
    return {
        (run, metric, shard, step)
        for run, metric, shard, step in wanted
        for work in works
        if run == work.run and metric in work.metrics and shard in work.shards and work.span[0] <= step <= work.span[1]
    }


def test_base_width_divides_the_64_bit_range() -> None:
    assert FIRST_STEP % BASE == 0
    assert (LAST_STEP + 1) % BASE == 0


def test_metrics_are_packed_in_groups_of_a_size_and_none_is_left_out() -> None:
    counts = {"a": 4, "b": 6, "c": 25, "d": 0, "e": 9, "f": 2}
    groups = packed(counts, 10)
    assert groups == [(("a", "b"), True), (("c",), False), (("d", "e"), True), (("f",), True)]
    assert packed({"a": 0}, 10) == [(("a",), True)]
    assert packed({}, 10) == []
