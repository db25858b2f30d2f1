"""The sink's loop between a bus and a real engine."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import pytest
from runtide.bus import Message
from runtide.bus.local import LocalBus
from runtide.sink.sink import Sink, SinkSettings
from runtide.testing.embedded import EmbeddedClickHouse
from runtide.testing.streams import MadeStream, varied_stream
from runtide.warehouse.client import ClickHouseSettings, Client, connect
from runtide.warehouse.errors import StoreMisconfigured
from runtide.warehouse.verify import verify_run
from runtide.wire.errors import BadInput
from runtide.wire.hints import Hint

DEADLINE_S = 60


@pytest.fixture(scope="module")
def server(embedded_clickhouse: EmbeddedClickHouse, client: Client) -> EmbeddedClickHouse:
    """With its tables."""
    return embedded_clickhouse


def settings_of(server: EmbeddedClickHouse) -> ClickHouseSettings:
    return ClickHouseSettings(server.host, server.port, "writer", server.password)


async def publish(bus: LocalBus, messages: Sequence[Message]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*(bus.publisher.publish(message) for message in messages))


def test_what_publish_returned_for_is_stored_and_told(server: EmbeddedClickHouse) -> None:
    streams = [varied_stream(f"s{rank}", run_id="loop", rank=rank) for rank in range(5)]
    heard: list[Hint] = []

    async def run() -> None:
        bus = LocalBus()
        sink = Sink(bus.consumer, settings_of(server), SinkSettings(retention_days=9000), heard.extend)
        task = asyncio.create_task(sink.run())
        dice = random.Random(1)
        await publish(bus, [made.message(part) for made in streams for part in made.cut(dice, 6)])
        client = connect(settings_of(server))
        found = verify_run(client, "p", "loop")
        assert found.clean, found.problems
        assert found.stored_points == sum(made.points for made in streams) - 4 * len(streams)
        assert sink.stats.points == found.stored_points
        days = client.query("SELECT DISTINCT days FROM runtide.points WHERE run_id = 'loop'").result_rows
        assert days[0][0] >= 9000, "from when they are stored"
        sink.stop()
        await task

    asyncio.run(run())
    ends = {hint.stream: hint.end for hint in sorted(heard, key=lambda hint: hint.end)}
    assert ends == {made.stream: len(made.body) for made in streams}


def test_at_light_load_a_range_is_stored_at_once(server: EmbeddedClickHouse) -> None:
    made = MadeStream("s", run_id="light").open().key_set(1, "a").steps(1, range(12))
    edges = made.edges

    async def run() -> list[float]:
        bus = LocalBus()
        sink = Sink(bus.consumer, settings_of(server))
        task = asyncio.create_task(sink.run())
        took = []
        for start, end in itertools.pairwise(edges):
            began = time.monotonic()
            await publish(bus, [made.message(made.range(start, end))])
            took.append(time.monotonic() - began)
        sink.stop()
        await task
        return took

    took = sorted(asyncio.run(run()))
    assert took[len(took) // 2] < 1.0  # a shared machine; alone it is a tenth of that


def test_a_retention_that_rows_cannot_say_is_refused() -> None:
    with pytest.raises(BadInput, match="retention_days is 70000, but 0 to 65535"):
        SinkSettings(retention_days=70_000)


def test_a_sink_whose_table_is_gone_ends_and_says_so(server: EmbeddedClickHouse) -> None:
    client = connect(settings_of(server))
    away = varied_stream("s", run_id="away")

    async def run() -> None:
        bus = LocalBus()
        sink = Sink(bus.consumer, settings_of(server), SinkSettings(backoff_s=(0.01, 0.05)))
        task = asyncio.create_task(sink.run())
        await publish(bus, [varied_stream("t", run_id="there").message(varied_stream("t").range())])
        client.command("DETACH TABLE runtide.ledger")
        with pytest.raises(StoreMisconfigured):
            await asyncio.gather(task, publish(bus, [away.message(away.range())]))
        client.command("ATTACH TABLE runtide.ledger")

    asyncio.run(run())


class Rebalanced:
    """A consumer whose partitions change: what was polled and not committed comes again."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = list(messages)
        self._at = self._committed = self.polls = 0
        self.epoch = 1
        self.stopped: Sequence[str] = ()
        self.done = asyncio.Event()

    async def poll(self, wait_s: float) -> Sequence[Message]:
        self.polls += 1
        if self.polls in (3, 6):
            self.epoch += 1
            self._at = self._committed
            return []
        found = self._messages[self._at : self._at + 2]
        self._at += len(found)
        if not found:
            await asyncio.sleep(wait_s)
        return found

    async def commit(self, messages: Sequence[Message]) -> None:
        self._committed = max(self._committed, max(message.position for message in messages) + 1)
        if self._committed == len(self._messages):
            self.done.set()

    def hold(self, epoch: int) -> AbstractContextManager[bool]:
        return nullcontext(epoch == self.epoch)

    async def close(self) -> None:
        """Nothing to leave."""


@pytest.mark.fault(17)
def test_after_a_rebalance_everything_is_stored_once(server: EmbeddedClickHouse) -> None:
    made = varied_stream("s", run_id="rebalanced")
    parts = made.cut(random.Random(5), 20)
    messages = []
    for position, part in enumerate(parts):
        plain = made.message(part)
        messages.append(replace(plain, position=position))
    consumer = Rebalanced(messages)

    async def run() -> None:
        sink = Sink(consumer, settings_of(server), SinkSettings(least_interval_s=0.001))
        task = asyncio.create_task(sink.run())
        await asyncio.wait_for(consumer.done.wait(), DEADLINE_S)
        sink.stop()
        await task

    asyncio.run(run())
    found = verify_run(connect(settings_of(server)), "p", "rebalanced")
    assert found.clean, found.problems
