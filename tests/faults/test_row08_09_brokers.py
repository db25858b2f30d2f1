"""The Kafka bus when brokers are away, slow or say no; on librdkafka's mock cluster, which does all that on demand."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Iterator

import pytest
from runtide.bus import Message
from runtide.bus.kafka import KafkaConsumer, KafkaPublisher, KafkaSettings, ensure_topics
from runtide.bus.kafka.repeats import Repeats
from runtide.testing import mock_kafka
from runtide.testing.mock_kafka import MockKafka
from runtide.wire.errors import BadInput, Unavailable

DEADLINE_S = 1.0
"""Of the publishers here."""


@pytest.fixture
def mock() -> Iterator[MockKafka]:
    with MockKafka() as cluster:
        yield cluster


@pytest.fixture
def settings(mock: MockKafka) -> KafkaSettings:
    chosen = KafkaSettings(mock.bootstrap, f"t{uuid.uuid4().hex}", send_timeout_s=DEADLINE_S, group=uuid.uuid4().hex)
    mock.create_topic(chosen.records_topic)
    return chosen


def message(value: bytes, key: bytes = b"k") -> Message:
    return Message("p", key, value, 1)


async def publish_until_it_works(publisher: KafkaPublisher, value: bytes) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            await publisher.publish(message(value))
        except Unavailable:
            assert time.monotonic() < deadline, "the publisher does not recover"
            await asyncio.sleep(0.05)
        else:
            return


async def read(settings: KafkaSettings, last: bytes) -> list[bytes]:
    """Read from the beginning until `last` comes."""
    consumer = KafkaConsumer(settings)
    found: list[bytes] = []
    deadline = time.monotonic() + 30
    while last not in found:
        assert time.monotonic() < deadline, f"{last!r} did not come, only {found!r}"
        found += [each.value for each in await consumer.poll(0.2)]
    await consumer.close()
    return found


@pytest.mark.fault(8)
def test_a_send_has_a_deadline_and_the_publisher_comes_back(mock: MockKafka, settings: KafkaSettings) -> None:
    async def main() -> None:
        publisher = KafkaPublisher(settings)
        await publisher.publish(message(b"before"))
        mock.set_down()
        begun = time.monotonic()
        with pytest.raises(Unavailable):
            await publisher.publish(message(b"lost"))
        assert time.monotonic() - begun < DEADLINE_S + 2
        mock.set_up()
        await publish_until_it_works(publisher, b"after")
        assert publisher.built > 1
        await publisher.close()
        found = await read(settings, b"after")
        assert found.count(b"before") == found.count(b"after") == 1

    asyncio.run(main())


@pytest.mark.fault(8)
def test_all_who_wait_on_a_producer_that_is_thrown_away_hear_of_it(mock: MockKafka, settings: KafkaSettings) -> None:
    async def main() -> None:
        publisher = KafkaPublisher(settings)
        await publisher.publish(message(b"before"))
        mock.set_down()
        begun = time.monotonic()
        publishing = [publisher.publish(message(b"%d" % number, b"k%d" % number)) for number in range(20)]
        outcomes = await asyncio.gather(*publishing, return_exceptions=True)
        assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
        assert time.monotonic() - begun < DEADLINE_S + 2
        mock.set_up()
        await publish_until_it_works(publisher, b"after")
        await publisher.close()

    asyncio.run(main())


@pytest.mark.fault(8)
def test_close_is_bounded_while_brokers_are_away(mock: MockKafka, settings: KafkaSettings) -> None:
    async def main() -> None:
        patient = KafkaPublisher(KafkaSettings(settings.bootstrap, settings.topic_prefix, send_timeout_s=60))
        consumer = KafkaConsumer(settings)
        await patient.publish(message(b"before"))
        while not await consumer.poll(0.2):
            pass
        mock.set_down()
        waiting = asyncio.create_task(patient.publish(message(b"lost")))
        await asyncio.sleep(0)
        begun = time.monotonic()
        await asyncio.gather(patient.close(), consumer.close())
        assert time.monotonic() - begun < 10
        with pytest.raises(Unavailable):
            await waiting

    asyncio.run(main())


@pytest.mark.fault(8)
def test_brokers_that_are_slower_than_the_deadline_are_unavailable(mock: MockKafka, settings: KafkaSettings) -> None:
    async def main() -> None:
        publisher = KafkaPublisher(settings)
        await publisher.publish(message(b"before"))
        mock.set_round_trip(int(3 * DEADLINE_S * 1000))
        with pytest.raises(Unavailable):
            await publisher.publish(message(b"slow"))
        mock.set_round_trip(0)
        await publish_until_it_works(publisher, b"after")
        await publisher.close()

    asyncio.run(main())


@pytest.mark.fault(9)
def test_errors_that_pass_are_retried_and_write_once(mock: MockKafka, settings: KafkaSettings) -> None:
    async def main() -> None:
        patient = KafkaSettings(settings.bootstrap, settings.topic_prefix, send_timeout_s=20, group=settings.group)
        publisher = KafkaPublisher(patient)
        await publisher.publish(message(b"before"))
        codes = [mock_kafka.NOT_LEADER, mock_kafka.REQUEST_TIMED_OUT, mock_kafka.NOT_ENOUGH_REPLICAS]
        mock.push_errors(mock_kafka.PRODUCE, codes)
        await publisher.publish(message(b"retried"))
        await publisher.publish(message(b"after"))
        assert publisher.built == 1
        await publisher.close()
        assert await read(patient, b"after") == [b"before", b"retried", b"after"]

    asyncio.run(main())


@pytest.mark.fault(9)
def test_a_producer_that_lost_its_sequence_is_replaced(mock: MockKafka, settings: KafkaSettings) -> None:
    async def main() -> None:
        publisher = KafkaPublisher(settings)
        await publisher.publish(message(b"before"))
        mock.push_errors(mock_kafka.PRODUCE, [mock_kafka.OUT_OF_ORDER_SEQUENCE])
        with pytest.raises(Unavailable):
            await publisher.publish(message(b"refused"))
        await publish_until_it_works(publisher, b"after")
        assert publisher.built > 1
        await publisher.close()
        assert (await read(settings, b"after"))[-1] == b"after"

    asyncio.run(main())


@pytest.mark.fault(10)
def test_what_is_too_large_for_a_message_is_bad_input(settings: KafkaSettings) -> None:
    async def main() -> None:
        publisher = KafkaPublisher(settings)
        with pytest.raises(BadInput, match=r"max\.message\.bytes"):
            await publisher.publish(message(bytes(1024 * 1024)))
        await publisher.publish(message(bytes(1000 * 1024)))
        assert publisher.built == 1
        await publisher.close()

    asyncio.run(main())


@pytest.mark.fault(8)
def test_a_consumer_outlives_its_brokers_being_away(mock: MockKafka, settings: KafkaSettings) -> None:
    async def main() -> None:
        publisher, consumer = KafkaPublisher(settings), KafkaConsumer(settings)
        await publisher.publish(message(b"before"))
        while not await consumer.poll(0.2):
            pass
        mock.set_down()
        begun = time.monotonic()
        assert list(await consumer.poll(0.5)) == []
        assert time.monotonic() - begun < 5
        mock.set_up()
        await publish_until_it_works(publisher, b"after")
        found: list[bytes] = []
        deadline = time.monotonic() + 30
        while b"after" not in found:
            assert time.monotonic() < deadline
            found += [each.value for each in await consumer.poll(0.2)]
        await publisher.close()
        await consumer.close()

    asyncio.run(main())


@pytest.mark.fault(9)
def test_a_commit_that_fails_is_no_error(
    mock: MockKafka, settings: KafkaSettings, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        publisher, consumer = KafkaPublisher(settings), KafkaConsumer(settings)
        await publisher.publish(message(b"before"))
        polled = await consumer.poll(0.2)
        while not polled:
            polled = await consumer.poll(0.2)
        mock.set_down()
        with caplog.at_level(logging.WARNING, "runtide"):
            await consumer.commit(polled)
        assert "commit_failed" in caplog.text
        await publisher.close()
        await consumer.close()

    asyncio.run(main())


@pytest.mark.fault(8)
def test_topics_are_waited_for_no_longer_than_told() -> None:
    async def main() -> None:
        begun = time.monotonic()
        with pytest.raises(Unavailable, match="RUNTIDE_KAFKA_BOOTSTRAP"):
            await ensure_topics(KafkaSettings("127.0.0.1:9"), wait_s=0.5)
        assert time.monotonic() - begun < 5

    asyncio.run(main())


@pytest.mark.fault(8)
def test_what_repeats_is_said_once_in_a_while() -> None:
    now = 0.0
    repeats = Repeats(30, lambda: now)

    def say(text: str) -> str:
        record = logging.LogRecord("aiokafka", logging.ERROR, "", 0, text, (1,), None)
        return record.getMessage() if repeats.filter(record) else ""

    assert say("node %d away") == "node 1 away"
    assert say("node %d away") == ""
    assert say("node %d back") == "node 1 back"
    now = 31.0
    assert say("node %d away") == "node 1 away (and 1 times since)"
