"""Row 28 of docs/reliability.md: every part of Kafka mode is stopped and started again under load.

Of each kind one after the other, twice, as an upgrade would and the next one. Nobody who logs notices: no warning,
nothing dropped, nothing lost or twice.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from runtide.bus.kafka import ensure_topics
from runtide.testing.kafka_stack import KafkaStack, home_of
from runtide.testing.waiting import until

pytestmark = [pytest.mark.fault(28), pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(300)]

STOP_S = 20.0
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING

JOB = """
    import dataclasses, os, sys, time, runtide
    os.dup2(os.open(sys.argv[1] + ".err", os.O_WRONLY | os.O_CREAT), 2)
    run = runtide.init("rolling")
    step = 0
    while not os.path.exists(sys.argv[2]):
        run.log({"a": float(step), "b": -float(step)}, step=step)
        step += 1
        time.sleep(0.005)
    stored = run.wait_stored(60)
    stats = run.stats()
    run.finish()
    print(step, int(stored), stats.dropped.records, stats.refused, repr(stats.error))
"""


@pytest.fixture
def stack(tmp_path: Path, require: Callable[[object, str], None]) -> Iterator[KafkaStack]:
    """On a real Kafka: the mock cluster does not hand out partitions to more than one member."""
    bootstrap = os.environ.get("RUNTIDE_TEST_KAFKA", "")
    require(bootstrap, "RUNTIDE_TEST_KAFKA does not name a real Kafka")
    made = KafkaStack(home_of(tmp_path), bootstrap=bootstrap)
    made.told = {"RUNTIDE_KAFKA_GROUP": made.prefix}
    asyncio.run(ensure_topics(made.settings()))
    yield made
    made.end()


@contextmanager
def health_of(port: int) -> Iterator[list[int]]:
    """What a gateway says of itself, until it is gone."""
    said: list[int] = []

    def watch() -> None:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            try:
                said.extend(answer.status for answer in health.Watch(health_pb2.HealthCheckRequest()))
            except grpc.RpcError:
                return

    thread = threading.Thread(target=watch, name="health")
    thread.start()
    until(lambda: said, 10, "it says how it is")
    yield said
    thread.join(STOP_S)
    assert not thread.is_alive()


def stopped(process: subprocess.Popen[bytes]) -> float:
    """Stop in order, and say how long it took."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(STOP_S) == 0
    return time.monotonic() - began


def restart(stack: KafkaStack, name: str, number: int) -> float:
    process = stack.parts[name][number]
    if name == "gateway":
        with health_of(stack.gateways[number]) as said:
            took = stopped(process)
        assert said == [SERVING, NOT_SERVING]
    else:
        took = stopped(process)
    stack.again(name, number)
    if name == "gateway":
        until(lambda: is_serving(stack.gateways[number]), 60, f"it serves again\n{stack.logs()}")
    return took


def is_serving(port: int) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        try:
            return bool(health.Check(health_pb2.HealthCheckRequest(), timeout=2).status == SERVING)
        except grpc.RpcError:
            return False


def stored(stack: KafkaStack) -> dict[str, int]:
    return dict(stack.sql("SELECT run_id, count() FROM points GROUP BY run_id"))


def goes_on(stack: KafkaStack) -> None:
    """Rows of every run come."""
    before = stored(stack)
    until(lambda: all(count > before[run] for run, count in stored(stack).items()), 40, f"all go on\n{stack.logs()}")


def test_every_part_is_restarted_twice_and_nobody_notices(stack: KafkaStack, tmp_path: Path) -> None:
    stack.start_all()
    enough = tmp_path / "enough"
    runs = [f"r{number}" for number in range(2)]
    jobs = [
        stack.job(
            *(JOB, str(tmp_path / run), str(enough)),
            RUNTIDE_RUN_ID=run,
            RUNTIDE_URL=f"grpc://127.0.0.1:{stack.gateways[number]}",
            RUNTIDE_SILENT="",
        )
        for number, run in enumerate(runs)
    ]
    until(lambda: len(stored(stack)) == len(runs), 40, f"all runs\n{stack.logs()}")
    for _ in range(2):
        for number in range(2):
            with ThreadPoolExecutor() as threads:
                took = threads.map(restart, [stack] * 3, ("gateway", "sink", "processor"), [number] * 3)
                assert max(took) < STOP_S
        goes_on(stack)
    enough.touch()
    steps = {}
    for run, job in zip(runs, jobs, strict=True):
        said, _ = job.communicate(timeout=90)
        assert job.returncode == 0
        steps[run], *troubles = said.split()
        assert troubles == ["1", "0", "0", "''"]
        assert (tmp_path / f"{run}.err").read_text().count("\n") == 1, "one line, of the start, and no warning"
    stack.wait_agent(60)
    for run in runs:
        stack.wait_state(run, "finished", 60)
        code, found = stack.verify(run)
        assert code == 0, found["problems"]
        assert found["stored_points"] == found["declared_points"] == 2 * int(steps[run])
        count = stack.sql(f"SELECT count(), uniqExact(metric, step) FROM points WHERE run_id = '{run}'")
        assert count == [(2 * int(steps[run]),) * 2]
    assert stack.sql("SELECT count() FROM dead_letters") == [(0,)]
