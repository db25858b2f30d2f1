"""Runs that are continued, forked and refused, from init() to the views."""

from __future__ import annotations

from runtide.testing.stack import Stack

JOB = """
import sys, runtide
run = runtide.init("again", run_id="r", resume="allow", resume_from=sys.argv[1] if sys.argv[1:] else None)
for value in range(100):
    run.log({"loss": value, "name": "text"})
run.finish(1)
"""
POOL = """
import multiprocessing, runtide
run = runtide.init("forked", run_id="pool")
run.log({"parent": 1})
def work(n):
    runtide.log({"child": n}, step=n)
with multiprocessing.get_context("fork").Pool(2) as pool:
    pool.map(work, range(20))
run.finish()
"""


def test_a_resumed_run_hides_nothing_but_what_it_is_told_to(stack: Stack) -> None:
    def seen() -> list[object]:
        return stack.sql(
            "SELECT attempt, min(step), max(step), count() FROM metrics WHERE run_id = 'r' GROUP BY 1 ORDER BY 1"
        )

    stack.up("--no-dashboard")
    stack.run_job(JOB)
    stack.run_job(JOB)
    stack.wait_agent()
    assert seen() == [(1, 0, 99, 100), (2, 100, 199, 100)]
    stack.run_job(JOB, "r?step=49")
    stack.wait_agent()
    assert seen() == [(1, 0, 49, 50), (3, 50, 149, 100)]
    code, found = stack.verify("r")
    assert code == 0, found["problems"]
    assert found["gaps"] == 3, "what was refused is declared by each process"
    losses = [text for stream in found["streams"] for text in stream["losses"]]
    assert losses == ["declared lost (refused): 100 points: metric 'name' is of type str, but metrics are numbers"] * 3


def test_streams_of_children_do_not_stay_open(stack: Stack) -> None:
    stack.up("--no-dashboard")
    stack.run_job(POOL)
    stack.wait_agent()
    code, found = stack.verify("pool")
    assert code == 0, found["problems"]
    assert (found["open_streams"], found["stored_points"]) == (0, 21)
