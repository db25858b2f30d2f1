"""The processor's shell within one process: hints come by call, ticks run in a thread, the event loop never waits.

Promises to take at most about half of the time, and five sixths of it while derived rows are behind: the longer a tick
takes, the longer the pause, and the more each tick does at once. A tick that fails is tried again, whatever it was.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from runtide.processor.deriver import Deriver
from runtide.warehouse.errors import StoreError, StoreMisconfigured
from runtide.wire.hints import Hint

log = logging.getLogger("runtide.processor")

PAUSE_PER_WORK = 1.0
"""Seconds of pause for each second of work: it takes half of the time at most."""
PAUSE_WHEN_BEHIND = 0.2
"""The same where a tick has left something: five sixths of the time."""
LONGEST_PAUSE_S = 2.0
"""States must not be late by more than this, however much there is to derive."""
BACKOFF_S = 30.0
"""Longest pause while the store does not answer."""


class ProcessorLoop:
    """Ticks a deriver until it is told to stop."""

    def __init__(self, deriver: Deriver, tick_s: float = 0.5) -> None:
        self._deriver = deriver
        self._tick_s = tick_s
        self._stop = asyncio.Event()
        self._failures = 0

    def hint(self, hints: Sequence[Hint]) -> None:
        """Take hints. May be called from any thread."""
        self._deriver.add(hints)

    def stop(self) -> None:
        """End `run` after the tick that is under way and one more. Call it in the loop's thread."""
        self._stop.set()

    async def run(self) -> None:
        """Tick until told to stop. Raises StoreMisconfigured; all other trouble is waited out."""
        while not self._stop.is_set():
            pause = await self._tick()
            try:
                await asyncio.wait_for(self._stop.wait(), pause)
            except TimeoutError:
                continue
        await self._tick()

    async def _tick(self) -> float:
        """One tick; returns the pause after it."""
        began = time.monotonic()
        try:
            behind = await asyncio.to_thread(self._deriver.tick)
        except StoreMisconfigured:
            raise
        except StoreError as error:
            pause = self._backoff()
            log.warning("tick failed, tried again failures=%d pause_s=%.1f error=%s", self._failures, pause, error)
            return pause
        except Exception:  # a fault of ours: raw rows go on being stored, which can be derived when it is mended
            pause = self._backoff()
            log.exception("tick failed, tried again failures=%d pause_s=%.1f", self._failures, pause)
            return pause
        self._failures = 0
        share = PAUSE_WHEN_BEHIND if behind else PAUSE_PER_WORK
        return min(LONGEST_PAUSE_S, max(self._tick_s, share * (time.monotonic() - began)))

    def _backoff(self) -> float:
        """The pause after one more failure."""
        self._failures += 1
        return min(BACKOFF_S, self._tick_s * 2.0 ** min(self._failures, 10))
