"""The whole path through Kafka: two of each part, each started by its own command."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runtide.bus.kafka import ensure_topics
from runtide.testing.kafka_stack import KafkaStack, home_of
from runtide.testing.mock_kafka import MockKafka
from runtide.testing.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RANK = """
    import sys, time, runtide
    with runtide.init("ranks") as run:
        for step in range(int(sys.argv[1])):
            run.log({f"m{k}": step + k / 10 for k in range(10)}, step=step)
            time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(params=["mock", pytest.param("real", marks=pytest.mark.kafka)])
def stack(
    request: pytest.FixtureRequest, tmp_path: Path, require: Callable[[object, str], None]
) -> Iterator[KafkaStack]:
    if request.param == "real":
        bootstrap = os.environ.get("RUNTIDE_TEST_KAFKA", "")
        require(bootstrap, "RUNTIDE_TEST_KAFKA does not name a real Kafka")
        made = KafkaStack(home_of(tmp_path), bootstrap=bootstrap)
        asyncio.run(ensure_topics(made.settings()))
        yield made
        made.end()
        return
    with MockKafka() as broker:
        made = KafkaStack(home_of(tmp_path), bootstrap=broker.bootstrap)
        settings = made.settings()
        for topic in (settings.records_topic, settings.changes_topic, settings.control_topic):
            broker.create_topic(topic, 4)
        yield made
        made.end()


def start_ranks(stack: KafkaStack, run: str, steps: int, pause: float = 0) -> None:
    for rank in range(8):
        stack.job(
            RANK,
            *(str(steps), str(pause)),
            RUNTIDE_URL=f"grpc://127.0.0.1:{stack.gateways[rank % 2]}",
            RUNTIDE_RUN_ID=run,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE="8",
        )


def wait_stored(stack: KafkaStack, run: str, points: int) -> None:
    for job in stack.jobs:
        assert job.wait(120) == 0
    stack.wait_agent(90)
    until(lambda: stored(stack, run) >= points, 90, f"{points} points\n{stack.logs()}")
    stack.wait_state(run, "finished", 60)


def stored(stack: KafkaStack, run: str) -> int:
    return int(stack.sql(f"SELECT count() FROM points WHERE run_id = '{run}'")[0][0])


def check(stack: KafkaStack, run: str, points: int) -> None:
    code, found = stack.verify(run)
    assert code == 0, found["problems"]
    assert found["stored_points"] == found["declared_points"] == points
    assert stack.sql(f"SELECT count(), uniqExact(rank, step, metric) FROM points WHERE run_id = '{run}'") == [
        (points, points)
    ]


def test_eight_processes_through_two_of_each_part(stack: KafkaStack) -> None:
    stack.start_all()
    start_ranks(stack, "eight", 2000)
    wait_stored(stack, "eight", 160_000)
    check(stack, "eight", 160_000)

    def derived() -> bool:
        found = stack.sql("SELECT count(), min(ranks), max(std) FROM step_stats WHERE run_id = 'eight'")
        return bool(found == [(20_000, 8, 0.0)])

    until(derived, 60, "step_stats over eight ranks")
    summary = stack.sql("SELECT count(), sum(count) FROM metric_summary WHERE run_id = 'eight' AND rank = -1")
    assert summary == [(10, 160_000)]
    stack.change(
        "ALTER TABLE runtide.points DELETE WHERE rank = 3 AND step = 1234 AND metric = 'm7' SETTINGS mutations_sync = 2"
    )
    code, found = stack.verify("eight")
    assert code == 1
    assert any("rank 3" in text and "step 1234" in text and "m7" in text for text in found["problems"])


@pytest.mark.fault(18)
def test_killing_a_gateway_a_sink_and_the_store_changes_nothing(stack: KafkaStack) -> None:
    stack.start_all()
    start_ranks(stack, "killed", 500, 0.02)
    until(lambda: stored(stack, "killed") > 2_000, 60, f"rows\n{stack.logs()}")

    gateway = stack.parts["gateway"][0]
    os.kill(gateway.pid, signal.SIGKILL)
    gateway.wait()
    stack.start_gateway(stack.gateways[0])

    sink = stack.parts["sink"][0]
    os.kill(sink.pid, signal.SIGKILL)
    sink.wait()
    stack.start("sink", **stack.writer())

    store = stack.parts["clickhouse"][0]
    os.kill(store.pid, signal.SIGKILL)
    store.wait()
    stack.start_store()

    wait_stored(stack, "killed", 40_000)
    check(stack, "killed", 40_000)
