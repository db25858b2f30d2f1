"""ClickHouse is away: the sink waits, commits nothing and goes on by itself."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from runtide.bus import Message
from runtide.bus.local import LocalBus
from runtide.sink.sink import Sink, SinkSettings
from runtide.testing.embedded import EmbeddedClickHouse, start_embedded, stop_embedded
from runtide.testing.streams import varied_stream
from runtide.warehouse.client import ClickHouseSettings, connect
from runtide.warehouse.migrate import migrate
from runtide.warehouse.verify import verify_run

DEADLINE_S = 60

pytestmark = pytest.mark.fault(18)


def settings_of(server: EmbeddedClickHouse) -> ClickHouseSettings:
    return ClickHouseSettings(server.host, server.port, "writer", server.password)


async def publish(bus: LocalBus, messages: Sequence[Message]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*(bus.publisher.publish(message) for message in messages))


def test_the_store_dies_in_the_middle_and_comes_back(tmp_path: Path) -> None:
    streams = [varied_stream(f"s{rank}", 200, run_id="killed", rank=rank) for rank in range(3)]
    server = start_embedded(tmp_path)
    migrate(connect(settings_of(server)))

    async def run() -> None:
        nonlocal server
        bus = LocalBus()
        sink = Sink(bus.consumer, settings_of(server), SinkSettings(backoff_s=(0.05, 0.2)))
        task = asyncio.create_task(sink.run())
        dice = random.Random(7)
        messages = [made.message(part) for made in streams for part in made.cut(dice, 40)]
        await publish(bus, messages[:30])
        rest = asyncio.create_task(publish(bus, messages[30:]))
        await asyncio.to_thread(server.kill)
        server = await asyncio.to_thread(start_embedded, tmp_path, server.port)
        await rest
        sink.stop()
        await task

    try:
        asyncio.run(run())
        found = verify_run(connect(settings_of(server)), "p", "killed")
        assert found.clean, found.problems
        assert found.duplicates == 0
    finally:
        stop_embedded(server)


def test_a_sink_that_starts_before_its_store_waits_for_it(tmp_path: Path) -> None:
    made = varied_stream("s", run_id="early")
    server = start_embedded(tmp_path)
    migrate(connect(settings_of(server)))
    server.kill()

    async def run() -> None:
        nonlocal server
        bus = LocalBus()
        sink = Sink(bus.consumer, settings_of(server), SinkSettings(backoff_s=(0.01, 0.05)))
        task = asyncio.create_task(sink.run())
        published = asyncio.create_task(publish(bus, [made.message(made.range())]))
        server = await asyncio.to_thread(start_embedded, tmp_path, server.port)
        await published
        sink.stop()
        await task

    try:
        asyncio.run(run())
        assert verify_run(connect(settings_of(server)), "p", "early").clean
    finally:
        stop_embedded(server)


def test_the_sink_can_be_stopped_while_the_store_is_away(tmp_path: Path) -> None:
    made = varied_stream("s", run_id="away")
    server = start_embedded(tmp_path)
    migrate(connect(settings_of(server)))

    async def run() -> None:
        bus = LocalBus()
        sink = Sink(bus.consumer, settings_of(server), SinkSettings(backoff_s=(0.01, 0.05)))
        task = asyncio.create_task(sink.run())
        edges = made.edges
        await publish(bus, [made.message(made.range(0, edges[5]))])
        await asyncio.to_thread(server.kill)
        lost = asyncio.create_task(bus.publisher.publish(made.message(made.range(edges[5]))))
        async with asyncio.timeout(DEADLINE_S):
            while not sink.stats.retries:  # noqa: ASYNC110  counters tell nobody when they grow
                await asyncio.sleep(0.01)
        sink.stop()
        await asyncio.wait_for(task, DEADLINE_S)
        assert not lost.done()
        lost.cancel()

    asyncio.run(run())
