"""The parts of Kafka mode, each composed from the settings and served alone; `ingest` shares what is here."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry

from runtide.bus import Publisher
from runtide.bus.control import Control, Entry, FileControl
from runtide.bus.kafka import KafkaConsumer, KafkaPublisher, KafkaSettings, ensure_topics
from runtide.bus.kafka.control import KafkaControl
from runtide.bus.kafka.losses import read_accepted
from runtide.cli.home import Home
from runtide.cli.lag import LagWatch
from runtide.cli.settings import Settings
from runtide.gateway import Gateway, GatewaySettings, Limits, TokenBook
from runtide.gateway.pages import Pages
from runtide.gateway.service import RunFacts, StreamFacts
from runtide.sink.metrics import SinkCollector
from runtide.sink.sink import Sink, SinkSettings
from runtide.v1.ingest_pb2 import Duplicate, PreflightRequest
from runtide.warehouse.client import ClickHouseSettings, Client, connect
from runtide.warehouse.errors import StoreBusy
from runtide.warehouse.ledger import LedgerReader
from runtide.wire.errors import BadInput

STORE_RETRY_S = 0.2
GATEWAY_GRACE_S = 10.0

log = logging.getLogger("runtide")


def start_logging() -> None:
    """One line an event, on standard error."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")


def kafka_settings(settings: Settings) -> KafkaSettings:
    """Where Kafka is. Raises BadInput where it is not said."""
    told = settings.kafka
    if not told.bootstrap:
        raise BadInput("RUNTIDE_KAFKA_BOOTSTRAP", "empty", "it must name the brokers as host:port, joined by commas")
    return KafkaSettings(
        bootstrap=told.bootstrap,
        topic_prefix=told.topic_prefix,
        partitions=told.partitions,
        replication=told.replication,
        retention_hours=told.retention_hours,
        retention_bytes=told.retention_bytes,
        send_timeout_s=told.send_timeout_s,
        security=dict(told.security),
        group=told.group,
        session_timeout_s=told.session_timeout_s,
    )


def store_of(settings: Settings) -> ClickHouseSettings:
    """The ClickHouse that services write to."""
    return ClickHouseSettings(**settings.clickhouse.model_dump())


def gateway_settings(settings: Settings) -> GatewaySettings:
    """What the gateway is told. Raises BadInput for a limit that does not exist."""
    told = settings.gateway.model_dump(exclude={"limits"})
    known = {field.name for field in dataclasses.fields(Limits)}
    if unknown := sorted(set(settings.gateway.limits) - known):
        raise BadInput("RUNTIDE_GATEWAY_LIMITS", ", ".join(unknown), f"the limits are {', '.join(sorted(known))}")
    artifacts = settings.artifacts or str(Home(settings.home_folder).artifacts)
    return GatewaySettings(**told, limits=Limits(**settings.gateway.limits), artifacts=artifacts)


def sink_settings(settings: Settings) -> SinkSettings:
    """What the sink is told."""
    return SinkSettings(retention_days=settings.retention_days, flood_records=settings.sink.flood_records)


def control_of(settings: Settings, *, here: bool = False) -> Control:
    """Where tokens are kept: Kafka where it is configured, else, and `here`, a file in the home."""
    if settings.kafka.bootstrap and not here:
        return KafkaControl(kafka_settings(settings))
    return FileControl(Home(settings.home_folder).control)


