"""What gateway and sink may rely on, whichever bus is between them: local, Kafka's protocol, a real Kafka.

The real one is taken from RUNTIDE_TEST_KAFKA (host:port); deploy/kafka/kafka.py starts one.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import pytest
from runtide.bus import Consumer, Message, Publisher, message_key
from runtide.bus.kafka import KafkaConsumer, KafkaPublisher, KafkaSettings, ensure_topics
from runtide.bus.local import LocalBus
from runtide.testing.mock_kafka import MockKafka
from runtide.testing.waiting import until_async
from runtide.wire.errors import Unavailable

REAL = "RUNTIDE_TEST_KAFKA"


class Bus(Protocol):
    """One bus of its own for a test; built within the test's loop."""

    async def open(self) -> None: ...

    def publisher(self) -> Publisher: ...

    def consumer(self) -> Consumer: ...


class Local:
    async def open(self) -> None:
        self.bus = LocalBus()

    def publisher(self) -> Publisher:
        return self.bus.publisher

    def consumer(self) -> Consumer:
        return self.bus.consumer


class OnKafka:
    def __init__(self, bootstrap: str, mock: MockKafka | None) -> None:
        self.settings = KafkaSettings(bootstrap, f"t{uuid.uuid4().hex}", partitions=4, group=uuid.uuid4().hex)
        self.mock = mock

    async def open(self) -> None:
        if self.mock is not None:  # it has no admin side
            for topic in (self.settings.records_topic, self.settings.changes_topic, self.settings.control_topic):
                self.mock.create_topic(topic)
        await ensure_topics(self.settings)

    def publisher(self) -> Publisher:
        return KafkaPublisher(self.settings)

    def consumer(self) -> Consumer:
        return KafkaConsumer(self.settings)


@pytest.fixture(params=["local", "mock", pytest.param("kafka", marks=pytest.mark.kafka)])
def bus(request: pytest.FixtureRequest, require: Callable[[object, str], None]) -> Iterator[Bus]:
    if request.param == "local":
        yield Local()
    elif request.param == "mock":
        with MockKafka() as mock:
            yield OnKafka(mock.bootstrap, mock)
    else:
        require(os.environ.get(REAL), f"{REAL} names no broker")
        yield OnKafka(os.environ[REAL], None)


def message(number: int, rank: int = 0, run: str = "r") -> Message:
    return Message("p", message_key("p", run, rank), b"%d" % number, 1_700_000_000_000_000 + number)


async def collect(consumer: Consumer, count: int, commit: bool = True) -> list[Message]:
    """Poll until there are `count` messages."""
    found: list[Message] = []
    deadline = time.monotonic() + 30
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} came"
        messages = await consumer.poll(0.2)
        found += messages
        if commit:
            await consumer.commit(messages)
    return found


def numbers(messages: Sequence[Message]) -> list[int]:
    return [int(each.value) for each in messages]


def test_a_message_arrives_as_it_was_published(bus: Bus) -> None:
    async def main() -> None:
        await bus.open()
        publisher, consumer = bus.publisher(), bus.consumer()
        sent = message(7, rank=200)
        _, found = await asyncio.gather(publisher.publish(sent), collect(consumer, 1))
        got = found[0]
        assert (got.project, got.key, got.value, got.received_us) == ("p", sent.key, b"7", sent.received_us)
        await publisher.close()
        await consumer.close()

    asyncio.run(main())


def test_what_has_one_key_keeps_its_order(bus: Bus) -> None:
    async def main() -> None:
        await bus.open()
        publisher, consumer = bus.publisher(), bus.consumer()
        sent = [message(number, rank=64 * (number % 5)) for number in range(500)]
        published = asyncio.gather(*map(publisher.publish, sent))
        found = await collect(consumer, len(sent))
        await published
        for key in {each.key for each in sent}:
            assert [each.value for each in found if each.key == key] == [each.value for each in sent if each.key == key]
        for partition in {each.partition for each in found}:
            positions = [each.position for each in found if each.partition == partition]
            assert positions == sorted(set(positions))
        await publisher.close()
        await consumer.close()

    asyncio.run(main())


def test_what_publish_returned_for_outlives_publisher_and_consumer(bus: Bus) -> None:
    """Local: it was committed. Kafka: it is in the log, and comes to whoever reads later."""

    async def main() -> None:
        await bus.open()
        publisher, consumer = bus.publisher(), bus.consumer()
        committed: list[Message] = []

        async def sink() -> None:
            while True:
                messages = await consumer.poll(0.1)
                committed.extend(messages)
                await consumer.commit(messages)

        task = asyncio.create_task(sink())
        for number in range(20):
            await publisher.publish(message(number))
            if isinstance(bus, Local):
                assert numbers(committed)[-1] == number
        await publisher.close()
        await until_async(lambda: len(committed) == 20, 60)
        assert numbers(committed) == list(range(20))
        task.cancel()
        await asyncio.wait({task})
        await consumer.close()

    asyncio.run(main())


