"""The consumer's side: a member of a group.

It waits while the brokers are away, and after any other error it begins again with another client. It never chooses
where to go on: a partition that does not have the offset that the group wants is stopped until a person accepts that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)

from runtide.bus import SCHEMA, Message
from runtide.bus.kafka.losses import Loss, Place
from runtide.bus.kafka.membership import Membership
from runtide.bus.kafka.repeats import quieten
from runtide.bus.kafka.settings import KafkaSettings
from runtide.bus.kafka.stopping import CUT_OFF_S, stop_consumer
from runtide.wire.errors import NotAllowed
from runtide.wire.limits import MIB

log = logging.getLogger(__name__)

POLL_MESSAGES = 128
"""At most this many messages come from one poll."""

FETCH_BYTES = 4 * MIB
"""Of one partition in one fetch."""

MAX_POLL_INTERVAL_MS = 3_600_000
"""A sink that waits for ClickHouse stays in the group this long without a poll."""

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


class KafkaConsumer:
    """The sink's side: a member of the group. Begins to connect with the first poll()."""

    def __init__(
        self, settings: KafkaSettings, group: str | None = None, accepted: Mapping[Place, int] | None = None
    ) -> None:
        """`accepted` are losses that a person has accepted: see `losses`."""
        quieten()
        self._settings = settings
        self._accepted = accepted or {}
        self._group = group or settings.group
        self._consumer: AIOKafkaConsumer | None = None
        self._starting: asyncio.Task[None] | None = None
        self._lost: dict[TopicPartition, Loss] = {}
        """Partitions of ours that are stopped."""
        self._decided: dict[TopicPartition, int] = {}
        """The wanted offsets on which it was decided already."""
        self._membership = Membership(settings.session_timeout_s, forget=self._forget)
        self._closed = False
        self._is_away = False

    @property
    def epoch(self) -> int:
        """Grows whenever partitions were assigned or lost."""
        return self._membership.epoch

    def hold(self, epoch: int) -> AbstractContextManager[bool]:
        """Say whether what was polled in an epoch is still ours; raises Lapsed. See Consumer."""
        return self._membership.hold(epoch)

    @property
    def stopped(self) -> Sequence[str]:
        """Partitions of ours that do not have the offset that the group wants, one text each."""
        return [str(loss) for _, loss in sorted(self._lost.items())]

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
            self._membership.settle()
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
        except OffsetOutOfRangeError as error:
            for partition, wanted in error.args[0].items():
                await self._missed(consumer, partition, wanted)
        except NoOffsetForPartitionError as error:
            await self._missed(consumer, error.args[0], None)
        return {}

    async def _missed(self, consumer: AIOKafkaConsumer, partition: TopicPartition, wanted: int | None) -> None:
        """Decide what becomes of a partition that lacks the offset that is wanted; None: the group never committed.

        Without a commit all of the topic is wanted. Where it lacks its beginning, either the group is new or its
        commits have expired, which Kafka does not tell apart.
        """
        if partition not in consumer.assignment() or self._decided.get(partition, -1) == (wanted or 0):
            return  # the same error once more: the client had it before it heard of the decision
        first = (await consumer.beginning_offsets([partition]))[partition]
        end = (await consumer.end_offsets([partition]))[partition]
        if partition not in consumer.assignment():
            return
        consumer.seek(partition, first)
        loss = Loss(partition.topic, partition.partition, wanted or 0, first, end)
        if loss.wanted == first:
            return
        self._decided[partition] = loss.wanted
        if self._accepted.get((partition.topic, partition.partition)) == loss.wanted:
            log.error("loss_accepted topic=%s partition=%d wanted=%d goes_on_at=%d", *partition, loss.wanted, first)
            await self._commit(consumer, {partition: first})
            return
        consumer.pause(partition)
        self._lost[partition] = loss
        log.error("partition_stopped %s", loss)

    def _forget(self) -> None:
        """What was decided goes with the partitions: whoever gets them decides anew."""
        self._lost.clear()
        self._decided.clear()

    async def _away(self, error: KafkaError, rest_s: float) -> None:
        """Wait out brokers that are away; any other error leaves a consumer in a bad state, and it is replaced."""
        passes = error.retriable or isinstance(error, KafkaConnectionError)
        if not (passes and self._is_away):
            log.warning("kafka_away error=%r", error)
        self._is_away = True
        consumer = self._consumer
        if not passes and consumer is not None:
            self._consumer = self._starting = None
            await self._membership.let_go()
            await stop_consumer(consumer)
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
        if offsets:
            await self._commit(consumer, offsets)

    async def _commit(self, consumer: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
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
            await stop_consumer(consumer)

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
            await stop_consumer(consumer)
        starting.result()
        return consumer

    def _new(self) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="none",  # an error, on which `_missed` decides
            max_partition_fetch_bytes=FETCH_BYTES,
            max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
            fetch_max_wait_ms=250,
            session_timeout_ms=int(self._settings.session_timeout_s * 1000),
            heartbeat_interval_ms=int(self._settings.session_timeout_s * 300),
            request_timeout_ms=int(self._settings.send_timeout_s * 1000),
            **self._settings.client(),
        )
        self._membership.listen(consumer)
        consumer.subscribe([self._settings.records_topic], listener=self._membership)
        return consumer


def _message(record: Any) -> Message:
    """Make a Message of a consumed record; one that no gateway wrote has no project, and is the sink's to judge."""
    headers = dict(record.headers)
    received, ahead = headers.get("received_us", b""), headers.get("ahead_us", b"")
    return Message(
        project=headers.get("project", b"").decode(errors="replace"),
        key=record.key or b"",
        value=record.value or b"",
        received_us=int(received) if received.isdigit() else record.timestamp * 1000,
        ahead_us=int(ahead) if ahead.removeprefix(b"-").isdigit() else None,
        partition=record.partition,
        position=record.offset,
        schema=headers.get("schema", SCHEMA.encode()).decode(errors="replace"),
    )
