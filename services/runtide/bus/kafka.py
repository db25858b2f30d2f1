"""The bus on Kafka: an idempotent producer that is thrown away when it sticks, and a consumer group member.

Promises: publish() returns after acks=all, or raises within `send_timeout_s`; close() is bounded in time whatever the
brokers do; messages of one key keep the order in which publish() was called. aiokafka's idempotent producer never
times out by itself while the brokers are away (nor does its stop), and may stay broken after an out-of-order answer: so
every send has our own deadline, and after a failed one the producer is ended in the background and the next send builds
another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    SaslAuthenticationFailed,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
    for_code,
)
from aiokafka.helpers import create_ssl_context

from runtide.bus import Message
from runtide.bus.repeats import quieten
from runtide.wire.errors import BadInput, NotAllowed, Unavailable
from runtide.wire.limits import KIB, MIB

log = logging.getLogger(__name__)

SCHEMA = b"1"
"""Header `schema`: the value is a serialized `runtide.v1.Range`."""

STOP_S = 5.0
"""How long a producer or consumer may take to end in order; then it is cut off."""

CUT_OFF_S = 2.0
"""How long cutting off may take; then it is left to the end of the process."""

REQUEST_BYTES = MIB
"""One message and one batch: below what a broker takes by default (message.max.bytes, 1 MiB and 12 bytes)."""

POLL_MESSAGES = 128
"""At most this many messages come from one poll."""

FETCH_BYTES = 4 * MIB
"""Of one partition in one fetch."""

MAX_POLL_INTERVAL_MS = 3_600_000
"""A sink that waits for ClickHouse stays in the group this long without a poll."""

RETENTION_MS = 7 * 24 * 3600 * 1000
"""How long topics made by runtide keep messages."""

REBALANCE_PATIENCE_S = 0.25
"""How much longer than told a poll may take while partitions change hands."""

_NOT_ALLOWED = (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)

_TLS_FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Where Kafka is and how topics are made."""

    bootstrap: str
    """Brokers as host:port, joined by commas."""
    topic_prefix: str = "runtide"
    """First part of every topic's name."""
    partitions: int = 12
    """Partitions of the topics that runtide makes."""
    replication: int = 1
    """Copies of every partition, where the topic is made by runtide."""
    send_timeout_s: float = 10.0
    """Deadline of every send, and of every other question to the brokers."""
    security: dict[str, str] = field(default_factory=dict)
    """Handed on to the client: security_protocol, sasl_mechanism, sasl_plain_username, sasl_plain_password; and
    ssl_cafile, ssl_certfile, ssl_keyfile for TLS."""
    group: str = "runtide-sink"
    """Consumer group of the sinks."""

    @property
    def records_topic(self) -> str:
        """What streams say; key: see `message_key`."""
        return f"{self.topic_prefix}.records"

    @property
    def changes_topic(self) -> str:
        """What people and programs alter afterwards; key: project."""
        return f"{self.topic_prefix}.changes"

    @property
    def control_topic(self) -> str:
        """Tokens and the like; compacted."""
        return f"{self.topic_prefix}.control"

    def client(self) -> dict[str, Any]:
        """Return what every aiokafka client is built with. Raises OSError for TLS files that cannot be read."""
        options: dict[str, Any] = {"bootstrap_servers": [each.strip() for each in self.bootstrap.split(",")]}
        options |= {name: value for name, value in self.security.items() if name not in _TLS_FILES}
        if self.security.get("security_protocol", "").endswith("SSL"):
            files = {name.removeprefix("ssl_"): self.security.get(name) for name in _TLS_FILES}
            options["ssl_context"] = create_ssl_context(**files)
        return options