def test_what_was_not_committed_is_not_lost(bus: Bus) -> None:
    """Either it comes again to the next consumer, or its publisher hears that it was not stored."""

    async def main() -> None:
        await bus.open()
        publisher, first = bus.publisher(), bus.consumer()
        publishing = [asyncio.create_task(publisher.publish(message(number))) for number in range(10)]
        polled = await collect(first, 10, commit=False)
        await first.commit(polled[:4])
        await first.close()
        outcomes = await asyncio.gather(*publishing, return_exceptions=True)
        unheard = {number for number, outcome in enumerate(outcomes) if outcome is None} - {0, 1, 2, 3}
        second = bus.consumer()
        assert second.epoch > first.epoch if isinstance(bus, Local) else second.epoch > 0
        if unheard:
            assert set(numbers(await collect(second, len(unheard)))) >= unheard
        else:
            assert all(isinstance(outcome, Unavailable) for outcome in outcomes[4:])
        publishing = [asyncio.create_task(publisher.publish(message(100)))]
        assert numbers(await collect(second, 1))[-1] == 100
        await asyncio.gather(*publishing)
        await publisher.close()
        await second.close()

    asyncio.run(main())


def test_a_poll_without_anything_is_empty_in_time(bus: Bus) -> None:
    async def main() -> None:
        await bus.open()
        consumer = bus.consumer()
        begun = time.monotonic()
        assert list(await consumer.poll(0.3)) == []
        assert time.monotonic() - begun < 5
        await consumer.close()
        assert list(await consumer.poll(0.3)) == []

    asyncio.run(main())


def test_nothing_is_published_after_close(bus: Bus) -> None:
    async def main() -> None:
        await bus.open()
        publisher = bus.publisher()
        await publisher.close()
        with pytest.raises(Unavailable):
            await publisher.publish(message(1))

    asyncio.run(main())


def test_a_publisher_that_goes_away_leaves_nothing_behind(bus: Bus) -> None:
    async def main() -> None:
        await bus.open()
        publisher, consumer = bus.publisher(), bus.consumer()
        gone = asyncio.create_task(publisher.publish(message(1)))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait({gone})
        second = asyncio.create_task(publisher.publish(message(2)))
        found = await collect(consumer, 1)
        while numbers(found)[-1] != 2:  # the first one may have been taken before its publisher went
            found += await collect(consumer, 1)
        await consumer.commit(found)
        await second
        assert (
            getattr(consumer, "held_bytes", 0) == getattr(publisher, "held_bytes", 0) == 0
        )  # the local bus holds none
        await publisher.close()
        await consumer.close()

    asyncio.run(main())


class Member:
    """A sink in small: gathers, drops what it gathered when its epoch grows, commits, and knows what it stored."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.stored: set[int] = set()
        self.first_epoch = consumer.epoch
        self._stop = False
        self.task = asyncio.create_task(self._run())

    async def leave(self) -> None:
        self._stop = True
        await self.task
        await self.consumer.close()

    async def _run(self) -> None:
        epoch, pending = self.consumer.epoch, list[Message]()
        while not self._stop:
            messages = await self.consumer.poll(0.05)
            if self.consumer.epoch != epoch:
                epoch, pending = self.consumer.epoch, []
            pending += messages
            if len(pending) > 10 or not messages:  # what is left at the end was polled and never committed
                self.stored |= set(numbers(pending))
                await self.consumer.commit(pending)
                pending = []


@pytest.mark.fault(17)
@pytest.mark.kafka  # the mock cluster's groups do not get a second aiokafka member in
def test_nothing_is_lost_while_members_come_and_go(require: Callable[[object, str], None]) -> None:
    require(os.environ.get(REAL), f"{REAL} names no broker")

    async def main(bus: OnKafka) -> None:
        await bus.open()
        publisher = bus.publisher()
        published: set[int] = set()

        async def publish() -> None:
            while True:
                number = len(published)
                await publisher.publish(message(number, rank=64 * number))
                published.add(number)
                await asyncio.sleep(0.002)

        publishing = asyncio.create_task(publish())
        one = Member(bus.consumer())
        await until_async(lambda: bool(one.stored), 60)
        before = one.consumer.epoch
        assert before > one.first_epoch
        two = Member(bus.consumer())
        await until_async(lambda: bool(two.stored), 60)
        assert one.consumer.epoch > before
        await one.leave()
        then = len(published)
        await until_async(lambda: len(published) > then + 50, 60)
        publishing.cancel()
        await asyncio.wait({publishing})
        await until_async(lambda: published <= one.stored | two.stored, 60)
        await two.leave()
        await publisher.close()

    asyncio.run(main(OnKafka(os.environ[REAL], None)))
