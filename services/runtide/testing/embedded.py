"""The real embedded ClickHouse as a process, for tests of every room.

In a test file or a conftest.py:

    from runtide.testing.embedded import EmbeddedClickHouse, start_embedded, stop_embedded

    @pytest.fixture(scope="module")
    def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
        server = start_embedded(tmp_path_factory.mktemp("home"))
        yield server
        stop_embedded(server)

or, in a conftest.py, `from runtide.testing.embedded import embedded_clickhouse`: a fixture that does just that.
Writer: user "writer" with `server.password`; reader: user "default" without. A server starts in one to two seconds.
`server.kill()` is SIGKILL; start again on the same home with `start_embedded(server.home, server.port)`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtide.cli.ports import free_port
from runtide.cli.supervisor import answers

START_S = 60.0
STOP_S = 30.0


@dataclass(frozen=True)
class EmbeddedClickHouse:
    """A running server."""

    home: Path
    host: str
    port: int
    password: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.host}:{self.port}/"

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait(STOP_S)


def start_embedded(home: Path, port: int | None = None) -> EmbeddedClickHouse:
    """Start a server on this home and wait until it answers.

    Raises: RuntimeError with the server's own words when it does not start.
    """
    port = port or free_port()
    home.mkdir(parents=True, exist_ok=True)
    path = home / "clickhouse.log"
    with path.open("ab") as log:
        command = [sys.executable, "-m", "runtide.embedded", "--home", str(home), "--port", str(port)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + START_S
    while not answers(f"http://127.0.0.1:{port}/ping"):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            process.wait(STOP_S)
            raise RuntimeError(f"the embedded ClickHouse did not start:\n{path.read_text()}")
        time.sleep(0.05)
    return EmbeddedClickHouse(home, "127.0.0.1", port, (home / "secret").read_text().strip(), process, path)


def stop_embedded(server: EmbeddedClickHouse) -> int:
    """SIGTERM, wait, and return the exit code; SIGKILL when it does not end."""
    if server.process.poll() is None:
        os.kill(server.process.pid, signal.SIGTERM)
    try:
        return server.process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        raise


@pytest.fixture(scope="module")
def embedded_clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    """A server of its own for the tests of one file."""
    server = start_embedded(tmp_path_factory.mktemp("clickhouse"))
    yield server
    stop_embedded(server)
