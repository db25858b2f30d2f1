"""Row 27 of docs/reliability.md: sinks that were away for longer than Kafka keeps messages.

What Kafka has deleted is lost. It must be announced while there is time, it must stop the partition when it has
happened, and it must show in `verify` afterwards, for the runs that it hit and for no other.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from prometheus_client import CollectorRegistry, generate_latest
from runtide.bus import Message
from runtide.bus.kafka import KafkaConsumer, KafkaPublisher, KafkaSettings, ensure_topics
from runtide.bus.kafka import consumer as consumer_module
from runtide.bus.kafka import lag as lag_module
from runtide.bus.kafka.lag import measure
from runtide.bus.kafka.losses import read_accepted
from runtide.cli.lag import LagWatch
from runtide.sink.metrics import SinkCollector
from runtide.sink.sink import Sink, SinkSettings
from runtide.testing.mock_kafka import MockKafka
from runtide.testing.streams import NOW_US, MadeStream
from runtide.testing.waiting import until_async
from runtide.v1 import records_pb2 as v1
from runtide.v1.ingest_pb2 import Range
from runtide.warehouse.client import Client
from runtide.warehouse.verify import verify_run
from runtide.wire.errors import BadInput
from runtide.wire.limits import KIB, MIB

pytestmark = pytest.mark.fault(27)

DAY_S = 24 * 3600.0
KEY = b"k"
"""Of everything that goes to the partition that loses something."""


@dataclass
class Broker:
    """A broker and a topic of two partitions; `mock` where it is librdkafka's, which keeps 5 MiB of a partition."""

    settings: KafkaSettings
    mock: bool

    @property
    def topic(self) -> str:
        return self.settings.records_topic

    async def ask(self, what: Callable[[AIOKafkaAdminClient], Any]) -> Any:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.bootstrap)
        await admin.start()
        try:
            return await what(admin)
        finally:
            await admin.close()

    async def fill(self, publisher: KafkaPublisher) -> None:
        """Seven messages of 900 KiB, more than the mock keeps."""
        for number in range(7):
            await publisher.publish(Message("p", KEY, b"%d" % number * (900 * KIB), 1))

    async def again(self, settings: KafkaSettings | None = None) -> KafkaSettings:
        """The group as it was, for its next member. The mock holds a group that was left for the time of a session, so
        there it goes on under another name, from the same commits."""
        settings = settings or self.settings
        if not self.mock:
            return settings
        newer = replace(settings, group=uuid.uuid4().hex)
        member = AIOKafkaConsumer(bootstrap_servers=newer.bootstrap, group_id=newer.group)
        await member.start()
        commits = {TopicPartition(self.topic, lag.partition): lag.wanted for lag in await measure(settings)}
        member.assign(list(commits))
        await member.commit({place: wanted for place, wanted in commits.items() if wanted})
        await member.stop()
        return newer

    async def delete_before(self, partition: int, offset: int) -> None:
        """As retention does; the mock has done it by itself."""
        if not self.mock:
            place = TopicPartition(self.topic, partition)
            await self.ask(lambda admin: admin.delete_records({place: RecordsToDelete(offset)}))


