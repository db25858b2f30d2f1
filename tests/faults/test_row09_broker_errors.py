"""Row 9 of docs/reliability.md: brokers change their roles and say no, and everything is stored once.

From the publisher of a gateway over librdkafka's mock cluster of three to a sink and a real engine; counted in the base
tables, without FINAL. What the publisher could not say to be stored is published again, as the agent would have it.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pytest
from runtide.bus import Message
from runtide.bus.kafka import KafkaConsumer, KafkaPublisher, KafkaSettings
from runtide.sink.sink import Sink, SinkSettings
from runtide.testing import mock_kafka
from runtide.testing.embedded import EmbeddedClickHouse
from runtide.testing.mock_kafka import PRODUCE, MockKafka
from runtide.testing.streams import varied_stream
from runtide.testing.waiting import until_async
from runtide.warehouse.client import ClickHouseSettings, Client
from runtide.warehouse.verify import verify_run
from runtide.wire.errors import Unavailable

pytestmark = pytest.mark.fault(9)

BROKERS = 3
PARTITIONS = 4


@pytest.fixture
def mock() -> Iterator[MockKafka]:
    with MockKafka(BROKERS) as cluster:
        yield cluster


@pytest.fixture
def settings(mock: MockKafka) -> KafkaSettings:
    chosen = KafkaSettings(mock.bootstrap, f"t{uuid.uuid4().hex}", send_timeout_s=10, group=uuid.uuid4().hex)
    mock.create_topic(chosen.records_topic, PARTITIONS)
    return chosen


@dataclass
class Path:
    """From a gateway's bus to the store."""

    publisher: KafkaPublisher
    again: int = 0
    """Messages that had to be published again."""

    async def publish(self, message: Message) -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    return await self.publisher.publish(message)
                except Unavailable:
                    self.again += 1
                    await asyncio.sleep(0.05)


@asynccontextmanager
async def path(settings: KafkaSettings, server: EmbeddedClickHouse) -> AsyncIterator[Path]:
    consumer = KafkaConsumer(settings)
    store = ClickHouseSettings(server.host, server.port, "writer", server.password)
    sink = Sink(consumer, store, SinkSettings(backoff_s=(0.02, 0.1)))
    running = asyncio.create_task(sink.run())
    publisher = KafkaPublisher(settings)
    try:
        yield Path(publisher)
    finally:
        await publisher.close()
        sink.stop()
        await running
        await consumer.close()


def move_leaders(mock: MockKafka, settings: KafkaSettings, turn: int) -> None:
    for number in range(PARTITIONS):
        mock.move_leader(settings.records_topic, number, (number + turn) % BROKERS + 1)


def move_coordinator(mock: MockKafka, settings: KafkaSettings, turn: int) -> None:
    mock.move_coordinator(settings.group, turn % BROKERS + 1)


def say_no(code: int, mock: MockKafka, settings: KafkaSettings, turn: int) -> None:
    mock.push_errors(PRODUCE, [code] * 2)


def be_slow(mock: MockKafka, settings: KafkaSettings, turn: int) -> None:
    mock.set_round_trip(2000 if turn == 0 else 0)


CODES = {
    "not leader": mock_kafka.NOT_LEADER,
    "timed out": mock_kafka.REQUEST_TIMED_OUT,
    "not enough replicas": mock_kafka.NOT_ENOUGH_REPLICAS,
    "not enough replicas after append": mock_kafka.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    "out of order sequence": mock_kafka.OUT_OF_ORDER_SEQUENCE,
}
FAULTS: dict[str, Callable[[MockKafka, KafkaSettings, int], None]] = {
    "leaders move": move_leaders,
    "the coordinator moves": move_coordinator,
    "two seconds late": be_slow,
    **{name: partial(say_no, code) for name, code in CODES.items()},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_the_brokers_say_all_is_stored_once(
    mock: MockKafka, settings: KafkaSettings, embedded_clickhouse: EmbeddedClickHouse, client: Client, fault: str
) -> None:
    made = varied_stream("s", 40, run_id=fault)
    edges = made.edges
    cuts = [edges[place * (len(edges) - 1) // 7] for place in range(8)]

    async def run() -> int:
        async with path(settings, embedded_clickhouse) as way:
            for turn, (start, end) in enumerate(itertools.pairwise(cuts)):
                if 0 < turn < 4:
                    FAULTS[fault](mock, settings, turn - 1)
                await way.publish(made.message(made.range(start, end)))
            await until_async(lambda: mark(client, fault) == len(made.body), 60, "all is stored")
            return way.again

    again = asyncio.run(run())
    found = verify_run(client, made.project, fault)
    assert found.clean, found.problems
    assert (found.duplicates, found.streams[0].ledger_mark) == (0, len(made.body))
    assert again >= (fault == "out of order sequence")  # that producer cannot go on


def mark(client: Client, run: str) -> int:
    rows = client.query("SELECT max(mark) FROM runtide.ledger WHERE run_id = {r:String}", parameters={"r": run})
    return int(rows.result_rows[0][0])
