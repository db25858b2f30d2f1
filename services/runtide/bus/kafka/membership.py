"""Whether what this member of the group has polled is still its own, as far as it can know by itself.

Partitions change hands in two ways. Either this member is told, and lets go of them: it does not before an insert that
is under way has its answer. Or the brokers have not heard of it for its session, and nobody tells it: so it trusts its
partitions for no longer than a session after the last question that the brokers have answered, counted from when it
asked. A process that was frozen meanwhile finds that out by the clock, before it stores anything more.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.protocol.group import HeartbeatRequest, SyncGroupRequest

from runtide.bus import Lapsed

log = logging.getLogger(__name__)

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""One that goes on while the machine is suspended, where there is one."""


def elapsed_s() -> float:
    """Seconds by a clock that nobody sets."""
    return time.clock_gettime(_CLOCK)


class Membership(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """Counts changes of what is assigned, and knows how long it may be trusted.

    What was polled and not committed before a change comes again after it, so a sink drops it when the epoch grows. It
    must not drop what came after the change: so the epoch has grown before the first message of an assignment is given.
    """

    def __init__(
        self, session_s: float, clock: Callable[[], float] = elapsed_s, forget: Callable[[], None] = lambda: None
    ) -> None:
        """`forget` is called when the assignment is trusted no longer."""
        self.epoch = 1
        self._changing = True
        self._session_s, self._forget, self._clock = session_s, forget, clock
        self._heard_at = float("-inf")
        self._held = threading.Lock()

    def listen(self, consumer: AIOKafkaConsumer) -> None:
        """Note when the group has answered; its client keeps that to itself."""
        client = consumer._client
        send = client.send

        async def listening(node_id: object, request: object, **more: object) -> Any:
            asked_at = self._clock()
            answer = await send(node_id, request, **more)
            # while the group is changing (an error code too) the session does not count any more
            if isinstance(request, HeartbeatRequest | SyncGroupRequest) and answer.error_code == 0:
                self._heard_at = asked_at
            return answer

        client.send = listening

    @contextmanager
    def hold(self, epoch: int) -> Iterator[bool]:
        """See Consumer. For threads other than the loop's."""
        with self._held:
            is_ours = epoch == self.epoch
            silent_s = self._clock() - self._heard_at
            if is_ours and silent_s >= self._session_s:
                raise Lapsed(
                    f"the group has not been heard of for {silent_s:.1f} s, the session is {self._session_s:g} s"
                )
            yield is_ours

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Partitions may go to another member, once this returns."""
        await self.let_go()

    async def let_go(self) -> None:
        """Trust the assignment no longer, and wait for an insert under way."""
        self.epoch += 1
        self._changing = True
        self._forget()
        if not await asyncio.to_thread(self._wait_until_free):
            log.warning("an insert goes on while partitions change hands; whoever gets them waits for it")

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Partitions may have come from another member."""
        self.settle()
        log.info("partitions_assigned partitions=%s", sorted(each.partition for each in assigned))

    def settle(self) -> None:
        """The assignment is there: the client says so, or its first messages do, which may come a moment earlier."""
        if self._changing:
            self.epoch += 1
            self._changing = False

    def _wait_until_free(self) -> bool:
        """Wait for an insert under way; not for longer than a session, after which others get the partitions anyway."""
        free = self._held.acquire(timeout=self._session_s)
        if free:
            self._held.release()
        return free