class KafkaPublisher:
    """The gateway's side. Begins to connect with the first publish()."""

    def __init__(self, settings: KafkaSettings) -> None:
        quieten()
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._order = [asyncio.Lock() for _ in range(64)]
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False
        self.built = 0
        """Producers built so far: more than one says that some were thrown away."""

    async def publish(self, message: Message) -> None:
        """Return after acks=all. Raises Unavailable within `send_timeout_s`, BadInput for what is never taken."""
        if self._closed:
            raise Unavailable("the bus is closed")
        producer = None
        try:
            async with asyncio.timeout(self._settings.send_timeout_s):
                producer = await self._ready()
                await self._send(producer, message)
        except MessageSizeTooLargeError as error:
            raise BadInput(
                "range", f"{len(message.value)} bytes", "Kafka takes smaller ones: max.message.bytes"
            ) from error
        except TimeoutError as error:
            self._throw_away(producer)
            raise Unavailable(f"Kafka did not answer within {self._settings.send_timeout_s:g} s") from error
        except KafkaError as error:
            self._throw_away(producer)
            raise Unavailable(f"Kafka: {error}") from error

    async def close(self) -> None:
        """Stop, within STOP_S and CUT_OFF_S; what is not acknowledged by then counts as not published."""
        self._closed = True
        producer, self._producer = self._producer, None
        if producer is not None and not await _ended(producer.stop(), STOP_S):
            log.warning("producer_cut_off")
            self._end(producer)
        if self._ending:
            await asyncio.wait(self._ending, timeout=CUT_OFF_S)

    async def _send(self, producer: AIOKafkaProducer, message: Message) -> None:
        headers = [
            ("project", message.project.encode()),
            ("received_us", str(message.received_us).encode()),
            ("schema", SCHEMA),
        ]
        # Only the way into the producer's buffer is ordered here; acknowledgements are awaited side by side.
        async with self._order[hash(message.key) % len(self._order)]:
            delivered = await producer.send(
                self._settings.records_topic, value=message.value, key=message.key, headers=headers
            )
        await delivered

    async def _ready(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    enable_idempotence=True,
                    acks="all",
                    max_request_size=REQUEST_BYTES,
                    max_batch_size=REQUEST_BYTES,
                    request_timeout_ms=int(self._settings.send_timeout_s * 1000),
                    **self._settings.client(),
                )
                self.built += 1
                try:
                    await producer.start()
                except BaseException:  # cancelled by the deadline too: whatever was begun must end
                    self._end(producer)
                    raise
                self._producer = producer
            return self._producer

    def _throw_away(self, producer: AIOKafkaProducer | None) -> None:
        """Make the next send build another producer; the others that wait on this one fail at once."""
        if producer is not None and producer is self._producer:
            log.warning("producer_thrown_away built=%d", self.built)
            self._producer = None
            self._end(producer)

    def _end(self, producer: AIOKafkaProducer) -> None:
        task = asyncio.create_task(_cut_off(producer))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def _cut_off(producer: AIOKafkaProducer) -> None:
    """End a producer that may not end by itself. It has no way for that but its insides, so aiokafka is pinned."""
    producer._closed = True  # else it complains that nobody stopped it
    producer._message_accumulator.fail_all(KafkaConnectionError("the producer was thrown away"))
    sender = producer._sender.sender_task
    if sender is not None:
        sender.remove_done_callback(producer._sender._fail_all)  # it would fail a transaction that there is not
        sender.cancel()
    closed = await _ended(producer.client.close(), CUT_OFF_S)
    if sender is not None:
        await asyncio.wait({sender}, timeout=CUT_OFF_S)
        if sender.done() and not sender.cancelled() and (error := sender.exception()) is not None:
            log.info("sender_ended error=%r", error)
    if not closed:
        log.warning("producer_not_ended")


async def _ended(stopping: Coroutine[Any, Any, None], within_s: float) -> bool:
    """Wait for a stop, and say whether it came to its end; in a task of its own, since some stops cancel themselves."""
    task = asyncio.create_task(stopping)
    _, late = await asyncio.wait({task}, timeout=within_s)
    if late:
        task.cancel()
        await asyncio.wait({task}, timeout=within_s)
        return False
    if task.cancelled():
        return False
    if (error := task.exception()) is not None:
        log.warning("stop_failed error=%r", error)
    return error is None


