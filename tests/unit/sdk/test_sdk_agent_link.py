"""What the job asks of the agent, and that no answer is waited for longer than promised.

The agent here is a scripted one behind a real unix socket; the real one is tried in tests/pipeline.
"""

from __future__ import annotations

import json
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runtide.spool import layout
from runtide.spool.layout import Position

SILENT: dict[str, Any] = {}


class ScriptedAgent:
    """Answers by a function, from a thread; an empty answer is none at all."""

    def __init__(self, path: Path, answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        layout.private_folder(path.parent)
        self.asked: list[dict[str, Any]] = []
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen()
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            with peer.makefile("rb") as file:
                line = file.readline()
            if not line:
                peer.close()
                return
            request = json.loads(line)
            self.asked.append(request)
            if reply := self._answer(request):
                peer.sendall(json.dumps(reply).encode() + b"\n")
                peer.close()
            else:
                self._held.append(peer)

    def stop(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.connect(self._socket.getsockname())
        self._thread.join()
        self._socket.close()
        for peer in self._held:
            peer.close()


@pytest.fixture
def short_runtime(job, monkeypatch) -> Iterator[Path]:
    """A runtime folder whose path fits a unix socket, for job and test alike."""
    with tempfile.TemporaryDirectory(prefix="rt") as folder:
        job.env |= {"XDG_RUNTIME_DIR": folder, "RUNTIDE_MODE": "online", "RUNTIDE_AGENT": "external"}
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield layout.runtime_folder(job.root) / "agent.sock"


@pytest.fixture
def agent(short_runtime) -> Iterator[Callable[[Callable[[dict[str, Any]], dict[str, Any]]], ScriptedAgent]]:
    made: list[ScriptedAgent] = []

    def make(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> ScriptedAgent:
        made.append(ScriptedAgent(short_runtime, answer))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def gateway(**answer: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda request: {"ok": True, **(answer if request["op"] == "preflight" else {})}


def test_the_attempt_comes_from_the_gateway(job, agent):
    scripted = agent(gateway(reachable=True, run_exists=True, run_state="running", attempt=4, last_step=41))
    job.run(
        """
import runtide
run = runtide.init("p", run_id="r", resume="allow", url="grpc://gw:1", token="tok", mode="online")
assert run.attempt == 4, run.attempt
run.log({"a": 1})
run.finish(timeout=0.1)
"""
    )
    asked = next(request for request in scripted.asked if request["op"] == "preflight")
    assert (asked["project"], asked["run_id"], asked["url"], asked["token"]) == ("p", "r", "grpc://gw:1", "tok")
    assert job.stream().steps() == [(42, {"a": 1})]
    assert asked["launch_id"] == job.stream().info.launch_id
    assert (job.stream().info.url, job.stream().info.token) == ("grpc://gw:1", "tok")
    assert any(request["op"] == "flush" and request["stream"] == job.stream().info.stream for request in scripted.asked)


def test_finish_waits_until_all_is_acknowledged(job, agent):
    job.root.mkdir()

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if request["op"] == "flush":
            folder = next(job.root.glob(f"*/{request['stream']}"))
            end = sum(path.stat().st_size for _, path in layout.segments(folder))
            Position(acknowledged=end, stored=end).write(folder)
        return {"ok": True, "reachable": True}

    agent(answer)
    done = job.run("""
import runtide
run = runtide.init("p")
run.log({"a": 1, "b": 2})
run.finish()
found = run.stats()
assert found.written == found.acknowledged == found.stored, found
assert found.written.points == 2
assert run.wait_stored(1)
""")
    assert "still local" not in done.stderr


@pytest.mark.parametrize(
    "answer", [gateway(reachable=False, error="refused"), gateway(reachable=True, error="token unknown")]
)
def test_finish_returns_at_once_where_no_gateway_takes_it(job, agent, answer):
    agent(answer)
    done = job.run("""
import time, runtide
run = runtide.init("p")
for _ in range(3):
    run.log({"a": 1, "b": 2})
began = time.monotonic()
run.finish(timeout=30)
assert time.monotonic() - began < 5
""")
    assert "6 points still local" in done.stderr
    assert "runtide sync" in done.stderr


def test_an_agent_that_never_answers_holds_nobody_up(job, agent):
    agent(lambda request: SILENT)
    began = time.monotonic()
    job.run("""
import time, runtide
began = time.monotonic()
run = runtide.init("p", run_id="r")
taken = time.monotonic() - began
assert taken < 3.5, taken
run.log({"a": 1})
assert not run.wait_stored(0.2)
run.finish(timeout=1)
""")
    assert time.monotonic() - began < 15
    assert job.stream().steps() == [(0, {"a": 1})]


def test_stats_tell_how_far_each_stage_is(job, short_runtime):
    job.run("""
import runtide
from runtide.spool.layout import Position
run = runtide.init("p", mode="offline", capture_console=False)
run.log({"a": 1, "b": 2})
middle = run.stats().written
run.log({"a": 1, "b": 2})
Position(acknowledged=middle.bytes, stored=0, error="gateway away").write(next(run.dir.glob(f"*/{run.stream}")))
found = run.stats()
assert found.acknowledged == found.shipped == middle
assert found.stored.records == 0
assert found.written.points == 4
assert found.error == "gateway away"
""")


def test_with_an_external_agent_none_is_started(job, short_runtime):
    job.run('import runtide; r = runtide.init("p", run_id="r"); r.log({"a": 1}); r.finish(timeout=0.2)')
    (host,) = job.root.iterdir()
    assert not (host / "agent.log").exists()


def test_what_the_agent_is_still_sending_is_not_called_out_of_reach(job, agent):
    agent(gateway(reachable=True))
    done = job.run(
        """
import os, signal, runtide
run = runtide.init("p")
run.log({"a": 1})
os.kill(os.getpid(), signal.SIGTERM)
""",
        code=-15,
    )
    assert "1 point not confirmed yet" in done.stderr
    assert "reachable" not in done.stderr


def test_points_are_counted_in_words(job, agent):
    agent(gateway(reachable=False, error="refused"))
    done = job.run('import runtide; r = runtide.init("p"); r.log({"a": 1}); r.finish()')
    assert "1 point still local" in done.stderr
