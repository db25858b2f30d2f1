"""The sink's loop: polls the bus, reads what comes while the flush before is being stored, commits what is stored.

Promises: nothing is committed before it is stored; memory is bounded, a full sink does not poll; at light load rows are
stored as soon as they come, under load a flush is begun at most every quarter of a second or when enough has come.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runtide.bus import Consumer, Message
from runtide.sink.arrived import Arrived, read
from runtide.sink.columns import DAYS_MOST, rows
from runtide.sink.flood import RECORDS, Flood, Flooded
from runtide.sink.store import Counters, Stopped, Store, TakenAway
from runtide.warehouse.client import Client, connect
from runtide.warehouse.errors import StoreBusy
from runtide.warehouse.settings import ClickHouseSettings
from runtide.warehouse.writer import Inserts, Writer
from runtide.wire.crash import crash_point
from runtide.wire.errors import BadInput
from runtide.wire.hints import Hint
from runtide.wire.limits import MIB

log = logging.getLogger("runtide.sink")

POLL_S = 0.1
"""How long one poll waits where nothing is pending."""


@dataclass(frozen=True, slots=True)
class SinkSettings:
    """How much is gathered before it is stored."""

    flush_rows: int = 200_000
    """With so many rows, or bytes, a flush is full: no more than one full flush, and a poll, waits for another."""
    flush_bytes: int = 16 * MIB
    flush_interval_s: float = 0.25
    """Under load a flush is begun at least this often."""
    least_interval_s: float = 0.05
    """And at most this often: every insert makes a part that ClickHouse has to merge."""
    retention_days: int = 0
    """Stamped on rows; 0 keeps them for ever."""
    backoff_s: tuple[float, float] = (0.1, 10.0)
    """First and longest wait before a flush is tried again."""
    flood_records: int = RECORDS
    """So many refused records may pass before a partition is stopped, if `flood` thinks so; 0 never stops one."""

    def __post_init__(self) -> None:
        if not 0 <= self.retention_days <= DAYS_MOST:
            raise BadInput("retention_days", self.retention_days, f"0 to {DAYS_MOST} can be kept")


class _Pending:
    """What was polled and is not being stored yet."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.messages: list[Message] = []
        self.arrived: list[Arrived] = []
        self.rows = 0
        self.bytes = 0

    def add(self, message: Message) -> None:
        part = read(message, int(self._clock() * 1_000_000))
        self.messages.append(message)
        self.arrived.append(part)
        self.rows += rows(part)
        self.bytes += len(message.value)

    def without(self, partition: int) -> _Pending:
        """The same but for a partition."""
        found = _Pending(self._clock)
        for message in self.messages:
            if message.partition != partition:
                found.add(message)
        return found


