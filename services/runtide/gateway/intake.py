"""From a checked Push to the bus and back: order, budget, and what a caller that went away leaves behind.

Promises: ranges of one stream go to the bus in the order of the Push; an Ack is given only after the bus has taken the
range; a caller that goes away changes nothing (publishing goes on), and when it comes back with the same range it joins
the publishing under way instead of beginning another. A limit of a project ends the whole Push before anything is spent
on it; a limit of one run concerns its own ranges only.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from runtide.bus import Message, Publisher, message_key
from runtide.gateway.checks import check_push, check_range, end_of
from runtide.gateway.limits import Limits, OverLimit, Rates
from runtide.gateway.metrics import Metrics
from runtide.gateway.runs import Runs
from runtide.gateway.tokens import DEFAULT_PROJECT
from runtide.v1 import ingest_pb2 as pb
from runtide.wire.clocks import ahead
from runtide.wire.crash import crash_point
from runtide.wire.errors import BadInput, Busy, RuntideError, Unavailable
from runtide.wire.framing import Checked

log = logging.getLogger(__name__)

IN_FLIGHT_RETRY_S = 0.5
"""What a caller is told when too many bytes are under way: about two flushes of the sink."""


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A range that is being published."""

    message: Message
    task: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class _Taken:
    """A sound range of a Push, and its publishing."""

    range: pb.Range
    checked: Checked
    task: asyncio.Task[None]


