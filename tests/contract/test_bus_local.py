"""The local bus alone: its bound, and that nothing but a commit counts as stored."""

from __future__ import annotations

import asyncio

import pytest
from runtide.bus import Message
from runtide.bus.local import LocalBus
from runtide.wire.errors import Busy, Unavailable


def message(size: int = 10) -> Message:
    return Message("p", b"k", bytes(size), 1)


async def started(bus: LocalBus, count: int, size: int = 10) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(bus.publisher.publish(message(size))) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


def test_a_full_bus_is_busy_and_has_room_after_a_commit() -> None:
    async def main() -> None:
        bus = LocalBus(max_bytes=100)
        tasks = await started(bus, 10)
        with pytest.raises(Busy, match="100") as busy:
            await bus.publisher.publish(message())
        assert 0 < busy.value.retry_after_s < 60
        polled = await bus.consumer.poll(1)
        with pytest.raises(Busy):  # polled is not stored
            await bus.publisher.publish(message())
        await bus.consumer.commit(polled[:3])
        assert bus.held_bytes == 70
        await asyncio.gather(*tasks[:3])
        assert not any(task.done() for task in tasks[3:])
        tasks += await started(bus, 3)
        await bus.consumer.commit(polled)
        await bus.consumer.commit(await bus.consumer.poll(1))
        await asyncio.gather(*tasks)
        assert bus.held_bytes == 0

    asyncio.run(main())


def test_a_message_larger_than_the_bus_passes_alone() -> None:
    async def main() -> None:
        bus = LocalBus(max_bytes=100)
        (task,) = await started(bus, 1, size=500)
        with pytest.raises(Busy):
            await bus.publisher.publish(message())
        await bus.consumer.commit(await bus.consumer.poll(1))
        await task

    asyncio.run(main())


def test_a_consumer_that_closes_stores_nothing() -> None:
    async def main() -> None:
        bus = LocalBus()
        tasks = await started(bus, 4)
        consumer = bus.consumer
        polled = await consumer.poll(1)
        await consumer.close()
        await consumer.commit(polled)
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
        with pytest.raises(Unavailable):
            await bus.publisher.publish(message())
        successor = bus.consumer
        assert successor.epoch > consumer.epoch
        tasks = await started(bus, 1)
        await successor.commit(await successor.poll(1))
        await asyncio.gather(*tasks)

    asyncio.run(main())


def test_a_commit_of_what_was_not_polled_resolves_nothing() -> None:
    async def main() -> None:
        bus = LocalBus()
        (first,) = await started(bus, 1)
        polled = await bus.consumer.poll(1)
        (second,) = await started(bus, 1)
        await bus.consumer.commit([*polled, Message("p", b"k", b"", 1, 0, 99)])
        await first
        assert not second.done()
        await bus.publisher.close()
        with pytest.raises(Unavailable):
            await second

    asyncio.run(main())


def test_a_poll_gives_each_message_once() -> None:
    async def main() -> None:
        bus = LocalBus()
        await started(bus, 3)
        assert [each.position for each in await bus.consumer.poll(1)] == [0, 1, 2]
        assert list(await bus.consumer.poll(0.01)) == []
        await started(bus, 1)
        assert [each.position for each in await bus.consumer.poll(1)] == [3]
        await bus.publisher.close()

    asyncio.run(main())
