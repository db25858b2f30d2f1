"""Rows 5, 15 and 22 of docs/reliability.md: whoever dies at whatever place, nothing is lost or twice."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from runtide.testing.stack import Stack, until
from runtide.wire.crash import POINTS

OTHER_TESTS = {"migrate.statement", "sink.chained"}
"""Places that a job does not pass: see below, and test_audit."""
SERVICES = Path(__file__).parents[2] / "services" / "runtide"
STEPS = 300
JOB = """
    import sys, time, runtide
    run = runtide.init("crash", run_id="r")
    for step in range(int(sys.argv[1])):
        run.log({"a": float(step), "b": -float(step)}, step=step)
        print("step", step)
        time.sleep(0.01)
    run.finish()
"""


@pytest.mark.fault(5, 15)
def test_every_point_stands_in_the_code_once() -> None:
    called = [
        name for path in SERVICES.rglob("*.py") for name in re.findall(r'crash_point\("([a-z.]+)"\)', path.read_text())
    ]
    assert sorted(called) == sorted(POINTS)


@pytest.mark.fault(5, 15)
@pytest.mark.parametrize(
    ("point", "after"),
    [(point, number % 2 * 5) for number, point in enumerate(sorted(set(POINTS) - OTHER_TESTS))],
)
def test_a_death_at_any_place_changes_nothing(stack: Stack, tmp_path: Path, point: str, after: int) -> None:
    mark = tmp_path / "died"
    stack.told = {
        "RUNTIDE_CRASH_POINT": point,
        "RUNTIDE_CRASH_AFTER": str(after if not point.startswith("processor") else min(after, 1)),
        "RUNTIDE_CRASH_MARK": str(mark),
    }
    stack.up("--no-dashboard")
    assert stack.job(JOB, str(STEPS)).wait(60) == 0
    until(mark.exists, 30, f"somebody died at {point}")
    stack.wait_state("r", "finished", 60)
    stack.runtide("sync", str(stack.home / "spool"))
    stack.wait_agent(60)
    code, found = stack.verify("r")
    assert code == 0, found["problems"]
    assert stack.sql("SELECT metric, count(), uniqExact(step) FROM points GROUP BY metric ORDER BY metric") == [
        ("a", STEPS, STEPS),
        ("b", STEPS, STEPS),
    ]
    assert stack.sql("SELECT count() FROM log_lines") == [(STEPS,)]
    until(
        lambda: (
            stack.sql("SELECT sum(count), max(max), min(min) FROM metric_summary WHERE rank = 0")
            == [(2 * STEPS, STEPS - 1, -(STEPS - 1))]
        ),
        60,
        "summaries say it too",
    )


@pytest.mark.fault(26)
def test_a_death_within_a_migration_is_mended_by_the_next_start(stack: Stack, tmp_path: Path) -> None:
    mark = tmp_path / "died"
    stack.told = {
        "RUNTIDE_CRASH_POINT": "migrate.statement",
        "RUNTIDE_CRASH_AFTER": "3",
        "RUNTIDE_CRASH_MARK": str(mark),
    }
    stack.up("--no-dashboard")
    assert mark.exists()
    stack.run_job(JOB, "20")
    stack.wait_state("r", "finished", 60)
    stack.wait_agent(60)
    assert stack.verify("r")[0] == 0
