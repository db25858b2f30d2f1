"""Latencies: percentiles are as exact as they say, in bounded memory, and they disturb no step."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtide.sdk import latency
from runtide.sdk.latency import Histogram, Latency

from tests.offline_job import Job

TIMES = st.lists(st.floats(1e-8, 1e5), min_size=1, max_size=300)


@given(TIMES)
def test_percentiles_are_off_by_at_most_one_percent(times: list[float]) -> None:
    found = Histogram()
    for seconds in times:
        found.add(seconds)
    for percent, seconds in found.percentiles((1, 50, 95, 99, 100)):
        exact = sorted(times)[math.ceil(len(times) * percent / 100) - 1]
        assert seconds == pytest.approx(exact, rel=0.01)


def test_memory_does_not_grow_with_the_times() -> None:
    found = Histogram()
    for at in range(100_000):
        found.add(10 ** (at % 400 / 10 - 20))
    found.add(0.0)
    assert found.count == 100_001
    assert len(found.counts) <= 1800


def test_windows_of_one_step_are_said_again_together() -> None:
    one = Latency(0.0)
    one.new.add(1.0)
    assert one.window(5)[1]["count"] == 1
    one.new.add(1.0)
    assert one.window(5) == (5, pytest.approx({"p50": 1.0, "p95": 1.0, "p99": 1.0, "count": 2}, rel=0.01))
    one.new.add(1.0)
    assert one.window(6)[1]["count"] == 1
    one.new.add(1.0)
    assert one.window(None)[0] == one.all.count == 4, "without steps the number of times takes their place"


def test_a_window_is_logged_in_time_and_no_step_moves(job: Job) -> None:
    job.run(
        """
import runtide
from runtide.sdk import latency
run = runtide.init("p", mode="offline")
run.log_latency("early", 1.0)
run.log({"a": 1}, step=7)
latency.EVERY_SECONDS = 0.0
run.log_latency("x", 2.0)
latency.EVERY_SECONDS = 10.0
run.log_latency("x", 4)
run.log({"a": 2})
for wrong in (-1.0, float("nan"), "1"):
    run.log_latency("x", wrong)
assert run.refused == 3, run.refused
try:
    with run.latency("failed"):
        raise KeyError
except KeyError:
    pass
run.finish()
""",
    )
    (stream,) = job.streams()
    found = [(step, told.get("x/count", told.get("early/count", told.get("a")))) for step, told in stream.steps()]
    assert found == [(7, 1), (7, 1), (7, 2), (8, 2), (8, 1)], "a, x, x again of both times, a, early at the end"
    assert stream.entries("summary_set")["x/count"] == "2.0"
    assert not any("failed/count" in told for _, told in stream.steps())


def test_a_run_without_steps_begins_with_0_all_the_same(job: Job) -> None:
    job.run(
        """
import os, runtide
from runtide.sdk import latency
run = runtide.init("p", mode="offline")
for _ in range(3):
    run.log_latency("x", 1.0)
latency.EVERY_SECONDS = 0.0
run.log_latency("y", 1.0)
run.log_latency("y", 1.0)
run.log({"a": 1})
""",
    )
    (stream,) = job.streams()
    assert [step for step, told in stream.steps() if "y/count" in told][:2] == [1, 2]
    assert [step for step, told in stream.steps() if "a" in told] == [0]


def test_names_are_bounded(job: Job) -> None:
    done = job.run(
        f"""
import runtide
run = runtide.init("p", mode="offline")
for at in range({latency.NAMES + 5}):
    run.log_latency(str(at), 1.0)
assert run.refused == 5, run.refused
""",
    )
    assert f"a process has at most {latency.NAMES}" in done.stderr


def test_without_a_run_nothing_happens(job: Job) -> None:
    done = job.run("import runtide\nwith runtide.latency('x'): pass")
    assert "without a run" in done.stderr
