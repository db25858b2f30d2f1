"""Row 17 of docs/reliability.md: a sink that others take for dead wakes up, and partitions change hands under load."""

from __future__ import annotations

import asyncio
import os
import time
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
@pytest.mark.parametrize("point", ["sink.planned", "sink.inserted"])
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


@pytest.mark.kafka
@pytest.mark.slow
def test_sinks_come_and_go_under_load(sinks: Sinks) -> None:
    """One, then four, then one again; every partition goes on within 30 s of each change."""
    sinks.stop_merges()
    members = [sinks.start()]
    sinks.wait_shared(*members)
    sinks.load.start()
    sinks.wait_later(sinks.steps())
    longest = 0.0
    for change in (3, -1, -2):
        began = time.monotonic()
        before = sinks.steps()
        if change > 0:
            members += [sinks.start() for _ in range(change)]
        for _ in range(-change):
            assert members.pop(0).stop() == 0
        sinks.wait_shared(*members)
        sinks.wait_later(before, seconds=30)
        sinks.wait_later(sinks.steps(), seconds=30 - (time.monotonic() - began))
        longest = max(longest, time.monotonic() - began)
    assert longest < 30
    sinks.check()
