"""A bus within one process and one asyncio loop: publishing resolves when the consumer has committed.

Promises: what publish() returned for was committed by the consumer; messages of one project arrive in the order in
which they were published, and where several projects wait they are served in turn; no more than `max_bytes` are held.
It keeps nothing over a restart, and need not: what was not committed was not acknowledged, and comes again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from runtide.bus import Message
from runtide.bus.fair import FairQueue
from runtide.wire.errors import Busy, Unavailable
from runtide.wire.limits import MIB

RETRY_AFTER_S = 0.5
"""What a publisher is told when there is no room: about two flushes of the sink."""

POLL_MESSAGES = 512
"""At most this many messages come from one poll."""

POLL_BYTES = MIB
"""A poll ends with the message that reaches this: what comes meanwhile gets its turn in the next one."""


@dataclass(slots=True)
class _Held:
    """A message that was published and is not committed yet."""

    message: Message
    done: asyncio.Future[None]


class LocalBus:
    """Both sides of the bus. Not for use from several threads."""

    def __init__(self, max_bytes: int = 256 * MIB) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        """Bytes published and not committed."""
        self._waiting: FairQueue[_Held] = FairQueue()
        self._polled: deque[_Held] = deque()  # not committed, in order of position
        self._next_position = 0
        self._arrived = asyncio.Event()
        self._closed = False
        self._publisher = LocalPublisher(self)
        self._consumer = LocalConsumer(self, 1)

    @property
    def publisher(self) -> LocalPublisher:
        """The gateway's side."""
        return self._publisher

    @property
    def consumer(self) -> LocalConsumer:
        """The sink's side. After it was closed: a new one, which begins with what is published from then on."""
        if self._consumer.closed:
            self._consumer = LocalConsumer(self, self._consumer.epoch + 1)
        return self._consumer

    def put(self, message: Message) -> asyncio.Future[None]:
        """Take a message in. Raises Busy where there is no room, Unavailable where nobody will consume it."""
        if self._closed or self._consumer.closed:
            raise Unavailable("the bus is closed: nothing is stored now")
        size = len(message.value)
        if self.held_bytes and self.held_bytes + size > self.max_bytes:
            raise Busy(f"the bus holds {self.held_bytes} bytes, its limit is {self.max_bytes}", RETRY_AFTER_S)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put(message.project, size, _Held(message, done))
        self.held_bytes += size
        self._arrived.set()
        return done

    async def take(self, wait_s: float) -> list[Message]:
        """Give what was not given yet, waiting for the first."""
        if not self._waiting:
            self._arrived.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._arrived.wait()
            except TimeoutError:
                return []
        found: list[Message] = []
        size = 0
        while self._waiting and len(found) < POLL_MESSAGES and size < POLL_BYTES:
            held = self._waiting.get()
            held.message = replace(held.message, partition=0, position=self._next_position)
            self._next_position += 1
            self._polled.append(held)
            found.append(held.message)
            size += len(held.message.value)
        return found

    def settle(self, position: int) -> None:
        """Resolve everything up to and including `position`, as far as it was given out."""
        while self._polled and self._polled[0].message.position <= position:
            held = self._polled.popleft()
            self.held_bytes -= len(held.message.value)
            if not held.done.done():  # the publisher may have gone away
                held.done.set_result(None)

    def fail(self) -> None:
        """Give up everything that is held: its publishers are told that it was not stored."""
        while self._polled or self._waiting:
            held = self._polled.popleft() if self._polled else self._waiting.get()
            if not held.done.done():
                held.done.set_exception(Unavailable("the sink stopped before this was stored"))
                held.done.exception()  # seen: a publisher that went away must not leave a warning behind
        self.held_bytes = 0
        self._arrived.set()

    def close(self) -> None:
        """Take nothing more in."""
        self._closed = True
        self.fail()


class LocalPublisher:
    """The gateway's side of a LocalBus."""

    def __init__(self, bus: LocalBus) -> None:
        self._bus = bus

    async def publish(self, message: Message) -> None:
        """Return once the consumer has committed the message. Raises Busy and Unavailable."""
        await self._bus.put(message)

    async def close(self) -> None:
        """Stop: what is not committed yet counts as not stored."""
        self._bus.close()


class LocalConsumer:
    """The sink's side of a LocalBus."""

    def __init__(self, bus: LocalBus, epoch: int) -> None:
        self._bus = bus
        self._epoch = epoch
        self.closed = False

    @property
    def epoch(self) -> int:
        """The same for the whole life of a consumer; the next consumer of the bus has a higher one."""
        return self._epoch

    @property
    def stopped(self) -> Sequence[str]:
        """Nothing is ever lost before it was consumed."""
        return ()

    async def poll(self, wait_s: float) -> Sequence[Message]:
        """Return what has come, in order; empty after `wait_s` without anything, or once closed."""
        if self.closed:
            return ()
        return await self._bus.take(wait_s)

    async def commit(self, messages: Sequence[Message]) -> None:
        """Resolve the publishing of these messages and of all before them."""
        if messages and not self.closed:
            self._bus.settle(max(message.position for message in messages))

    def hold(self, epoch: int) -> AbstractContextManager[bool]:
        """Say whether an epoch is this one: nobody else consumes."""
        return nullcontext(epoch == self._epoch)

    async def close(self) -> None:
        """Leave. What was polled and not committed was not stored, and its publishers hear so."""
        if not self.closed:
            self.closed = True
            self._bus.fail()
