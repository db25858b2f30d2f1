"""Questions that would take for ever are refused in time, and rows go on coming in while they are asked."""

from __future__ import annotations

import threading
import time
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from runtide.testing.stack import Stack
from runtide.testing.waiting import until

pytestmark = [pytest.mark.fault(23), pytest.mark.slow]

HEAVY = (
    "SELECT sum(sipHash64(number, 'a')) FROM numbers(1000000000000)",
    "SELECT groupArray(number) FROM numbers(1000000000)",
    "SELECT count() FROM numbers(100000000) AS a CROSS JOIN numbers(100000000) AS b",
    "SELECT metric, step, quantilesExact(0.1, 0.5, 0.9)(value) FROM points GROUP BY ALL ORDER BY ALL",
)
LIMIT_S = 5
"""The server's own limit is a minute; a reader may lower it."""

JOB = """
    import sys, time, runtide
    with runtide.init("steady", run_id="steady") as run:
        for step in range(int(sys.argv[1])):
            run.log({f"m{k}": step + k / 10 for k in range(10)}, step=step)
            time.sleep(0.01)
"""


def test_heavy_questions_end_and_rows_come_in_meanwhile(stack: Stack) -> None:
    stack.up("--no-dashboard")
    stack.run_job(JOB, "10")
    over, took, codes = threading.Event(), list[float](), set[str]()

    def ask(query: str) -> None:
        address = f"http://127.0.0.1:{stack.state.ports.clickhouse}/?database=runtide&max_execution_time={LIMIT_S}"
        while not over.is_set():
            began = time.monotonic()
            try:
                with urlopen(address, query.encode(), timeout=60) as answer:
                    answer.read()
            except HTTPError as error:
                codes.add(error.headers["X-ClickHouse-Exception-Code"])
            took.append(time.monotonic() - began)

    readers = [threading.Thread(target=ask, args=(query,)) for query in HEAVY]
    for reader in readers:
        reader.start()
    try:
        job = stack.job(JOB.replace("steady", "busy"), "500")
        until(
            lambda: stack.sql("SELECT 1 FROM points WHERE run_id = 'busy' AND step > 100"), 30, "rows came in meanwhile"
        )
        assert job.wait(60) == 0
        stack.wait_state("busy", "finished", 60)
    finally:
        over.set()
        for reader in readers:
            reader.join()
    assert stack.verify("busy")[0] == 0
    assert "159" in codes, "what takes too long is ended by the limit of time"
    assert codes <= {"158", "159", "241"}, "and what reads or holds too much by those of rows and memory"
    assert max(took) < 4 * LIMIT_S
