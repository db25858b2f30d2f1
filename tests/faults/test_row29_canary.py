"""Row 29 of docs/reliability.md: the canary says how long the way takes, and soon that something is gone."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.request
from collections.abc import Iterator

import pytest
from runtide.cli.supervisor import trouble_of
from runtide.testing.stack import Stack
from runtide.testing.waiting import until
from runtide.wire import canary as words

pytestmark = pytest.mark.fault(29)

JOB = """
    import runtide
    with runtide.init("real", run_id="beside") as run:
        run.log({"loss": 1.0})
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with a canary of one beat a second that has come once. The last test leaves it in disagreement."""
    stack = Stack(tmp_path_factory.mktemp("canary") / "home", told={"RUNTIDE_CANARY_INTERVAL_S": "1"})
    stack.up("--no-dashboard", "--canary", "--canary-port", "0")
    until(lambda: metric(stack, "well") == 1, 30, "a beat has come")
    yield stack
    stack.end()


def metric(stack: Stack, name: str) -> float:
    """A value of the canary's /metrics; 0 while it is not served."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{stack.state.ports.canary}/metrics", timeout=5) as reply:
            found = re.search(rf"^runtide_canary_{re.escape(name)} (\S+)$", reply.read().decode(), re.MULTILINE)
    except OSError:
        return 0.0
    return float(found[1]) if found else 0.0


def status(stack: Stack) -> tuple[int, dict[str, object]]:
    found = stack.runtide("status", "--json")
    return found.returncode, json.loads(found.stdout)["canary"]


def alarms(stack: Stack) -> str:
    return (stack.home / "logs" / "canary.log").read_text()


def test_it_is_a_run_apart_that_a_kill_does_not_confuse(watched: Stack) -> None:
    killed = watched.state.parts["canary"].pid
    os.kill(killed, signal.SIGKILL)
    until(lambda: watched.state.parts["canary"].pid not in {killed, 0}, 20, "it was started again")
    until(lambda: metric(watched, 'beats_total{became="came"}') >= 3, 30, "it beats again")
    assert metric(watched, "well") == 1
    assert "alarm" not in alarms(watched)
    assert watched.sql(f"SELECT uniqExact(stream) FROM points WHERE project = '{words.PROJECT}'") == [(2,)]
    assert watched.sql(f"SELECT DISTINCT days FROM points WHERE project = '{words.PROJECT}'") == [(words.DAYS,)]
    watched.run_job(JOB)
    watched.wait_state("beside", "finished")
    listed = json.loads(watched.runtide("runs", "--json").stdout)
    assert [row["project"] for row in listed] == ["real"]
    asked = json.loads(watched.runtide("runs", "--project", words.PROJECT, "--json").stdout)
    assert [row["state"] for row in asked] == ["running"]
    code, found = watched.verify(asked[0]["run_id"])
    assert code == 0, found["problems"]


@pytest.mark.slow
def test_a_way_that_is_stuck_is_said_and_so_is_its_end(watched: Stack) -> None:
    ingest = watched.state.parts["ingest"].pid
    os.kill(ingest, signal.SIGSTOP)
    try:
        until(lambda: "has not come after" in alarms(watched), words.patience_s(1) + 15, "the alarm")
        assert metric(watched, "well") == 0
        code, seen = status(watched)
        assert code == 3
        assert seen["agrees"] is True  # nothing is gone, it is late
    finally:
        os.kill(ingest, signal.SIGCONT)
    until(lambda: metric(watched, "well") == 1, 20, "it is well again")
    assert status(watched)[1]["agrees"] is True


def test_what_is_gone_is_said_by_metrics_status_and_log(watched: Stack) -> None:
    code, seen = status(watched)
    assert (code, seen["agrees"], seen["trouble"]) == (0, True, "")
    assert 0 < float(str(seen["delay_s"])) < 10
    assert 0 < metric(watched, "delay_seconds") < 10
    assert metric(watched, 'day_points{became="lost"}') == 0

    beats = metric(watched, 'beats_total{became="came"}')
    until(lambda: metric(watched, 'beats_total{became="came"}') >= beats + 3, 20, "three more")
    watched.change(f"DELETE FROM runtide.points WHERE metric = '{words.BEAT}' AND value = {beats + 1:g}")
    until(lambda: metric(watched, "agrees") == 0, 10, "it disagrees")
    assert metric(watched, "well") == 0
    assert metric(watched, 'day_points{became="lost"}') == 2  # a beat is logged twice
    assert "canary alarm trouble=2 of its" in alarms(watched)
    assert "neither stored nor declared" in trouble_of(f"http://127.0.0.1:{watched.state.ports.canary}/readyz")
    code, seen = status(watched)
    assert (code, seen["agrees"], seen["lost"]) == (3, False, 2)
    assert "2 of its" in str(seen["trouble"])
