"""Row 17 of docs/reliability.md: a sink that others take for dead wakes up, and partitions change hands under load."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runtide.bus.kafka import ensure_topics
from runtide.testing.embedded import EmbeddedClickHouse
from runtide.testing.waiting import until
from runtide.warehouse.client import Client

from tests.faults.sinks_on_kafka import Sinks

pytestmark = pytest.mark.fault(17)


@pytest.fixture
def sinks(
    tmp_path: Path, embedded_clickhouse: EmbeddedClickHouse, client: Client, require: Callable[[object, str], None]
) -> Iterator[Sinks]:
    """On a real Kafka: the mock cluster does not hand out partitions to more than one member."""
    bootstrap = os.environ.get("RUNTIDE_TEST_KAFKA", "")
    require(bootstrap, "RUNTIDE_TEST_KAFKA does not name a real Kafka")
    made = Sinks(bootstrap, embedded_clickhouse, client, tmp_path)
    asyncio.run(ensure_topics(made.settings))
    yield made
    made.end()


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.parametrize("point", ["sink.polled", "sink.planned", "sink.inserted", "sink.stored"])
def test_a_sink_that_wakes_up_late_stores_nothing_twice(sinks: Sinks, tmp_path: Path, point: str) -> None:
    sinks.stop_merges()
    told = {
        "RUNTIDE_CRASH_POINT": point,
        "RUNTIDE_CRASH_AFTER": "8",
        "RUNTIDE_CRASH_SIGNAL": "SIGSTOP",
        "RUNTIDE_CRASH_MARK": str(tmp_path / "frozen"),
    }
    members = [sinks.start(**told), sinks.start(**told)]
    sinks.wait_shared(*members)
    sinks.load.start()
    (frozen,) = until(lambda: [each for each in members if each.is_frozen], 30, f"one is frozen\n{sinks.logs()}")
    sinks.wait_later(sinks.steps(), 50)  # the other has taken everything over
    frozen.wake()
    before = frozen.records
    sinks.wait_shared(*members)
    until(lambda: frozen.records > before, 30, f"it is a good member again\n{sinks.logs()}")
    sinks.check()
