"""Row 26 of docs/reliability.md: a database that a later release has brought a step further, under today's parts."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from runtide.testing.stack import Stack
from runtide.testing.waiting import until
from runtide.warehouse.client import ClickHouseSettings, connect
from runtide.warehouse.migrate import Migration, migrate, migrations

pytestmark = [pytest.mark.fault(26), pytest.mark.slow]

JOB = """
import sys, time, runtide
from pathlib import Path
run = runtide.init("demo", run_id=sys.argv[1])
step = 0
while step < 50 or not Path(sys.argv[2]).exists():
    run.log({"loss": float(step), "acc": 0.5}, step=step)
    print("step", step)
    step += 1
    time.sleep(0.005)
run.finish(timeout=0)
"""


def a_step_further(stack: Stack) -> Migration:
    """What a later release may do: columns with a default, the first ones of every table, and a table of its own."""
    tables = stack.sql("SELECT name FROM system.tables WHERE database = 'runtide' AND engine LIKE '%MergeTree'")
    columns = [
        f"ALTER TABLE runtide.{table} ADD COLUMN IF NOT EXISTS later LowCardinality(String) DEFAULT 'none' FIRST;"
        for (table,) in tables
    ]
    assert len(columns) >= 15
    own = "CREATE TABLE IF NOT EXISTS runtide.later (id UInt64) ENGINE = MergeTree ORDER BY id;"
    return Migration("0999_later.sql", "\n".join([own, *columns]))


def migrate_twice_at_once(stack: Stack, wanted: list[Migration]) -> list[list[str]]:
    """What each of the two says that it has applied."""
    together = threading.Barrier(2)
    password = (stack.home / "secret").read_text()

    def one() -> list[str]:
        client = connect(ClickHouseSettings("127.0.0.1", stack.state.ports.clickhouse, "writer", password))
        together.wait(10)
        try:
            return migrate(client, wanted)
        finally:
            client.close()

    with ThreadPoolExecutor(2) as both:
        return [each.result(60) for each in [both.submit(one) for _ in range(2)]]


def assert_whole(stack: Stack, run: str) -> None:
    """Verified, and summed up by the processor."""
    code, found = stack.verify(run)
    assert code == 0, found["problems"]
    assert found["dead"] == 0
    summary = "SELECT count, max FROM metric_summary WHERE run_id = '{run}' AND rank = 0 AND metric = 'loss'"
    ((last,),) = stack.sql(f"SELECT max(step) FROM metrics WHERE run_id = '{run}'")
    assert last > 0
    until(lambda: stack.sql(summary.format(run=run)) == [(last + 1, last)], 30, "derived rows are whole")


def test_todays_parts_go_on_over_a_database_that_is_a_step_further(stack: Stack, tmp_path: Path) -> None:
    stack.up("--no-dashboard")
    enough = tmp_path / "enough"
    job = stack.job(JOB, "before", str(enough))
    until(lambda: stack.sql("SELECT count() > 200 FROM points") == [(1,)], 30, "rows come")
    applied = migrate_twice_at_once(stack, [*migrations(), a_step_further(stack)])
    assert ["0999_later.sql"] in applied
    assert stack.sql("SELECT count() FROM migrations FINAL WHERE name LIKE '0999%'") == [(1,)]
    ((then,),) = stack.sql("SELECT max(step) FROM points")
    until(lambda: stack.sql(f"SELECT max(step) > {then + 100} FROM points") == [(1,)], 30, "rows come after it")
    enough.touch()
    assert job.wait(60) == 0
    stack.wait_state("before", "finished", 30)
    stack.wait_agent(60)
    assert_whole(stack, "before")
    assert stack.sql("SELECT DISTINCT later FROM points") == [("none",)]

    rebuilt = stack.runtide("rebuild")
    assert rebuilt.returncode == 0, rebuilt.stderr
    assert_whole(stack, "before")
    stack.runtide("down")
    stack.up("--no-dashboard")  # its migrate finds a migration that it does not know
    assert stack.job(JOB, "after", str(enough)).wait(60) == 0
    stack.wait_agent(60)
    assert_whole(stack, "after")
