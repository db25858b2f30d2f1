"""Ships the streams of one destination: ranges of many streams in one Push, one Push in flight per stream.

Promises: small Pushes when little happens, full ones under load, at most one every `PACE_S` unless they are full; after
an error full-jitter backoff from 0.1 to 30 s, never earlier than the gateway asked for; what travels in vain is less
than what arrives, and a Push is never larger than the network carries within its deadline; a stream that is put off
waits alone; no byte is given up but by the gateway's refusal of its record. Memory: at most `PUSHES` Pushes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable

from runtide.agent.gateway import PUSH_TIMEOUT_S, Failure, GatewayClient, Verdict
from runtide.agent.streams import Piece, TailedStream
from runtide.v1.ingest_pb2 import PushRequest, Refusal
from runtide.wire.crash import crash_point
from runtide.wire.limits import BATCH_BYTES, KIB, PUSH_BYTES, PUSH_RANGES

log = logging.getLogger(__name__)

PACE_S = 0.05
PUSHES = 4
FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 30.0
NOT_ALLOWED_S = 10.0
UNREADABLE_S = 5.0
"""How long a stream is left alone that cannot be read."""
ENVELOPE_BYTES = 512 * KIB
"""What a Push may carry beside bodies: key sets, identities."""
FIRST_PUSH_BYTES = 256 * KIB
LEAST_PUSH_BYTES = 64 * KIB
_FULL_BYTES = PUSH_BYTES // 4

Batch = list[tuple[TailedStream, Piece]]


class Backoff:
    """Full-jitter exponential backoff."""

    def __init__(self, first_s: float = FIRST_BACKOFF_S, last_s: float = LAST_BACKOFF_S) -> None:
        """Delays are uniform in [0, bound); the bound doubles from `first_s` to `last_s`."""
        self._first_s, self._last_s = first_s, last_s
        self.failures = 0

    def next(self, asked_s: float | None = None) -> float:
        """Return how long to wait after another failure; at least what the other side asked for."""
        bound = min(self._last_s, self._first_s * 2 ** min(self.failures, 20))
        self.failures += 1
        delay = random.uniform(0.0, bound)  # noqa: S311  spreads load, guards nothing
        return delay if asked_s is None else asked_s + min(delay, asked_s / 4)

    def reset(self) -> None:
        """Start again after a success."""
        self.failures = 0


class PushSize:
    """How many bytes a Push may carry.

    What is refused, or breaks off, comes again: so the first one is small, one that passes well within its deadline
    lets the next be larger by a quarter, and one that has travelled in vain halves it. So a project at its limit sends
    little and often.
    """

    def __init__(self, soon_s: float) -> None:
        """A Push that takes longer than `soon_s` lets none grow."""
        self._soon_s = soon_s
        self.bytes = FIRST_PUSH_BYTES

    def passed(self, size: int, took_s: float) -> None:
        """A Push of this size was answered. A small one says nothing of larger ones."""
        if 2 * size >= self.bytes and took_s < self._soon_s:
            self.bytes = min(PUSH_BYTES, self.bytes * 5 // 4)

    def in_vain(self) -> None:
        """A Push has to travel again."""
        self.bytes = max(LEAST_PUSH_BYTES, self.bytes // 2)


class Shipper:
    """The loop of one destination."""

    def __init__(
        self,
        name: str,
        client: GatewayClient,
        agent: str,
        clock: Callable[[], float] = time.monotonic,
        push_timeout_s: float = PUSH_TIMEOUT_S,
    ) -> None:
        """`agent` names the sender in each Push."""
        self._push_timeout_s = push_timeout_s
        self._size = PushSize(push_timeout_s / 4)
        self.streams: set[TailedStream] = set()
        self.client = client
        self.error = ""
        self.pushes = 0
        self._name, self._agent, self._clock = name, agent, clock
        self._ready: deque[TailedStream] = deque()
        self._queued: set[TailedStream] = set()
        self._wake = asyncio.Event()
        self._backoff = Backoff()
        self._not_before = 0.0
        self._asked_until = 0.0
        self._max_ranges = PUSH_RANGES
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Something is queued or in flight."""
        return bool(self._ready or self._tasks)

    def offer(self, stream: TailedStream) -> None:
        """Say that a stream has something to ship."""
        if not stream.in_flight and stream not in self._queued and stream.put_off_until <= self._clock():
            self._queued.add(stream)
            self._ready.append(stream)
            self._wake.set()

    def drop(self, stream: TailedStream) -> None:
        """Ship a stream no longer; what of it is in flight may still arrive."""
        self.streams.discard(stream)
        if stream in self._queued:
            self._queued.remove(stream)
            self._ready.remove(stream)

    def hurry(self) -> None:
        """Try now, whatever our own backoff says: somebody waits, or the gateway has just answered."""
        self._not_before = self._asked_until
        self._wake.set()

    async def run(self) -> None:
        """Ship until cancelled."""
        try:
            while True:
                await self._rest()
                try:
                    batch, request = self._collect()
                except Exception:
                    log.exception("gateway=%s nothing collected", self._name)
                    self._not_before = self._clock() + UNREADABLE_S
                    continue
                if batch:
                    task = asyncio.create_task(self._push(batch, request))
                    self._tasks.add(task)
                    task.add_done_callback(self._done)
        finally:
            for task in self._tasks:
                task.cancel()

    async def drain(self, timeout_s: float) -> None:
        """Wait for the Pushes in flight."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("gateway=%s push failed", self._name, exc_info=task.exception())

    async def _rest(self) -> None:
        """Sleep until another Push may start and there is something for it."""
        while True:
            self._wake.clear()
            allowed = 1 if self._backoff.failures else PUSHES
            pause = self._not_before - self._clock()
            if not self._ready or len(self._tasks) >= allowed:
                await self._wake.wait()
            elif pause > 0:
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    return
            else:
                return

    def _collect(self) -> tuple[Batch, PushRequest]:
        """Take ranges round robin until the Push is full or nothing waits."""
        batch: Batch = []
        request = PushRequest(agent=self._agent)
        room, envelope, turn = self._size.bytes, ENVELOPE_BYTES, self._ready
        self._ready, self._queued = deque(), set()
        max_ranges = self._max_ranges
        while turn and room > 0 and len(batch) < max_ranges:
            stream = turn.popleft()
            piece = self._take(stream, min(BATCH_BYTES, room))
            if piece is None:
                continue
            if batch and (len(piece.body) > room or piece.beside > envelope):
                stream.reader.rewind(piece.offset)
                turn.append(stream)
                break
            if not self._add(request, stream, piece):
                continue
            stream.in_flight = True
            batch.append((stream, piece))
            room -= len(piece.body)
            envelope -= piece.beside
            turn.append(stream)
        for stream in turn:
            self.offer(stream)
        full = _size(batch) >= _FULL_BYTES
        self._not_before = self._clock() + (0.0 if full or not batch else PACE_S)
        return batch, request

    def _add(self, request: PushRequest, stream: TailedStream, piece: Piece) -> bool:
        """Put a range into a Push; False where what its stream.json says does not fit into a message."""
        try:
            request.ranges.append(stream.message(piece))
        except (TypeError, ValueError) as error:
            log.warning("stream=%s not sent: %s", stream.info.stream, error)
            stream.say_error(f"stream.json: {error}")
            stream.reader.rewind(piece.offset)
            stream.poll_due = self._clock() + UNREADABLE_S
            return False
        return True

    def _take(self, stream: TailedStream, limit: int) -> Piece | None:
        try:
            return stream.take(limit)
        except OSError as error:
            log.warning("stream=%s unreadable: %s", stream.info.stream, error)
        except Exception:
            log.exception("stream=%s unreadable", stream.info.stream)
            stream.say_error("unreadable, see agent.log")
        stream.poll_due = self._clock() + UNREADABLE_S
        return None

    async def _push(self, batch: Batch, request: PushRequest) -> None:
        self.pushes += 1
        begun = self._clock()
        try:
            acks = await self.client.push(request, self._push_timeout_s)
        except Failure as failure:
            self._failed(batch, failure)
        except Exception as error:
            log.exception("gateway=%s push failed", self._name)
            self._failed(batch, Failure(Verdict.RETRY, f"gateway at {self._name}: {type(error).__name__}: {error}"))
        else:
            self._size.passed(_size(batch), self._clock() - begun)
            self._answered(batch, acks)
        finally:
            for stream in {stream for stream, _ in batch}:
                stream.settle()
                if stream in self.streams:
                    self.offer(stream)

    def _answered(self, batch: Batch, acks: list) -> None:  # type: ignore[type-arg]
        now = self._clock()
        crash_point("agent.acknowledged")
        for (stream, piece), ack in zip(batch, acks, strict=True):
            try:
                if ack.HasField("refusal"):
                    stream.refuse(piece, ack.refusal, now)
                elif ack.HasField("later"):
                    asked_s = ack.later.retry_after_ms / 1000
                    stream.put_off(now + max(PACE_S, asked_s) * random.uniform(1.0, 1.25), ack.later.text)  # noqa: S311
                else:
                    stream.acknowledge(piece, ack.acknowledged, now)
            except Exception:  # its neighbours have been answered too; the range comes again
                log.exception("stream=%s offset=%d answer not taken", stream.info.stream, piece.offset)
        self._max_ranges = min(PUSH_RANGES, self._max_ranges * 2)
        self._backoff.reset()
        self._say("")

    def _failed(self, batch: Batch, failure: Failure) -> None:
        if failure.verdict is Verdict.REFUSED:
            if len(batch) > 1:
                self._max_ranges = max(1, len(batch) // 2)
            else:
                stream, piece = batch[0]
                stream.refuse(piece, Refusal(code="invalid_argument", limit=failure.text), self._clock())
            return
        if failure.in_vain:
            self._size.in_vain()
        delay = self._backoff.next(failure.delay_s)
        if failure.verdict is Verdict.NOT_ALLOWED:
            delay = max(delay, NOT_ALLOWED_S)
        self._not_before = max(self._not_before, self._clock() + delay)
        if failure.delay_s is not None:
            self._asked_until = self._not_before
        self._say(failure.text)

    def _say(self, error: str) -> None:
        """Log a change of the state, once, and tell the streams that wait."""
        if error != self.error:
            log.info("gateway=%s %s", self._name, error or "answers")
            self.error = error
            for stream in self.streams:
                stream.say_error(error)


def _size(batch: Batch) -> int:
    return sum(len(piece.body) for _, piece in batch)