class KafkaConsumer:
    """The sink's side: a member of the group. Begins to connect with the first poll()."""

    def __init__(self, settings: KafkaSettings, group: str | None = None) -> None:
        quieten()
        self._settings = settings
        self._group = group or settings.group
        self._consumer: AIOKafkaConsumer | None = None
        self._starting: asyncio.Task[None] | None = None
        self._listener = _Epochs()
        self._closed = False
        self._is_away = False

    @property
    def epoch(self) -> int:
        """Grows whenever partitions were assigned or lost."""
        return self._listener.epoch

    async def poll(self, wait_s: float) -> Sequence[Message]:
        """Return what has come, in order per partition; empty after `wait_s` without anything, brokers away included.

        Raises NotAllowed where waiting does not help: a wrong password, no right to topic or group.
        """
        if self._closed:
            return ()
        begun = time.monotonic()
        try:
            consumer = await self._ready(wait_s)
            if consumer is None:
                return ()
            found = await self._fetched(consumer, wait_s)
        except _NOT_ALLOWED as error:
            raise NotAllowed(f"Kafka: {error} (RUNTIDE_KAFKA_SECURITY)") from error
        except KafkaError as error:
            await self._away(error, wait_s - (time.monotonic() - begun))
            return ()
        self._is_away = False
        if found:
            self._listener.settle()
        return [_message(record) for records in found.values() for record in records]

    async def _fetched(self, consumer: AIOKafkaConsumer, wait_s: float) -> dict[TopicPartition, list[Any]]:
        try:
            # aiokafka waits without a bound while partitions change hands; to cut it off there loses nothing, since it
            # takes records out of its buffer only in the step in which it returns them
            async with asyncio.timeout(wait_s + REBALANCE_PATIENCE_S):
                found: dict[TopicPartition, list[Any]] = await consumer.getmany(
                    timeout_ms=int(wait_s * 1000), max_records=POLL_MESSAGES
                )
                return found
        except TimeoutError:
            return {}

    async def _away(self, error: KafkaError, rest_s: float) -> None:
        """Wait out brokers that are away; any other error leaves a consumer in a bad state, and it is replaced."""
        passes = error.retriable or isinstance(error, KafkaConnectionError)
        if not (passes and self._is_away):
            log.warning("kafka_away error=%r", error)
        self._is_away = True
        consumer = self._consumer
        if not passes and consumer is not None:
            self._consumer = self._starting = None
            await _stop(consumer)
        await asyncio.sleep(max(0.0, rest_s))

    async def commit(self, messages: Sequence[Message]) -> None:
        """Commit behind these. A commit that fails is logged only: the ledger knows what is stored, not the group."""
        consumer = self._consumer
        if consumer is None or not messages:
            return
        assigned = consumer.assignment()
        offsets: dict[TopicPartition, int] = {}
        for message in messages:
            partition = TopicPartition(self._settings.records_topic, message.partition)
            if partition in assigned:
                offsets[partition] = max(offsets.get(partition, 0), message.position + 1)
        if not offsets:
            return
        try:
            async with asyncio.timeout(self._settings.send_timeout_s):
                await consumer.commit(offsets)
        except (KafkaError, IllegalStateError, TimeoutError) as error:
            log.warning("commit_failed error=%s", str(error) or "no answer")

    async def close(self) -> None:
        """Leave the group, within STOP_S and CUT_OFF_S."""
        self._closed = True
        consumer, self._consumer = self._consumer, None
        starting, self._starting = self._starting, None
        if starting is not None and consumer is not None:
            starting.cancel()
            await asyncio.wait({starting}, timeout=CUT_OFF_S)
            await _stop(consumer)

    async def _ready(self, wait_s: float) -> AIOKafkaConsumer | None:
        """Return the consumer once it has its partitions; None while it has not: joining a group takes its time."""
        if self._starting is None or self._consumer is None:
            self._consumer = self._new()
            self._starting = asyncio.create_task(self._consumer.start())
        starting, consumer = self._starting, self._consumer
        if not starting.done():
            await asyncio.wait({starting}, timeout=wait_s)
        if not starting.done():
            return None
        if starting.cancelled() or starting.exception() is not None:
            self._starting = self._consumer = None
            await _stop(consumer)
        starting.result()
        return consumer

    def _new(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES,
            max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
            fetch_max_wait_ms=250,
            request_timeout_ms=int(self._settings.send_timeout_s * 1000),
            **self._settings.client(),
        )
        consumer.subscribe([self._settings.records_topic], listener=self._listener)
        return consumer