@pytest.fixture(params=["mock", pytest.param("real", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest, require: Callable[[object, str], None]) -> Iterator[Broker]:
    who = {"topic_prefix": f"t{uuid.uuid4().hex}", "group": uuid.uuid4().hex, "partitions": 2}
    if request.param == "real":
        bootstrap = os.environ.get("RUNTIDE_TEST_KAFKA", "")
        require(bootstrap, "RUNTIDE_TEST_KAFKA does not name a real Kafka")
        made = KafkaSettings(bootstrap, **who)  # type: ignore[arg-type]
        asyncio.run(ensure_topics(made))
        yield Broker(made, False)
        return
    with MockKafka() as cluster:
        made = KafkaSettings(cluster.bootstrap, **who)  # type: ignore[arg-type]
        cluster.create_topic(made.records_topic, 2)
        yield Broker(made, True)


async def other_key(publisher: KafkaPublisher, consumer: KafkaConsumer) -> bytes:
    """A key of the partition that KEY is not in. What it publishes is consumed and committed."""
    names = [KEY, *(b"o%d" % number for number in range(8))]
    for name in names:
        await publisher.publish(Message("p", name, name, 1))
    found = await read(consumer, len(names))
    await consumer.commit(found)
    partition = next(message.partition for message in found if message.key == KEY)
    return next(message.key for message in found if message.partition != partition)


async def read(consumer: KafkaConsumer, count: int) -> list[Message]:
    found: list[Message] = []

    deadline = time.monotonic() + 30
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} messages came"
        found += await consumer.poll(0.2)
    return found


async def stops(consumer: KafkaConsumer) -> str:
    """Poll until a partition is stopped, and say why."""
    deadline = time.monotonic() + 30
    while not consumer.stopped:
        assert not await consumer.poll(0.2), "it went on after a loss"
        assert time.monotonic() < deadline, "nothing was stopped"
    return consumer.stopped[0]


def test_a_position_that_was_deleted_stops_its_partition_alone(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:

    async def main() -> None:
        settings = broker.settings
        publisher, before = KafkaPublisher(settings), KafkaConsumer(settings)
        key = await other_key(publisher, before)
        await before.close()
        lags = {lag.partition: lag for lag in await measure(settings)}
        settings = await broker.again()
        await broker.fill(publisher)
        moved = next(lag.partition for lag in await measure(settings) if lag.messages)
        wanted = lags[moved].wanted
        await broker.delete_before(moved, wanted + 3)
        first = next(lag.first for lag in await measure(settings) if lag.partition == moved)
        assert first > wanted

        consumer = KafkaConsumer(settings)
        said = await stops(consumer)
        for word in (broker.topic, f"partition {moved}", f"wants offset {wanted},", f"first one there is {first}:"):
            assert word in said
        assert f"--accept-loss {broker.topic}:{moved}:{wanted}" in said
        assert "partition_stopped" in caplog.text
        await publisher.publish(Message("p", key, b"goes on", 1))
        found = await read(consumer, 1)
        assert [message.value for message in found] == [b"goes on"]
        await consumer.commit(found)
        await consumer.close()

        for wrong in (wanted + 1, first):
            not_this = KafkaConsumer(await broker.again(settings), accepted={(broker.topic, moved): wrong})
            assert await stops(not_this) == said
            await not_this.close()

        settings = await broker.again(settings)
        accepting = KafkaConsumer(settings, accepted={(broker.topic, moved): wanted})
        assert (await read(accepting, 1))[0].position == first
        assert not accepting.stopped
        await accepting.close()
        assert "loss_accepted" in caplog.text
        after = KafkaConsumer(await broker.again(settings))
        assert (await read(after, 1))[0].position == first
        assert not after.stopped
        await after.close()
        await publisher.close()

    with caplog.at_level(logging.INFO, "runtide"):
        asyncio.run(main())


@pytest.mark.parametrize("net", ["with the net", "without it"])
def test_without_the_net_a_loss_goes_by_unseen(broker: Broker, monkeypatch: pytest.MonkeyPatch, net: str) -> None:
    """The client's own way to choose an offset, which is what most consumers do."""
    if net == "without it":

        class Silent(AIOKafkaConsumer):  # type: ignore[misc]
            def __init__(self, **told: Any) -> None:
                super().__init__(**{**told, "auto_offset_reset": "earliest"})

        monkeypatch.setattr(consumer_module, "AIOKafkaConsumer", Silent)

    async def main() -> None:
        publisher, before = KafkaPublisher(broker.settings), KafkaConsumer(broker.settings)
        await publisher.publish(Message("p", KEY, b"first", 1))
        first = await read(before, 1)
        await before.commit(first)
        await before.close()
        settings = await broker.again()
        await broker.fill(publisher)
        await broker.delete_before(first[0].partition, 4)
        consumer = KafkaConsumer(settings)
        if net == "without it":
            found = await read(consumer, 1)
            assert found[0].position > 1
            assert not consumer.stopped
        else:
            await stops(consumer)
        await consumer.close()
        await publisher.close()

    asyncio.run(main())


def test_a_deletion_under_a_sink_that_reads_stops_it_too(broker: Broker) -> None:
    """The sink is alive and full, since the store is away: retention overtakes it."""
    settings = broker.settings

    async def main() -> None:
        publisher, consumer = KafkaPublisher(settings), KafkaConsumer(settings)
        await publisher.publish(Message("p", KEY, b"first", 1))
        first = await read(consumer, 1)
        for _ in range(3):
            await broker.fill(publisher)  # more than a client fetches ahead
        await broker.delete_before(first[0].partition, 21)
        deadline = time.monotonic() + 30
        positions = [0]
        while not consumer.stopped:
            assert time.monotonic() < deadline
            positions += [message.position for message in await consumer.poll(0.2)]
        assert positions == list(range(len(positions))), "nothing is left out before it stops"
        assert f"wants offset {positions[-1] + 1}," in consumer.stopped[0]
        await consumer.close()
        await publisher.close()

    asyncio.run(main())


def test_a_new_group_begins_at_the_beginning_and_asks_where_that_is_gone(broker: Broker) -> None:
    settings = broker.settings

    async def main() -> None:
        publisher, consumer = KafkaPublisher(settings), KafkaConsumer(settings)
        await publisher.publish(Message("p", KEY, b"first", 1))
        found = await read(consumer, 1)
        assert [message.position for message in found] == [0]
        await consumer.close()
        await broker.fill(publisher)
        await broker.delete_before(found[0].partition, 4)
        newer = replace(settings, group=uuid.uuid4().hex)
        late = KafkaConsumer(newer)
        assert "wants offset 0," in await stops(late)
        await late.close()
        await publisher.close()

    asyncio.run(main())


@pytest.mark.kafka
def test_a_topic_that_was_made_anew_is_not_taken_for_the_old_one(
    require: Callable[[object, str], None],
) -> None:
    bootstrap = os.environ.get("RUNTIDE_TEST_KAFKA", "")
    require(bootstrap, "RUNTIDE_TEST_KAFKA does not name a real Kafka")
    settings = KafkaSettings(bootstrap, f"t{uuid.uuid4().hex}", partitions=1, group=uuid.uuid4().hex)
    broker = Broker(settings, False)

    async def main() -> None:
        await ensure_topics(settings)
        publisher, consumer = KafkaPublisher(settings), KafkaConsumer(settings)
        for _ in range(5):
            await publisher.publish(Message("p", KEY, b"old", 1))
        await consumer.commit(await read(consumer, 5))
        await consumer.close()
        await publisher.close()
        await broker.ask(lambda admin: admin.delete_topics([broker.topic]))

        async def again() -> bool:
            made = await broker.ask(lambda admin: admin.create_topics([NewTopic(broker.topic, 1, 1)]))
            return not made.topic_errors[0][1]

        deadline = time.monotonic() + 30
        while not await again():
            assert time.monotonic() < deadline
        newer = KafkaPublisher(settings)
        await newer.publish(Message("p", KEY, b"new", 1))
        await newer.close()
        # Deleting a topic may take the group's commits with it; then the group begins anew, and nothing is lost either.
        consumer = KafkaConsumer(settings)
        deadline = time.monotonic() + 30
        found: list[bytes] = []
        while not (consumer.stopped or found):
            assert time.monotonic() < deadline
            found += [message.value for message in await consumer.poll(0.2)]
        assert found == [b"new"] or "made anew" in consumer.stopped[0]
        await consumer.close()

    asyncio.run(main())


def big(run: str) -> MadeStream:
    """Seven ranges of some 800 KiB."""
    made = MadeStream(f"s-{run}", run_id=run).open()
    for number in range(7 * 13):
        made.add(log_line=v1.LogLine(time_us=NOW_US, console=v1.CONSOLE_STDOUT, line=f"{number:06d}" * (10 * KIB)))
    return made.close()


def by_run(made: MadeStream, pieces: int) -> list[Message]:
    edges = made.edges
    cuts = [edges[len(edges) * number // pieces] for number in range(pieces)] + [len(made.body)]
    ranges = [made.range(start, end) for start, end in itertools.pairwise(cuts)]
    return [replace(made.message(range_), key=KEY) for range_ in ranges]


def test_after_the_loss_is_accepted_verify_names_it_for_the_runs_that_it_hit(broker: Broker, client: Client) -> None:
    name = "mock" if broker.mock else "real"
    hit = by_run(MadeStream("s-hit", run_id=f"hit-{name}").open().key_set(1, "loss").steps(1, range(40)).close(), 4)
    whole = MadeStream("s-whole", run_id=f"whole-{name}").open().key_set(1, "loss").steps(1, range(40)).close()
    swallowed = by_run(big(f"swallowed-{name}"), 8)

    async def stored_by(sink: Sink, task: asyncio.Task[None], records: int) -> None:
        await until_async(lambda: sink.stats.records >= records or task.done(), 30, "it is stored")

    async def main() -> None:
        settings = broker.settings
        publisher = KafkaPublisher(settings)
        consumer = KafkaConsumer(settings)
        sink = Sink(consumer, lambda: client, SinkSettings())
        task = asyncio.create_task(sink.run())
        await publisher.publish(hit[0])
        await stored_by(sink, task, 10)
        sink.stop()
        await task
        await consumer.close()
        settings = await broker.again()
        # The sinks are away, and Kafka deletes.
        for message in [hit[1], *swallowed, *by_run(whole, 1), *hit[2:]]:
            await publisher.publish(message)
        partition = next(lag.partition for lag in await measure(settings) if lag.messages)
        await broker.delete_before(partition, 5)

        consumer = KafkaConsumer(settings)
        sink = Sink(consumer, lambda: client, SinkSettings())
        task = asyncio.create_task(sink.run())
        await until_async(lambda: sink.trouble, 30, "the sink says that something is lost")
        assert "wants offset 1," in sink.trouble
        registry = CollectorRegistry()
        registry.register(SinkCollector(sink))
        assert b"runtide_sink_stopped_partitions 1.0" in generate_latest(registry)
        assert sink.stats.records == 0
        sink.stop()
        await task
        await consumer.close()

        settings = await broker.again(settings)
        consumer = KafkaConsumer(settings, accepted=read_accepted([f"{broker.topic}:{partition}:1"]))
        sink = Sink(consumer, lambda: client, SinkSettings())
        task = asyncio.create_task(sink.run())
        await until_async(stored_last, 30, "the rest")
        assert not sink.trouble
        sink.stop()
        await task
        await consumer.close()
        await publisher.close()

    hit_run = f"hit-{name}"

    def stored_last() -> bool:
        rows = client.query(f"SELECT max(step) FROM runtide.points WHERE run_id = '{hit_run}'").result_rows
        return bool(rows[0][0] == 39)

    asyncio.run(main())
    found = {run: verify_run(client, "p", f"{run}-{name}") for run in ("hit", "whole", "swallowed")}
    assert {run: verified.clean for run, verified in found.items()} == {"hit": False, "whole": True, "swallowed": False}
    (missing,) = found["hit"].streams[0].missing
    assert missing.is_hole
    assert (missing.start, missing.end) == (len(_body(hit[0])), len(_body(hit[0])) + len(_body(hit[1])))
    assert found["hit"].duplicates == found["swallowed"].duplicates == 0


def _body(message: Message) -> bytes:
    return Range.FromString(message.value).body


def test_an_age_that_did_not_come_in_time_is_not_known_rather_than_none(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lag_module, "LOOK_S", 0.0)

    async def main() -> None:
        publisher = KafkaPublisher(broker.settings)
        await publisher.publish(Message("p", KEY, b"not stored", 1))
        await publisher.close()
        watch = LagWatch(broker.settings, clock=lambda: time.time() + 6 * DAY_S)
        watch.lags = await measure(broker.settings)
        assert sorted((lag.messages, lag.seconds) for lag in watch.lags) == [(0, 0.0), (1, None)]
        registry = CollectorRegistry()
        registry.register(watch)
        page = generate_latest(registry).decode()
        assert page.count("runtide_sink_lag_messages{") == 2
        assert page.count("runtide_sink_lag_seconds{") == page.count("runtide_sink_lag_retention_share{") == 1

    asyncio.run(main())


def test_lag_is_told_in_time_and_alarms_at_half_of_the_retention(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    settings = broker.settings

    async def main() -> None:
        publisher, consumer = KafkaPublisher(settings), KafkaConsumer(settings)
        await publisher.publish(Message("p", KEY, b"stored", 1))
        await consumer.commit(await read(consumer, 1))
        await consumer.close()
        assert [(lag.messages, lag.seconds, lag.alarm) for lag in await measure(settings)] == [(0, 0.0, "")] * 2
        await publisher.publish(Message("p", KEY, b"not stored", 1))
        await publisher.close()

        now = time.time()
        (lag,) = [lag for lag in await measure(settings, lambda: now + 3.4 * DAY_S) if lag.messages]
        assert lag.retention_s == 7 * DAY_S
        assert lag.seconds is not None
        assert 3.39 * DAY_S < lag.seconds < 3.41 * DAY_S
        assert not lag.alarm
        watch = LagWatch(settings, clock=lambda: now + 3.6 * DAY_S)
        with caplog.at_level(logging.WARNING, "runtide"):
            task = asyncio.create_task(watch.run())
            await until_async(lambda: watch.lags, 20, "it is measured")
            await until_async(lambda: "51% of the topic's retention" in caplog.text, 20, "a warning")
            task.cancel()
            await asyncio.wait([task])
        registry = CollectorRegistry()
        registry.register(watch)
        page = generate_latest(registry).decode()
        assert f'runtide_sink_lag_messages{{partition="{lag.partition}"}} 1.0' in page
        assert f'runtide_sink_lag_retention_share{{partition="{lag.partition}"}} 0.51' in page

    asyncio.run(main())


def test_status_tells_the_lag_though_no_sink_runs(broker: Broker, tmp_path: Path) -> None:
    settings = broker.settings

    async def main() -> None:
        publisher = KafkaPublisher(settings)
        await publisher.publish(Message("p", KEY, b"not stored", 1))
        await broker.fill(publisher)
        await broker.delete_before(next(lag.partition for lag in await measure(settings) if lag.messages), 3)
        await publisher.close()

    asyncio.run(main())
    environment = os.environ | {
        "RUNTIDE_HOME": str(tmp_path),
        "RUNTIDE_KAFKA_BOOTSTRAP": settings.bootstrap,
        "RUNTIDE_KAFKA_TOPIC_PREFIX": settings.topic_prefix,
        "RUNTIDE_KAFKA_GROUP": settings.group,
    }
    command = [sys.executable, "-m", "runtide.cli", "status"]
    found = [
        subprocess.run([*command, *more], env=environment, capture_output=True, text=True, timeout=60, check=False)
        for more in ((), ("--json",))
    ]
    assert "messages were deleted before they were stored" in found[0].stdout, found[0].stderr
    kafka = json.loads(found[1].stdout)["kafka"]
    assert len(kafka["alarms"]) == 1
    assert sum(each["messages"] for each in kafka["partitions"]) > 0


@pytest.mark.parametrize("word", ["", "topic", "topic:1", "topic:x:1", "topic:1:-1", ":1:1"])
def test_an_acceptance_that_names_no_loss_is_refused(word: str) -> None:
    with pytest.raises(BadInput, match="TOPIC:PARTITION:OFFSET"):
        read_accepted([word])
    assert read_accepted(["a:b:1:2", "t:0:5"]) == {("a:b", 1): 2, ("t", 0): 5}


@pytest.mark.kafka
def test_topics_keep_a_week_and_a_bounded_size_by_the_brokers_clock(require: Callable[[object, str], None]) -> None:
    bootstrap = os.environ.get("RUNTIDE_TEST_KAFKA", "")
    require(bootstrap, "RUNTIDE_TEST_KAFKA does not name a real Kafka")
    settings = KafkaSettings(bootstrap, f"t{uuid.uuid4().hex}", partitions=1)
    broker = Broker(settings, False)

    async def main() -> dict[str, str]:
        await ensure_topics(settings)
        topic = ConfigResource(ConfigResourceType.TOPIC, broker.topic)
        answers = await broker.ask(lambda admin: admin.describe_configs([topic]))
        return {name: value for name, value, *_ in answers[0].resources[0][4]}

    told = asyncio.run(main())
    assert int(told["retention.ms"]) == 7 * DAY_S * 1000
    assert int(told["retention.bytes"]) == 16 * 1024 * MIB
    assert told["message.timestamp.type"] == "LogAppendTime"