class Sink:
    """Stores what a consumer gives, and says so."""

    def __init__(
        self,
        consumer: Consumer,
        warehouse: ClickHouseSettings | Callable[[], Client],
        settings: SinkSettings = SinkSettings(),
        on_stored: Callable[[Sequence[Hint]], None] | None = None,
        *,
        writer: Callable[[Client], Inserts] = Writer,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`on_stored` hears of every flush, in the loop's thread."""
        self._consumer = consumer
        self._connect = (lambda: connect(warehouse)) if isinstance(warehouse, ClickHouseSettings) else warehouse
        self._settings = settings
        self._on_stored = on_stored
        self._writer = writer
        self._clock = clock
        self._stopping = threading.Event()
        self._store: Store | None = None
        self._pending = _Pending(clock)
        self._epoch = consumer.epoch
        self._began = 0.0
        self._took_s = 0.0
        self._stopped: dict[int, Flooded] = {}
        """Partitions of which nothing is stored any more. What they bring is dropped here, and comes again, since it is
        not committed: when this sink, or whoever gets the partition, begins anew."""

    @property
    def trouble(self) -> str:
        """Why a person has to look; empty while all is well."""
        found = [*(str(flood) for _, flood in sorted(self._stopped.items())), *self._consumer.stopped]
        if self._store is not None and (alarm := self._store.alarm):
            found.append(f"nothing is stored: {alarm}")
        return "; ".join(found)

    @property
    def stopped_partitions(self) -> int:
        """Partitions that are stopped: all that they bring is refused, or the bus lost what is wanted of them."""
        return len(self._stopped) + len(self._consumer.stopped)

    @property
    def remembered(self) -> int:
        """Streams whose state is in memory."""
        return self._store.remembered if self._store else 0

    @property
    def stats(self) -> Counters:
        """What was done so far."""
        return self._store.counters if self._store else Counters()

    def stop(self) -> None:
        """Let run() end after the flush that is under way. Safe from any thread."""
        self._stopping.set()

    async def run(self) -> None:
        """Store until stop(). Raises StoreMisconfigured where nothing will ever be stored like this."""
        client = await self._open()
        if client is None:
            return
        settings = self._settings
        self._store = Store(
            client,
            self._writer(client),
            settings.retention_days,
            settings.backoff_s,
            stopping=self._stopping,
            flood=Flood(settings.flood_records),
        )
        flushing: asyncio.Task[None] | None = None
        try:
            while not self._stopping.is_set():
                if flushing is not None and flushing.done():
                    flushing.result()
                    flushing = None
                if flushing is None and self._is_due():
                    flushing = asyncio.create_task(self._flush(self._take()))
                await self._gather(flushing)
            if flushing is not None:
                await flushing
        except Stopped:
            log.info("stopped while the store was away; what was not stored is not committed")
        finally:
            self._stopping.set()
            if flushing is not None:
                await asyncio.wait([flushing])

    async def _open(self) -> Client | None:
        """Connect, however long the store is away; None where told to stop before."""
        first, longest = self._settings.backoff_s
        wait_s = first
        while not self._stopping.is_set():
            try:
                return await asyncio.to_thread(self._connect)
            except StoreBusy as error:
                log.warning("store away retry_s=%.1f said=%s", wait_s, error)
            await asyncio.to_thread(self._stopping.wait, wait_s)
            wait_s = min(2 * wait_s, longest)
        return None

    async def _gather(self, flushing: asyncio.Task[None] | None) -> None:
        """Poll once, or wait for the flush where enough for the next one is there: more waits in turn on the bus."""
        if self._is_full() and flushing is not None:
            await asyncio.wait([flushing])
            return
        messages = await self._consumer.poll(self._patience_s(flushing))
        if self._consumer.epoch != self._epoch:
            await self._begin_anew(flushing)
        for message in messages:
            if message.partition not in self._stopped:
                self._pending.add(message)

    async def _begin_anew(self, flushing: asyncio.Task[None] | None) -> None:
        """Partitions came or went: what was gathered comes again to whom it belongs, and others may have stored."""
        if flushing is not None:
            await asyncio.wait([flushing])
        self._epoch = self._consumer.epoch
        self._pending = _Pending(self._clock)
        self._stopped.clear()
        assert self._store is not None
        self._store.forget(others=True)

    def _is_due(self) -> bool:
        return bool(self._pending.messages) and (self._is_full() or time.monotonic() >= self._due_at())

    def _is_full(self) -> bool:
        pending, settings = self._pending, self._settings
        return pending.rows >= settings.flush_rows or pending.bytes >= settings.flush_bytes

    def _due_at(self) -> float:
        """Storing should take at most a quarter of the time while little comes."""
        settings = self._settings
        return self._began + min(max(4 * self._took_s, settings.least_interval_s), settings.flush_interval_s)

    def _patience_s(self, flushing: asyncio.Task[None] | None) -> float:
        if flushing is not None:
            return 0.01
        if not self._pending.messages:
            return POLL_S
        return min(max(self._due_at() - time.monotonic(), 0.0), POLL_S)

    def _take(self) -> _Pending:
        taken, self._pending = self._pending, _Pending(self._clock)
        self._began = time.monotonic()
        return taken

    def _stop_partition(self, flood: Flooded) -> None:
        """Better late than in the dead letters: everything of the partition waits on the bus."""
        self._stopped[flood.partition] = flood
        self._pending = self._pending.without(flood.partition)
        log.error(
            "partition stopped: nothing of it is stored until the sink starts again. Where this release or the store "
            "is at fault, mend it and restart; where the records are, restart with RUNTIDE_SINK_FLOOD_RECORDS=0, and "
            "they become dead letters. %s",
            flood,
        )

    async def _flush(self, taken: _Pending) -> None:
        assert self._store is not None
        epoch = self._epoch
        hints: Sequence[Hint] = ()
        crash_point("sink.polled")
        while taken.messages:
            try:
                hints = await asyncio.to_thread(self._store.flush, taken.arrived, lambda: self._consumer.hold(epoch))
                break
            except TakenAway:
                log.info("partitions changed during a flush; what is still ours comes again")
                return
            except Flooded as flood:
                self._stop_partition(flood)
                taken = taken.without(flood.partition)
        self._took_s = time.monotonic() - self._began
        crash_point("sink.entered")
        await self._consumer.commit(taken.messages)
        crash_point("sink.committed")
        if self._on_stored is not None and hints:
            self._on_stored(hints)
