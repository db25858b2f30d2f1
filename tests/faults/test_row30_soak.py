"""Row 30 of docs/reliability.md: many runs that come and go leave nothing behind in any part.

The short form of benchmarks/soak.py, and what keeps memory by stream, run, process or destination, each with its bound.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from clickhouse_connect.driver.client import Client
from runtide.agent.served import UNUSED_S, Served
from runtide.agent.tasks import Tasks
from runtide.agent.watch import Processes
from runtide.processor.bounds import Bounds, Logged
from runtide.processor.deriver import Deriver
from runtide.processor.dirty import Run
from runtide.processor.facts import Attempt
from runtide.processor.store import Store, steady_clock
from runtide.spool.layout import StreamInfo, host_folder
from runtide.spool.writer import SpoolWriter, new_stream_id
from runtide.testing.soak import Soak, slope
from runtide.testing.stack import Stack
from runtide.testing.streams import NOW_US
from runtide.v1.records_pb2 import Role

from tests.pipeline.processor_feed import Feed, Record, Stream, opened

pytestmark = pytest.mark.fault(30)

LEAST_RUNS = 25
"""In the time of the test; usually it is over a hundred."""
WARM_S = 5.0


@pytest.mark.slow
def test_short_runs_leave_no_files_threads_or_tasks(stack: Stack) -> None:
    stack.up("--no-dashboard")
    soak = Soak(stack, runs_per_minute=600, workers=2, every_s=1.0)
    outcome = soak.run(18)
    soak.verify()
    assert outcome.problems == []
    assert outcome.runs >= LEAST_RUNS
    for part in ("clickhouse", "ingest", "agent"):
        rows = [row for row in outcome.readings[part] if row.at_s >= WARM_S]
        assert len(rows) >= 5
        hours = (rows[-1].at_s - rows[0].at_s) / 3600
        assert outcome.slope(part, WARM_S) * hours < 150, f"MiB that {part} has grown"
        if part != "clickhouse":  # its threads and files are the engine's, as many as there is to merge
            assert growth([row.files for row in rows]) <= 15, [row.files for row in rows]
            assert growth([row.threads for row in rows]) <= 3, [row.threads for row in rows]
    assert growth(outcome.remembered["runtide_gateway_tasks"]) <= 40


def growth(values: Sequence[float]) -> float:
    """From the least of the first half to the least of the second: what is in use comes and goes, a leak stays."""
    half = len(values) // 2
    return min(values[half:]) - min(values[:half])


def test_the_slope_is_that_of_the_line() -> None:
    assert slope([0, 1, 2, 3], [5, 7, 9, 11]) == pytest.approx(2)
    assert slope([1], [1]) == 0


def test_a_forgotten_cursor_is_read_again(client: Client) -> None:
    """A processor keeps how far so many streams are derived, and what it forgets it derives no worse."""
    deriver = Deriver(lambda: client, lambda: NOW_US, most_cursors=3)
    feed = Feed(client, NOW_US)
    steps = [Record("step", NOW_US + k, k, {"loss": float(k)}) for k in range(10)]
    made = [Stream("bounded", f"run{k}", f"s{k}", records=[opened(NOW_US), *steps]) for k in range(8)]
    deriver.add(feed.store_many([(stream, 0, 6) for stream in made]))
    deriver.settle(NOW_US)
    assert deriver.remembered["streams"] == 3
    deriver.add(feed.store_many([(stream, 6, 11) for stream in made]))
    deriver.settle(NOW_US + 1)
    assert deriver.remembered["streams"] == 3
    counted = client.query("SELECT run_id, count FROM runtide.metric_summary WHERE project = 'bounded' AND rank = 0")
    assert sorted(counted.result_rows) == [(f"run{k}", 10) for k in range(8)]


def test_forgotten_bounds_are_read_again(client: Client) -> None:
    """Of runs with several attempts so many are remembered; what one hides stays hidden."""
    bounds = Bounds(Store(lambda: client, steady_clock()), most=3)
    attempts = [Attempt(number, f"l{number}", NOW_US, None, 1) for number in (1, 2)]
    runs = [Run("bounds", f"run{k}") for k in range(8)]
    for run in runs:
        assert bounds.update(run, attempts, [Logged(1, "loss", 0), Logged(2, "loss", 5)])
    assert len(bounds) == 3
    for run in runs:
        assert bounds.update(run, attempts, [Logged(2, "loss", 7)]) == {}
    assert bounds.update(runs[0], attempts, [Logged(2, "loss", 3)])
    kept = client.query("SELECT run_id, hidden_from FROM runtide.attempt_bounds FINAL WHERE project = 'bounds'")
    assert sorted(kept.result_rows) == [("run0", 3), *((run.run_id, 5) for run in runs[1:])]


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that live until the test is over."""
    made = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(12)]
    yield made
    for process in made:
        process.kill()
        process.communicate()


def test_processes_that_ended_unnoticed_are_forgotten(sleepers: list[subprocess.Popen[bytes]]) -> None:
    """Those whose streams were all told of before they ended."""
    known = Processes(least=4)
    started = {process.pid: psutil.Process(process.pid).create_time() for process in sleepers}
    for process in sleepers[:8]:
        assert known.alive(process.pid, started[process.pid])
        if process is not sleepers[0]:
            process.kill()
            process.wait()
    assert len(known) <= 5
    assert known.alive(sleepers[0].pid, started[sleepers[0].pid])


def test_connections_that_no_stream_uses_are_closed(tmp_path: Path) -> None:
    """Jobs come with tokens of their own, and each has a connection and a task."""
    now = [0.0]

    async def story() -> None:
        home, tasks = host_folder(tmp_path), Tasks()
        served = Served(home, tasks, lambda: now[0])
        for k in range(20):
            assert serve(served, home, f"token{k}") == ""
        assert len(served.shippers) == 20
        now[0] += UNUSED_S * 2
        await served.leave_unused()
        assert len(served.shippers) == 20, "streams go there"
        served.keep_only(home, ())
        await served.leave_unused()
        assert len(served.shippers) == 20, "a stream went there just now"
        now[0] += UNUSED_S
        await served.leave_unused()
        assert served.shippers == []
        await asyncio.sleep(0)  # what was cancelled ends
        assert len(asyncio.all_tasks()) == 1
        assert serve(served, home, "token0") == ""
        assert len(served.shippers) == 1
        await tasks.cancel()
        await served.close()

    asyncio.run(story())


def serve(served: Served, home: Path, token: str) -> str:
    """Serve a new stream of this process that goes to a gateway with this token."""
    stream = new_stream_id()
    info = StreamInfo(stream, "p", "r", 0, 1, "h", Role.ROLE_RANK, 1, 0.0, "grpc://127.0.0.1:9", token=token)
    writer = SpoolWriter.create(home, info)
    writer.close()
    return served.adopt(writer.folder, info)
