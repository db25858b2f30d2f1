"""Entries on Kafka's compacted topic `control`. In no group: every gateway reads all of it, and goes on reading.

While the brokers are away whoever follows keeps what was told last.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from runtide.bus.control import Entry, Told
from runtide.bus.kafka.repeats import quieten
from runtide.bus.kafka.settings import KafkaSettings
from runtide.bus.kafka.stopping import STOP_S, ended
from runtide.wire.errors import Unavailable

log = logging.getLogger(__name__)

POLL_S = 0.5
AGAIN_S = 1.0
"""How long to wait before connecting again."""


class KafkaControl:
    """Entries as messages: key, and the entry as JSON. The last one of a key counts."""

    def __init__(self, settings: KafkaSettings) -> None:
        quieten()
        self._settings = settings

    async def read(self) -> Mapping[str, Entry]:
        """Return all entries. Raises Unavailable within `send_timeout_s`."""
        try:
            async with asyncio.timeout(self._settings.send_timeout_s), self._consumer() as consumer:
                return await _all(consumer)
        except (KafkaError, TimeoutError) as error:
            raise self._away(error) from error

    async def put(self, key: str, entry: Entry) -> None:
        """Return after acks=all. Raises Unavailable within `send_timeout_s`; the entry may be kept all the same."""
        options = {"request_timeout_ms": int(self._settings.send_timeout_s * 1000), **self._settings.client()}
        producer = AIOKafkaProducer(acks="all", **options)
        try:
            async with asyncio.timeout(self._settings.send_timeout_s):
                await producer.start()
                await producer.send_and_wait(
                    self._settings.control_topic, key=key.encode(), value=json.dumps(entry).encode()
                )
        except (KafkaError, TimeoutError) as error:
            raise self._away(error) from error
        finally:
            await ended(producer.stop(), STOP_S)

    async def follow(self, told: Told) -> None:
        """Tell all entries once the topic was read to its end, and again whenever more came."""
        while True:
            try:
                async with self._consumer() as consumer:
                    entries = await _all(consumer)
                    told(entries)
                    while True:
                        if await _take(consumer, entries):
                            told(entries)
            except KafkaError as error:
                log.warning("control_away error=%r", error)
            await asyncio.sleep(AGAIN_S)

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        options = {"request_timeout_ms": int(self._settings.send_timeout_s * 1000), **self._settings.client()}
        consumer = AIOKafkaConsumer(group_id=None, enable_auto_commit=False, auto_offset_reset="earliest", **options)
        try:
            await consumer.start()
            topic = self._settings.control_topic
            await consumer._client.force_metadata_update()  # it asks for topics in a group only
            partitions = consumer.partitions_for_topic(topic) or {0}
            consumer.assign([TopicPartition(topic, partition) for partition in partitions])
            await consumer.seek_to_beginning()
            yield consumer
        finally:
            await ended(consumer.stop(), STOP_S)

    def _away(self, error: Exception) -> Unavailable:
        why = str(error) or f"no answer within {self._settings.send_timeout_s:g} s"
        return Unavailable(f"Kafka at {self._settings.bootstrap}: {why} (RUNTIDE_KAFKA_BOOTSTRAP)")


async def _all(consumer: AIOKafkaConsumer) -> dict[str, Entry]:
    """Read to where the topic ended when this began."""
    entries: dict[str, Entry] = {}
    ends = await consumer.end_offsets(list(consumer.assignment()))
    while True:
        behind = [partition for partition, end in ends.items() if await consumer.position(partition) < end]
        if not behind:
            return entries
        await _take(consumer, entries)


async def _take(consumer: AIOKafkaConsumer, entries: dict[str, Entry]) -> bool:
    """Put what has come into `entries`, and say whether anything has."""
    came = False
    for records in (await consumer.getmany(timeout_ms=int(POLL_S * 1000))).values():
        for record in records:
            try:
                key, entry = (record.key or b"").decode(), json.loads(record.value or b"")
                if not isinstance(entry, dict):
                    raise ValueError("no object")
            except ValueError:
                log.warning("control_entry_not_understood partition=%d position=%d", record.partition, record.offset)
                continue
            entries[key] = entry
            came = True
    return came