class Intake:
    """Publishes the ranges of Pushes."""

    def __init__(
        self,
        publisher: Publisher,
        limits: Limits,
        metrics: Metrics,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        publish_timeout_s: float,
    ) -> None:
        self._publisher, self._limits, self._metrics = publisher, limits, metrics
        self._clock, self._monotonic, self._timeout_s = clock, monotonic, publish_timeout_s
        self._rates = Rates(limits, monotonic)
        self._runs = Runs(limits, self._rates, monotonic)
        self._under_way: dict[tuple[str, str, int, int], _UnderWay] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight_bytes = 0
        self._in_flight_of: Counter[str] = Counter()
        self._unavailable_at: float | None = None

    def unavailable_within(self, seconds: float) -> bool:
        """Say whether the bus did not answer at some time in the last `seconds`."""
        return self._unavailable_at is not None and self._monotonic() - self._unavailable_at < seconds

    async def push(self, project: str | None, request: pb.PushRequest) -> pb.PushResponse:
        """Publish all ranges; `project` is the token's, None where each range says its own.

        Raises BadInput, Busy and Unavailable for the whole Push; what was begun before goes on.
        """
        size = check_push(request, self._limits)
        for range_ in request.ranges:
            range_.project = project or range_.project or DEFAULT_PROJECT
        try:
            self._admit(request, size)
            ahead_us = ahead(request.sent_us, int(self._clock() * 1_000_000))
            crash_point("gateway.received")
            taken: list[_Taken | pb.Refusal | pb.Later] = []
            put_off: dict[str, pb.Later] = {}
            for range_ in request.ranges:
                verdict = put_off.get(range_.stream) or self._judge(range_)
                if isinstance(verdict, Checked):
                    taken.append(_Taken(range_, verdict, await self._begin(range_, ahead_us)))
                    continue
                taken.append(verdict)
                if isinstance(verdict, pb.Later):
                    put_off[range_.stream] = verdict
            await self._finish([each.task for each in taken if isinstance(each, _Taken)])
        except Busy as error:
            self._metrics.limited.labels(error.limit if isinstance(error, OverLimit) else "bus").inc()
            raise
        crash_point("gateway.published")
        return pb.PushResponse(acks=map(self._ack, request.ranges, taken))

    async def drain(self, timeout_s: float) -> int:
        """Wait for what is being published, and return how much of it is not done by then."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        return len(self._tasks)

    def _admit(self, request: pb.PushRequest, size: int) -> None:
        """Refuse a Push that there is no room for, before anything is spent on it."""
        if not request.ranges:
            return
        project, limits = request.ranges[0].project, self._limits
        new = sum(len(range_.body) for range_ in request.ranges if _key(range_) not in self._under_way)
        for limit, held, most in (
            ("in_flight_bytes", self._in_flight_bytes, limits.in_flight_bytes),
            ("project_in_flight_bytes", self._in_flight_of[project], limits.project_in_flight_bytes),
        ):
            if held and held + new > most:
                value = f"{new} bytes beside {held} that are under way"
                raise OverLimit(limit, most, project, value, IN_FLIGHT_RETRY_S)
        self._rates.charge(project, size)

    def _judge(self, range_: pb.Range) -> Checked | pb.Refusal | pb.Later:
        """Say whether one range is sound and keeps to the limits of its run, and count its points if so."""
        checked = check_range(range_, self._limits)
        if isinstance(checked, pb.Refusal):
            return checked
        against = self._runs.judge(range_, checked)
        if against is None:
            self._rates.spent(range_.project, checked.points)
            return checked
        self._metrics.limited.labels(against.limit if isinstance(against, pb.Later) else "run_metric_names").inc()
        return against

    async def _begin(self, range_: pb.Range, ahead_us: int | None) -> asyncio.Task[None]:
        """Hand one range to the bus, or join its publishing. Raises what the bus says at once, such as Busy."""
        key, value = _key(range_), range_.SerializeToString()
        known = self._under_way.get(key)
        if known is not None and known.message.value == value:
            self._metrics.joined.inc()
            return known.task
        bus_key = message_key(range_.project, range_.run_id, range_.rank)
        message = Message(range_.project, bus_key, value, int(self._clock() * 1_000_000), ahead_us)
        task = asyncio.create_task(self._publish(key, message, len(range_.body)))
        self._under_way[key] = _UnderWay(message, task)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        await asyncio.sleep(0)  # let it reach the bus before the next range does: that is the order of the stream
        if task.done() and not isinstance(task.exception(), BadInput):
            task.result()
        return task

    async def _publish(self, key: tuple[str, str, int, int], message: Message, size: int) -> None:
        self._in_flight_bytes += size
        self._in_flight_of[message.project] += size
        self._metrics.in_flight_bytes.set(self._in_flight_bytes)
        try:
            await self._publisher.publish(message)
            self._unavailable_at = None
        except Unavailable:
            self._unavailable_at = self._monotonic()
            raise
        finally:
            self._in_flight_bytes -= size
            self._in_flight_of[message.project] -= size
            if not self._in_flight_of[message.project]:
                del self._in_flight_of[message.project]
            self._metrics.in_flight_bytes.set(self._in_flight_bytes)
            if (mine := self._under_way.get(key)) is not None and mine.message is message:
                del self._under_way[key]

    def _done(self, task: asyncio.Task[None]) -> None:
        """Look at a task's end even where its caller has gone."""
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, RuntideError):
            log.error("publish_failed", exc_info=error)

    async def _finish(self, tasks: list[asyncio.Task[None]]) -> None:
        """Wait until all are on the bus; waiting may be cancelled, the tasks are not."""
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=self._timeout_s)
        if late:
            self._unavailable_at = self._monotonic()
            raise Unavailable(f"not on the bus within {self._timeout_s:g} s; what was begun goes on")
        for task in tasks:
            if not isinstance(task.exception(), BadInput):
                task.result()

    def _ack(self, range_: pb.Range, taken: _Taken | pb.Refusal | pb.Later) -> pb.Ack:
        if isinstance(taken, pb.Later):
            return pb.Ack(stream=range_.stream, later=taken)
        if isinstance(taken, _Taken):
            error = taken.task.exception()
            if error is None:
                self._count(taken)
                return pb.Ack(stream=range_.stream, acknowledged=end_of(range_))
            assert isinstance(error, BadInput)
            taken = pb.Refusal(
                code="bus", field=error.field, value=error.value, limit=error.limit, offset=range_.offset
            )
        self._metrics.refusals.labels(taken.code).inc()
        log.warning(
            "range_refused code=%s stream=%s offset=%d field=%s value=%s",
            *(taken.code, ascii(range_.stream[:64]), taken.offset, taken.field, taken.value),
        )
        return pb.Ack(stream=range_.stream, refusal=taken)

    def _count(self, taken: _Taken) -> None:
        self._metrics.ranges.inc()
        self._metrics.records.inc(taken.checked.records)
        self._metrics.points.inc(taken.checked.points)
        self._metrics.bytes.inc(len(taken.range.body))
        if taken.range.HasField("gap"):
            self._metrics.gaps.inc()


def _key(range_: pb.Range) -> tuple[str, str, int, int]:
    return range_.project, range_.stream, range_.offset, end_of(range_)