class _Epochs(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """Counts changes of what is assigned.

    What was polled and not committed before a change comes again after it, so a sink drops it when the epoch grows. It
    must not drop what came after the change: so the epoch has grown before the first message of an assignment is given.
    """

    def __init__(self) -> None:
        self.epoch = 1
        self._changing = True

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Partitions may go to another member."""
        self.epoch += 1
        self._changing = True

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Partitions may have come from another member."""
        self.settle()
        log.info("partitions_assigned partitions=%s", sorted(each.partition for each in assigned))

    def settle(self) -> None:
        """The assignment is there: the client says so, or its first messages do, which may come a moment earlier."""
        if self._changing:
            self.epoch += 1
            self._changing = False


async def _stop(consumer: AIOKafkaConsumer) -> None:
    """Stop in order, or cut off: a stop waits for answers that may never come."""
    if not await _ended(consumer.stop(), STOP_S):
        log.warning("consumer_cut_off")
        if not await _ended(_cut_off_consumer(consumer), CUT_OFF_S):
            log.warning("consumer_not_ended")


async def _cut_off_consumer(consumer: AIOKafkaConsumer) -> None:
    """End the tasks that a stop would have waited for; see `_cut_off`."""
    coordinator, fetcher = consumer._coordinator, consumer._fetcher
    tasks: set[asyncio.Task[None] | None] = set()
    if coordinator is not None:
        tasks |= {coordinator._coordination_task, coordinator._heartbeat_task, coordinator._commit_refresh_task}
    if fetcher is not None:
        tasks |= {fetcher._fetch_task, *fetcher._pending_tasks}
    running = {task for task in tasks if task is not None and not task.done()}
    for task in running:
        task.cancel()
    await consumer._client.close()
    if running:
        await asyncio.wait(running)


def _message(record: Any) -> Message:
    """Make a Message of a consumed record; one that no gateway wrote has no project, and is the sink's to judge."""
    headers = dict(record.headers)
    received = headers.get("received_us", b"")
    return Message(
        project=headers.get("project", b"").decode(errors="replace"),
        key=record.key or b"",
        value=record.value or b"",
        received_us=int(received) if received.isdigit() else record.timestamp * 1000,
        partition=record.partition,
        position=record.offset,
    )


async def ensure_topics(settings: KafkaSettings, wait_s: float = 30.0) -> list[str]:
    """Make the topics that are missing and return their names; waits `wait_s` for brokers that are not up yet.

    Topics that exist are left as they are. Raises Unavailable, and BadInput where the brokers refuse the settings.
    """
    try:
        async with asyncio.timeout(wait_s):
            while True:
                try:
                    return await _make_missing(settings)
                except KafkaError as error:
                    if not (error.retriable or isinstance(error, KafkaConnectionError)):
                        raise BadInput("kafka", settings.bootstrap, f"it refuses to make topics: {error}") from error
                    log.info("kafka_away error=%s", error)
                    await asyncio.sleep(0.25)
    except TimeoutError as error:
        raise Unavailable(f"no Kafka at {settings.bootstrap} within {wait_s:g} s (RUNTIDE_KAFKA_BOOTSTRAP)") from error


def _topics(settings: KafkaSettings) -> list[NewTopic]:
    kept = {"retention.ms": str(RETENTION_MS), "max.message.bytes": str(REQUEST_BYTES + KIB)}
    records, changes, control = settings.records_topic, settings.changes_topic, settings.control_topic
    return [
        NewTopic(records, settings.partitions, settings.replication, topic_configs=kept),
        NewTopic(changes, settings.partitions, settings.replication, topic_configs=kept),
        NewTopic(control, 1, settings.replication, topic_configs={"cleanup.policy": "compact"}),
    ]


async def _make_missing(settings: KafkaSettings) -> list[str]:
    options = settings.client() | {"request_timeout_ms": int(settings.send_timeout_s * 1000)}
    admin = AIOKafkaAdminClient(**options)
    try:
        await admin.start()
        existing = set(await admin.list_topics())
        missing = [topic for topic in _topics(settings) if topic.name not in existing]
        if not missing:
            return []
        reply = await admin.create_topics(missing)
        for name, code, *rest in reply.topic_errors:
            kind = for_code(code)
            if code and kind is not TopicAlreadyExistsError:
                raise kind(f"{name}: {rest[0] if rest else ''}")
        return [topic.name for topic in missing]
    finally:
        await admin.close()
