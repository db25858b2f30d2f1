"""How far behind the sinks are, in time, as a share of what the topic keeps: asked of the brokers, in no group.

So it can be known while no sink runs, which is when it matters. The age is the broker's: of its own time of appending,
where runtide made the topic.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError

from runtide.bus.kafka.settings import REQUEST_BYTES, KafkaSettings
from runtide.bus.kafka.stopping import STOP_S, ended
from runtide.bus.kafka.topics import HOUR_MS
from runtide.wire.errors import Unavailable

ALARM_SHARE = 0.5
"""From this share of the retention on a person has to look: half of it is left to mend what is broken."""

LOOK_S = 2.0
"""How long the oldest messages are waited for."""


@dataclass(frozen=True, slots=True)
class Lag:
    """One partition: what its group has not stored yet."""

    topic: str
    partition: int
    wanted: int
    """The next offset that the group stores."""
    first: int
    end: int
    seconds: float | None
    """Age of the oldest message that is not stored and still there; 0 where there is none, None where the brokers did
    not hand it out in time.
    """
    retention_s: float | None
    """How long the topic keeps messages; None for ever."""

    @property
    def messages(self) -> int:
        """Not stored, and still there."""
        return max(0, self.end - max(self.wanted, self.first))

    @property
    def share(self) -> float | None:
        """Of the retention, how much has passed for the oldest message; 1 is the moment at which it is deleted."""
        if self.seconds is None:
            return None
        return self.seconds / self.retention_s if self.retention_s else 0.0

    @property
    def alarm(self) -> str:
        """What a person has to know; empty while all is well."""
        where = f"{self.topic} partition {self.partition}"
        if self.wanted < self.first:
            return f"{where}: {self.first - self.wanted} messages were deleted before they were stored"
        if self.seconds is None or self.share is None or self.share < ALARM_SHARE:
            return ""
        return (
            f"{where}: its oldest message that is not stored is {self.seconds / 3600:.1f} h old, {self.share:.0%} of "
            f"the topic's retention; at 100 % it is lost. Mend the sink or the store, or raise retention.ms"
        )


async def measure(settings: KafkaSettings, clock: Callable[[], float] = time.time) -> list[Lag]:
    """Ask the brokers about every partition of the records topic. Raises Unavailable within some `send_timeout_s`."""
    options = {"request_timeout_ms": int(settings.send_timeout_s * 1000), **settings.client()}
    reader = AIOKafkaConsumer(
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=2 * REQUEST_BYTES,
        **options,
    )
    admin = AIOKafkaAdminClient(**options)
    try:
        async with asyncio.timeout(settings.send_timeout_s + LOOK_S):
            await admin.start()
            await reader.start()
            return await _measured(settings, admin, reader, clock)
    except (KafkaError, TimeoutError) as error:
        raise Unavailable(f"Kafka at {settings.bootstrap}: {str(error) or 'no answer'}") from error
    finally:
        await ended(reader.stop(), STOP_S)
        await ended(admin.close(), STOP_S)


async def _measured(
    settings: KafkaSettings, admin: AIOKafkaAdminClient, reader: AIOKafkaConsumer, clock: Callable[[], float]
) -> list[Lag]:
    topic = settings.records_topic
    numbers = sorted((await _partitions(admin, topic)) or ())
    places = [TopicPartition(topic, number) for number in numbers]
    if not places:
        return []
    wanted = await _wanted(admin, settings.group, places)
    reader.assign(places)
    first, end = await reader.beginning_offsets(places), await reader.end_offsets(places)
    behind = {place: max(wanted[place], first[place]) for place in places}
    oldest = await _times(reader, {place: at for place, at in behind.items() if at < end[place]})
    retention_s = await _retention_s(admin, settings)
    now = clock()
    return [
        Lag(
            *(topic, place.partition, wanted[place], first[place], end[place]),
            max(0.0, now - oldest[place]) if place in oldest else None if behind[place] < end[place] else 0.0,
            retention_s,
        )
        for place in places
    ]


async def _partitions(admin: AIOKafkaAdminClient, topic: str) -> Sequence[int]:
    found = await admin.describe_topics([topic])
    return [each["partition"] for each in found[0]["partitions"]] if found else []


async def _wanted(
    admin: AIOKafkaAdminClient, group: str, places: Sequence[TopicPartition]
) -> dict[TopicPartition, int]:
    """The offset at which the group goes on in each partition; 0 where it never committed."""
    while True:
        try:
            committed = await admin.list_consumer_group_offsets(group, partitions=list(places))
        except KafkaError as error:  # the first question about a group makes brokers look for its coordinator
            if not error.retriable:
                raise
            await asyncio.sleep(0.1)
        else:
            return {place: max(0, committed[place].offset) if place in committed else 0 for place in places}


async def _times(reader: AIOKafkaConsumer, places: dict[TopicPartition, int]) -> dict[TopicPartition, float]:
    """When the messages at these offsets were written, of those that come in time; seconds since the epoch."""
    reader.pause(*(place for place in reader.assignment() if place not in places))
    for place, at in places.items():
        reader.seek(place, at)
    found: dict[TopicPartition, float] = {}
    until = time.monotonic() + LOOK_S
    while len(found) < len(places) and (left := until - time.monotonic()) > 0:
        for place, records in (await reader.getmany(timeout_ms=int(left * 1000))).items():
            found.setdefault(place, records[0].timestamp / 1000)
            reader.pause(place)
    return found


async def _retention_s(admin: AIOKafkaAdminClient, settings: KafkaSettings) -> float | None:
    """The topic's retention.ms; as runtide makes topics where the brokers do not say; None for ever."""
    wanted = ConfigResource(ConfigResourceType.TOPIC, settings.records_topic, {"retention.ms": None})
    milliseconds = settings.retention_hours * HOUR_MS
    try:
        answers = await admin.describe_configs([wanted])
    except IncompatibleBrokerVersion:
        answers = []
    for code, _, _, _, entries in (resource for answer in answers for resource in answer.resources):
        told: dict[str, Any] = {name: value for name, value, *_ in entries}
        if not code and told.get("retention.ms"):
            milliseconds = int(told["retention.ms"])
    return milliseconds / 1000 if milliseconds > 0 else None
