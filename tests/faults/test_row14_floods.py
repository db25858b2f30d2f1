"""A release that refuses everything stops a partition and says so; mended, it goes on by itself and nothing is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

import pyarrow as pa
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from runtide.bus import Consumer, Message
from runtide.bus.kafka import KafkaConsumer, KafkaPublisher, KafkaSettings
from runtide.bus.local import LocalBus
from runtide.cli.parts import serve_pages
from runtide.cli.settings import Settings, SinkSection
from runtide.gateway import Gateway, GatewaySettings
from runtide.sink.arrived import read
from runtide.sink.flood import Flooded
from runtide.sink.metrics import SinkCollector
from runtide.sink.sink import Sink, SinkSettings
from runtide.sink.store import Store
from runtide.testing.embedded import EmbeddedClickHouse
from runtide.testing.mock_kafka import MockKafka
from runtide.testing.streams import NOW_US, MadeStream
from runtide.testing.waiting import until_async
from runtide.warehouse.client import ClickHouseSettings, Client, connect
from runtide.warehouse.errors import RowsRefused
from runtide.warehouse.verify import verify_run
from runtide.warehouse.writer import Inserts, Writer
from runtide.wire.errors import Unavailable

pytestmark = pytest.mark.fault(14)

DAY_US = 86_400_000_000
DEADLINE_S = 60
STEPS = 130


@pytest.fixture
def server(embedded_clickhouse: EmbeddedClickHouse, client: Client) -> EmbeddedClickHouse:
    """With its tables."""
    del client
    return embedded_clickhouse


def settings_of(server: EmbeddedClickHouse) -> ClickHouseSettings:
    return ClickHouseSettings(server.host, server.port, "writer", server.password)


class NoPoints(Writer):
    """What a release would do that makes rows of points which the store does not take."""

    def insert(self, table: str, batch: pa.RecordBatch | pa.Table) -> None:
        if table == "points":
            raise RowsRefused("Code: 53. type mismatch", 53)
        super().insert(table, batch)


def dead(client: Client, run: str) -> int:
    return int(client.query(f"SELECT count() FROM runtide.dead_letters WHERE run_id LIKE '{run}%'").result_rows[0][0])


def two_runs(name: str) -> list[MadeStream]:
    runs = (MadeStream("s", run_id=f"{name}-{number}") for number in (1, 2))
    return [made.open().key_set(1, "loss").steps(1, range(STEPS)).close() for made in runs]


class Running:
    """A sink that stores while the block goes on."""

    def __init__(
        self,
        consumer: Consumer,
        server: EmbeddedClickHouse,
        writer: Callable[[Client], Inserts] = Writer,
        flood: int = 100,
    ) -> None:
        self.sink = Sink(consumer, settings_of(server), SinkSettings(flood_records=flood), writer=writer)
        self._consumer = consumer

    async def __aenter__(self) -> Sink:
        self._task = asyncio.create_task(self.sink.run())
        return self.sink

    async def __aexit__(self, *_: object) -> None:
        self.sink.stop()
        await self._task
        await self._consumer.close()


async def publish(bus: LocalBus, messages: Sequence[Message]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(*(bus.publisher.publish(message) for message in messages))


def test_on_the_local_bus(server: EmbeddedClickHouse, caplog: pytest.LogCaptureFixture) -> None:
    made = two_runs("local")
    client = connect(settings_of(server))

    async def run() -> None:
        bus = LocalBus()
        async with Running(bus.consumer, server):
            await publish(bus, [each.message(each.range(0, each.edges[50])) for each in made])
        rest = [each.message(each.range(each.edges[50])) for each in made]
        async with Running(bus.consumer, server, NoPoints) as sink:
            waiting = asyncio.ensure_future(publish(bus, rest))
            await until_async(lambda: bool(sink.trouble), DEADLINE_S)
            assert "step records of 2 runs are refused" in sink.trouble
            registry = CollectorRegistry()
            registry.register(SinkCollector(sink))
            assert b"runtide_sink_stopped_partitions 1.0" in generate_latest(registry)
            await asyncio.sleep(0.3)
            assert not waiting.done()  # nothing of it is acknowledged
        with suppress(Unavailable):
            await waiting
        async with Running(bus.consumer, server) as sink:
            await publish(bus, rest)
            assert sink.trouble == ""

    with caplog.at_level(logging.ERROR, "runtide.sink"):
        asyncio.run(run())
    assert any(record.message.startswith("partition stopped") for record in caplog.records)
    assert dead(client, "local") < 2 * (STEPS - 48)
    for each in made:
        found = verify_run(client, "p", each.run_id)
        assert found.problems == []
        assert found.stored_points + found.dead == STEPS


@pytest.mark.slow
def test_on_kafka_the_other_partitions_go_on(server: EmbeddedClickHouse) -> None:
    made = two_runs("kafka")
    other = [
        MadeStream("o", run_id="kafka-other").open().key_set(1, "loss"),
    ]
    client = connect(settings_of(server))

    async def run(kafka: MockKafka) -> None:
        settings = KafkaSettings(kafka.bootstrap, topic_prefix="flood", partitions=2)
        kafka.create_topic(settings.records_topic, 2)
        publisher = KafkaPublisher(settings)

        async def send(streams: Sequence[MadeStream], start: int, end: int | None, key: bytes) -> None:
            for each in streams:
                edges = each.edges
                value = each.message(each.range(edges[start], None if end is None else edges[end])).value
                await publisher.publish(Message("p", key, value, 1_790_000_000_000_000))

        bad, good = keys(2)
        async with Running(KafkaConsumer(settings), server) as sink:
            await send(made, 0, 50, bad)
            await until_async(lambda: sink.stats.points >= 2 * 48, DEADLINE_S)
        async with Running(KafkaConsumer(settings), server, NoPoints) as sink:
            await send(made, 50, None, bad)
            await until_async(lambda: sink.stopped_partitions == 1, DEADLINE_S)
            before = dead(client, "kafka")
            await send(other, 0, None, good)
            await until_async(lambda: sink.stats.records >= 2, DEADLINE_S)
            assert dead(client, "kafka") == before
        async with Running(KafkaConsumer(settings), server) as sink:
            await until_async(lambda: stored(client, made) + dead(client, "kafka") == 2 * STEPS, DEADLINE_S)
        await publisher.close()

    with MockKafka() as kafka:
        asyncio.run(run(kafka))
    for each in made:
        assert verify_run(client, "p", each.run_id).problems == []


def stored(client: Client, made: Sequence[MadeStream]) -> int:
    return sum(verify_run(client, "p", each.run_id).stored_points for each in made)


def keys(partitions: int) -> list[bytes]:
    """A key for each partition, by the partitioner of the client."""
    from aiokafka.partitioner import murmur2

    found: dict[int, bytes] = {}
    number = 0
    while len(found) < partitions:
        key = str(number).encode()
        found.setdefault((murmur2(key) & 0x7FFFFFFF) % partitions, key)
        number += 1
    return [found[partition] for partition in range(partitions)]


def test_a_job_that_writes_only_bad_records_stops_nobody(server: EmbeddedClickHouse) -> None:
    client = connect(settings_of(server))

    async def run() -> None:
        bus = LocalBus()
        async with Running(bus.consumer, server) as sink:
            for rank in range(4):
                bad = MadeStream(f"s{rank}", run_id="bad", rank=rank).open()
                for step in range(100):
                    bad.step(9, step, 1.0)
                await publish(bus, [bad.message(bad.range())])
            assert sink.trouble == ""
            good = MadeStream("s", run_id="bad-good").open().key_set(1, "loss").steps(1, range(10)).close()
            await publish(bus, [good.message(good.range())])

    asyncio.run(run())
    assert dead(client, "bad") == 400
    assert verify_run(client, "p", "bad-good").stored_points == 10


@pytest.mark.parametrize("flush", ["shared", "own"])
def test_runs_of_one_project_stop_nobody_of_another(server: EmbeddedClickHouse, flush: str) -> None:
    name = f"alone-{flush}"
    bad = [MadeStream("s", run_id=f"{name}-{number}").open().key_set(1, "loss").steps(1, [0]) for number in (1, 2)]
    for each in bad:
        for step in range(100):
            each.step(9, step, 1.0)
    other = MadeStream("s", "q", name).open().key_set(1, "loss").steps(1, range(10)).close()
    now = NOW_US + 30 * DAY_US * (2 if flush == "own" else 1)  # nobody else writes around then

    def stored() -> int:
        return verify_run(client, "q", name).stored_points

    client = connect(settings_of(server))
    store = Store(client, Writer(client))
    good = [read(each.message(each.range(0, each.edges[3]), now)) for each in bad]
    rest = [read(each.message(each.range(each.edges[3]), now)) for each in bad]
    whole = read(other.message(other.range(), now))
    store.flush(good)
    if flush == "shared":
        store.flush([*rest, whole])
    else:
        store.flush([whole])
        Store(client, Writer(client)).flush(rest)
    assert stored() == 10
    assert dead(client, name) == 200


def test_one_project_alone_can_be_flooded(server: EmbeddedClickHouse) -> None:
    client = connect(settings_of(server))
    store = Store(client, Writer(client))
    now = NOW_US + 90 * DAY_US
    for number in (1, 2):
        made = MadeStream("s", run_id=f"lonely-{number}").open().key_set(1, "loss").steps(1, [0])
        store.flush([read(made.message(made.range(), now))])
    bad = [MadeStream("t", run_id=f"lonely-{number}") for number in (1, 2)]
    for each in bad:
        for step in range(100):
            each.step(9, step, 1.0)
    with pytest.raises(Flooded):
        store.flush([read(each.message(each.range(), now)) for each in bad])


def test_zero_lets_a_flood_into_the_dead_letters(server: EmbeddedClickHouse) -> None:
    made = two_runs("opened")
    client = connect(settings_of(server))

    async def run() -> None:
        bus = LocalBus()
        async with Running(bus.consumer, server):
            await publish(bus, [each.message(each.range(0, each.edges[50])) for each in made])
        async with Running(bus.consumer, server, NoPoints, flood=0):
            await publish(bus, [each.message(each.range(each.edges[50])) for each in made])

    asyncio.run(run())
    assert dead(client, "opened") == 2 * (STEPS - 48)


def test_while_dead_letters_cannot_be_kept_nothing_passes(server: EmbeddedClickHouse) -> None:
    away = True

    class NoLetters(Writer):
        def insert(self, table: str, batch: pa.RecordBatch | pa.Table) -> None:
            if away and table == "dead_letters":
                raise RowsRefused("Code: 27. cannot parse", 27)
            super().insert(table, batch)

    made = MadeStream("s", run_id="unkept").open().step(9, 1, 1.0).key_set(1, "loss").steps(1, range(10)).close()
    client = connect(settings_of(server))

    async def run() -> None:
        nonlocal away
        bus = LocalBus()
        async with Running(bus.consumer, server, NoLetters) as sink:
            waiting = asyncio.ensure_future(publish(bus, [made.message(made.range())]))
            await until_async(lambda: sink._store is not None and sink.stats.retries >= 2, DEADLINE_S)
            assert not waiting.done()
            assert "nothing is stored: dead letters cannot be kept: Code: 27" in sink.trouble
            assert verify_run(client, "p", "unkept").streams == []
            away = False
            await waiting
            await until_async(lambda: sink.trouble == "", DEADLINE_S)

    asyncio.run(run())
    found = verify_run(client, "p", "unkept")
    assert (found.problems, found.dead, found.stored_points) == ([], 1, 10)


def test_pages_say_when_a_sink_is_in_trouble(server: EmbeddedClickHouse) -> None:
    async def get(port: int, path: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        found = await reader.read()
        writer.close()
        return found.decode()

    async def run() -> None:
        sink = Sink(LocalBus().consumer, settings_of(server))
        pages = await serve_pages(sink, Settings(sink=SinkSection(metrics_port=0)))
        assert pages is not None
        gateway = Gateway(GatewaySettings(port=0, metrics_port=0), LocalBus().publisher, trouble=lambda: sink.trouble)
        await gateway.start()
        for port in (pages.port, gateway.metrics_port):
            assert "200 OK" in await get(port, "/readyz")
        sink._stop_partition(Flooded(3, 100, 2, "step", "unknown key set"))
        for port in (pages.port, gateway.metrics_port):
            said = await get(port, "/readyz")
            assert "503" in said
            assert "partition 3" in said
            assert "200 OK" in await get(port, "/healthz")
        assert "runtide_sink_stopped_partitions 1.0" in await get(pages.port, "/metrics")
        await gateway.stop(1)
        await pages.stop()

    asyncio.run(run())