async def follow_tokens(control: Control) -> tuple[TokenBook, asyncio.Task[None]]:
    """The tokens, all of them known, and the task that hears of new ones. Raises BadInput for what cannot be read."""
    book, known = TokenBook(), asyncio.Event()

    def told(entries: Mapping[str, Entry]) -> None:
        book.learn(entries)
        known.set()

    task = asyncio.create_task(control.follow(told), name="tokens")
    first = asyncio.create_task(known.wait())
    try:
        await asyncio.wait([task, first], return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        task.cancel()
        raise
    finally:
        first.cancel()
    if task.done():
        task.result()
    return book, task


class LateLedger:
    """A ledger whose store may be away when the gateway starts: connects when first asked. For one thread."""

    def __init__(self, store: ClickHouseSettings) -> None:
        self._store = store
        self._reader: LedgerReader | None = None

    def stream_status(self, project: str, streams: Sequence[str]) -> Sequence[StreamFacts]:
        """As LedgerReader. Raises StoreError."""
        return self._connected().stream_status(project, streams)

    def run_facts(self, project: str, run_id: str, launch_id: str) -> RunFacts:
        """As LedgerReader. Raises StoreError."""
        return self._connected().run_facts(project, run_id, launch_id)

    def duplicates(self, project: str, asked: PreflightRequest) -> Sequence[Duplicate]:
        """As LedgerReader. Raises BadInput and StoreError."""
        return self._connected().duplicates(project, asked)

    def _connected(self) -> LedgerReader:
        if self._reader is None:
            self._reader = LedgerReader(connect(self._store))
        return self._reader


async def wait_for_store(store: ClickHouseSettings, stop: asyncio.Event) -> Client | None:
    """A client once ClickHouse answers; None where told to stop before. Raises StoreMisconfigured."""
    said = False
    while not stop.is_set():
        try:
            return await asyncio.to_thread(connect, store)
        except StoreBusy as error:
            if not said:
                log.info("waiting for ClickHouse host=%s port=%d error=%s", store.host, store.port, error)
            said = True
        try:
            await asyncio.wait_for(stop.wait(), STORE_RETRY_S)
        except TimeoutError:
            continue
    return None


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def until_told(stop: asyncio.Event, *parts: asyncio.Task[None]) -> None:
    """Return when told to stop. Raises what ended a part, or RuntimeError where one just ended."""
    told = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([*parts, told], return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    for part in parts:
        if part in done:
            part.result()
            raise RuntimeError(f"{part.get_name()} ended by itself")


async def serve_gateway(settings: Settings) -> None:
    """One gateway that publishes to Kafka, until told to stop. It serves once it knows all tokens."""
    stop = stop_on_signals()
    kafka = kafka_settings(settings)
    told = gateway_settings(settings)
    await _until_kafka_answers(lambda: ensure_topics(kafka), stop)
    learning = asyncio.create_task(follow_tokens(control_of(settings)))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([learning, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not learning.done():
        learning.cancel()
        await asyncio.wait([learning])
        return
    tokens, following = learning.result()
    publisher: Publisher = KafkaPublisher(kafka)
    gateway = Gateway(told, publisher, LateLedger(store_of(settings)), tokens)
    try:
        await gateway.start()
        await until_told(stop, following)
        await gateway.stop(GATEWAY_GRACE_S)
    finally:
        following.cancel()
        await asyncio.wait([following])
        await publisher.close()


async def serve_sink(settings: Settings, accept_loss: Sequence[str] = ()) -> None:
    """One member of the group of sinks, until told to stop. `accept_loss` adds to what the settings accept."""
    accepted = read_accepted([*filter(None, settings.sink.accept_loss.split(",")), *accept_loss])
    stop = stop_on_signals()
    kafka, store = kafka_settings(settings), store_of(settings)
    client = await wait_for_store(store, stop)
    if client is None:
        return
    client.close()
    await _until_kafka_answers(lambda: ensure_topics(kafka), stop)
    consumer = KafkaConsumer(kafka, accepted=accepted)
    sink = Sink(consumer, store, sink_settings(settings))
    lag = LagWatch(kafka)
    pages = await serve_pages(sink, settings, lag)
    task = asyncio.create_task(sink.run(), name="sink")
    watching = asyncio.create_task(lag.run(), name="lag")
    try:
        await until_told(stop, task, watching)
        sink.stop()
        await task
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        if pages is not None:
            await pages.stop()
        await consumer.close()


async def serve_pages(sink: Sink, settings: Settings, lag: LagWatch | None = None) -> Pages | None:
    """Serve a sink's pages, if a port is configured. Raises BadInput where it cannot be had."""
    host, port = settings.sink.metrics_host, settings.sink.metrics_port
    if port is None:
        return None
    registry = CollectorRegistry()
    registry.register(SinkCollector(sink))
    if lag is not None:
        registry.register(lag)
    pages = Pages(registry, lambda: sink.trouble)
    try:
        await pages.start(host, port)
    except OSError as error:
        raise BadInput("RUNTIDE_SINK_METRICS_PORT", port, f"it cannot be listened on ({error.strerror})") from error
    log.info("sink pages host=%s port=%d", host, pages.port)
    return pages


async def _until_kafka_answers(attempt: Callable[[], Awaitable[object]], stop: asyncio.Event) -> None:
    """Make the topics, for as long as it takes: a part may be started before its broker."""
    from aiokafka.errors import KafkaError

    from runtide.wire.errors import Unavailable

    while not stop.is_set():
        try:
            await attempt()
        except (KafkaError, Unavailable, OSError) as error:
            log.warning("waiting for Kafka error=%s", error)
        else:
            return
        try:
            await asyncio.wait_for(stop.wait(), 1.0)
        except TimeoutError:
            continue
