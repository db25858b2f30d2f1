"""The embedded ClickHouse as a process: what it acknowledged survives SIGKILL, and it starts and stops as said."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtide.cli.ports import free_port
from runtide.testing.embedded import EmbeddedClickHouse, start_embedded, stop_embedded


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedClickHouse]:
    started = start_embedded(tmp_path / "home")
    yield started
    if started.process.poll() is None:
        stop_embedded(started)


def post(server: EmbeddedClickHouse, query: str) -> str:
    headers = {"X-ClickHouse-User": "writer", "X-ClickHouse-Key": server.password}
    request = urllib.request.Request(server.url, query.encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.read().decode())


def run_once(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runtide.embedded", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_what_was_acknowledged_survives_sigkill(server: EmbeddedClickHouse) -> None:
    post(server, "CREATE TABLE kept (thread UInt8, n UInt64, text String) ENGINE = MergeTree ORDER BY (thread, n)")
    acknowledged = [0, 0, 0]

    def insert(thread: int) -> None:
        while True:
            start = acknowledged[thread]
            rows = ",".join(f"({thread},{n},'some text')" for n in range(start, start + 100))
            try:
                post(server, f"INSERT INTO kept VALUES {rows}")
            except OSError:  # it is dead: not acknowledged
                return
            acknowledged[thread] = start + 100

    threads = [threading.Thread(target=insert, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 30
    while min(acknowledged) < 1000:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    server.kill()
    for thread in threads:
        thread.join(30)
    again = start_embedded(server.home, server.port)
    try:
        assert again.password == server.password
        for number, count in enumerate(acknowledged):
            stored, distinct = map(
                int, post(again, f"SELECT count(), uniqExact(n) FROM kept WHERE thread = {number}").split()
            )
            assert stored == distinct  # a whole insert or none of it
            assert stored in (count, count + 100)
    finally:
        assert stop_embedded(again) == 0


def test_a_second_process_on_the_same_home_is_refused(server: EmbeddedClickHouse) -> None:
    second = run_once("--home", str(server.home), "--port", str(free_port()))
    assert second.returncode == 1
    assert f"is in use by the ClickHouse of process {server.process.pid}" in second.stderr
    assert "--home" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_taken_port_is_named(server: EmbeddedClickHouse, tmp_path: Path) -> None:
    second = run_once("--home", str(tmp_path / "other"), "--port", str(server.port))
    assert second.returncode == 1
    assert f"127.0.0.1:{server.port}" in second.stderr
    assert "--clickhouse-port" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_queries_end(server: EmbeddedClickHouse, sent: signal.Signals) -> None:
    answers: list[str] = []
    asking = threading.Thread(
        target=lambda: answers.append(post(server, "SELECT sum(sleepEachRow(0.4)) FROM numbers(3)"))
    )
    asking.start()
    deadline = time.monotonic() + 20
    while post(server, "SELECT count() FROM system.processes WHERE query LIKE '%sleepEachRow%'") != "2\n":
        assert time.monotonic() < deadline
    server.process.send_signal(sent)
    assert server.process.wait(20) == 0
    asking.join(20)
    assert answers == ["0\n"]


def test_a_query_without_end_is_cancelled_by_the_stop(server: EmbeddedClickHouse) -> None:
    told: list[str] = []

    def ask() -> None:
        try:
            post(server, "SELECT count() FROM numbers(100000000000) WHERE NOT ignore(sipHash64(number))")
        except urllib.error.HTTPError as error:
            with error:
                told.append(error.read().decode())

    asking = threading.Thread(target=ask)
    asking.start()
    deadline = time.monotonic() + 20
    while post(server, "SELECT count() FROM system.processes WHERE query LIKE '%sipHash64%'") != "2\n":
        assert time.monotonic() < deadline
    started = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    assert time.monotonic() - started < 15
    asking.join(20)
    assert "QUERY_WAS_CANCELLED" in told[0]
    assert "Traceback" not in server.log.read_text()
