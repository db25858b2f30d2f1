"""The life of `runtide up`: a job logs, rows are there, a fault is named, and nothing is left."""

import json
import os
import signal
import urllib.request
from typing import Any

import psutil
import pytest
from runtide.cli.ports import free_port, is_free
from runtide.testing.stack import Stack, left_of
from runtide.testing.waiting import until

JOB = """
    import runtide
    with runtide.init("life", name="first", config={"lr": 0.1}) as run:
        for step in range(100):
            run.log({"loss": 1 / (step + 1), "acc": step / 100})
        print(run.id, flush=True)
"""


def test_a_day_in_the_life(stack: Stack) -> None:
    stack.up()
    state = stack.state
    ports = state.ports
    assert ports.dashboard is not None
    for url in (
        f"http://127.0.0.1:{ports.metrics}/healthz",
        f"http://127.0.0.1:{ports.clickhouse}/ping",
        f"http://127.0.0.1:{ports.dashboard}/_stcore/health",
    ):
        with urllib.request.urlopen(url, timeout=5) as reply:
            assert reply.status == 200
    again = stack.runtide("up")
    assert again.returncode == 1
    assert f"already up in {stack.home} (pid {state.pid})" in again.stderr

    run = stack.run_job(JOB).strip()
    until(lambda: stack.sql("SELECT count() FROM metrics") == [(200,)], 10, "200 points")
    stack.wait_state(run, "finished")
    stack.wait_agent()
    code, found = stack.verify(run)
    assert code == 0, found["problems"]
    assert (found["declared_points"], found["stored_points"], found["duplicates"]) == (200, 200, 0)

    listed = json.loads(stack.runtide("runs", "--json").stdout)
    assert [(row["run_id"], row["name"], row["config"]) for row in listed] == [(run, "first", {"lr": 0.1})]
    shown = json.loads(stack.runtide("show", "first", "--json").stdout)
    assert {row["metric"]: row["count"] for row in shown["metrics"]} == {"acc": 100, "loss": 100}
    assert "step 99" in stack.runtide("tail", run).stdout
    assert stack.runtide("sql", "--csv", "SELECT max(step) AS s FROM metrics").stdout == '"s"\n99\n'
    wrong = stack.runtide("sql", "SELEC 1")
    assert wrong.returncode == 1
    assert "code 62, SYNTAX_ERROR" in wrong.stderr
    status = json.loads(stack.runtide("status", "--json").stdout)
    assert status["up"]
    assert status["ready"]
    assert status["rows"]["points"] == 200
    assert status["lag"]["unshipped_bytes"] == 0

    stack.change("ALTER TABLE runtide.points DELETE WHERE step = 41 AND metric = 'loss' SETTINGS mutations_sync = 2")
    code, found = stack.verify(run)
    assert code == 1
    assert any("step 41" in problem and "loss" in problem for problem in found["problems"]), found["problems"]

    assert stack.runtide("down").returncode == 0
    assert left_of(stack.home) == []
    for port in (ports.gateway, ports.metrics, ports.clickhouse, ports.dashboard):
        assert is_free(port)
    assert not any(psutil.pid_exists(part.pid) for part in state.parts.values())
    assert json.loads(stack.runtide("status", "--json").stdout)["up"] is False
    assert "nothing runs" in stack.runtide("down").stdout


def test_what_was_logged_before_it_was_up_arrives_later(stack: Stack) -> None:
    port = free_port()
    run = stack.run_job(JOB, RUNTIDE_URL=f"grpc://127.0.0.1:{port}").strip()
    found = stack.runtide(
        *("up", "--detach", "--no-dashboard", "--gateway-port", str(port)),
        *("--clickhouse-port", "0", "--metrics-port", "0"),
    )
    assert found.returncode == 0, found.stderr
    assert stack.state.ports.dashboard is None
    stack.wait_state(run, "finished", 60)
    stack.wait_agent(60)
    code, verified = stack.verify(run)
    assert code == 0, verified["problems"]
    assert verified["stored_points"] == 200


def test_a_taken_port_is_said_with_its_flag(stack: Stack) -> None:
    import socket

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        found = stack.runtide(
            *("up", "--detach", "--no-dashboard", "--gateway-port", "0", "--metrics-port", "0"),
            *("--clickhouse-port", str(port)),
        )
    assert found.returncode == 1
    assert f"port {port}" in found.stderr
    assert "--clickhouse-port" in found.stderr
    assert left_of(stack.home) == []


def test_a_killed_supervisor_leaves_no_orphans_and_up_comes_back(stack: Stack) -> None:
    stack.up("--no-dashboard")
    run = stack.run_job(JOB).strip()
    stack.wait_state(run, "finished")
    stack.wait_agent()
    state = stack.state
    os.kill(state.pid, signal.SIGKILL)
    until(lambda: not any(part.alive for part in state.parts.values()), 20, "the parts ended by themselves")
    stack.up("--no-dashboard")
    assert stack.verify(run)[0] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly(stack: Stack, number: signal.Signals) -> None:
    stack.up("--no-dashboard")
    state: Any = stack.state
    os.kill(state.pid, number)
    until(lambda: left_of(stack.home) == [], 12, "everything ended")
    log = (stack.home / "logs" / "up.log").read_text()
    assert log.rstrip().endswith("runtide is down")
