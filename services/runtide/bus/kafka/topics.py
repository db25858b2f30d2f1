"""The topics: made where they are missing, and left alone where they are not."""

from __future__ import annotations

import asyncio
import logging

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError, KafkaError, TopicAlreadyExistsError, for_code

from runtide.bus.kafka.settings import REQUEST_BYTES, KafkaSettings
from runtide.wire.errors import BadInput, Unavailable
from runtide.wire.limits import KIB

log = logging.getLogger(__name__)

HOUR_MS = 3600 * 1000


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
    kept = {
        "retention.ms": str(settings.retention_hours * HOUR_MS),
        "retention.bytes": str(settings.retention_bytes),
        "max.message.bytes": str(REQUEST_BYTES + KIB),
        # The brokers' clock, not the gateway's: one that is wrong would have messages refused, or deleted at once.
        "message.timestamp.type": "LogAppendTime",
    }
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
