"""How aiokafka's clients are ended in bounded time: in order if they can, else cut off.

Their own stops wait for answers that may never come, and they have no other way to end but their insides, which are
touched here only; so aiokafka is pinned.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError

log = logging.getLogger(__name__)

STOP_S = 5.0
"""How long a producer or consumer may take to end in order; then it is cut off."""

CUT_OFF_S = 2.0
"""How long cutting off may take; then it is left to the end of the process."""


async def ended(stopping: Coroutine[Any, Any, None], within_s: float) -> bool:
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


async def cut_off_producer(producer: AIOKafkaProducer) -> None:
    """End a producer that may not end by itself."""
    producer._closed = True  # else it complains that nobody stopped it
    producer._message_accumulator.fail_all(KafkaConnectionError("the producer was thrown away"))
    sender = producer._sender.sender_task
    if sender is not None:
        sender.remove_done_callback(producer._sender._fail_all)  # it would fail a transaction that there is not
        sender.cancel()
    closed = await ended(producer.client.close(), CUT_OFF_S)
    if sender is not None:
        await asyncio.wait({sender}, timeout=CUT_OFF_S)
        if sender.done() and not sender.cancelled() and (error := sender.exception()) is not None:
            log.info("sender_ended error=%r", error)
    if not closed:
        log.warning("producer_not_ended")


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop in order, or cut off: a stop waits for answers that may never come."""
    if not await ended(consumer.stop(), STOP_S):
        log.warning("consumer_cut_off")
        if not await ended(_cut_off_consumer(consumer), CUT_OFF_S):
            log.warning("consumer_not_ended")


async def _cut_off_consumer(consumer: AIOKafkaConsumer) -> None:
    """End the tasks that a stop would have waited for."""
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
