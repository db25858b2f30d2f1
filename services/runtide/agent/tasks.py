"""Tasks that run beside one another: one that fails is logged and stops no other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger(__name__)

FAILED_S = 1.0
"""How long a step that failed is left alone."""


class Tasks:
    """Whatever goes on in the agent's event loop."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._tasks: set[asyncio.Future[None]] = set()

    def spawn(self, work: Awaitable[None]) -> asyncio.Future[None]:
        """Let it run until it ends or is cancelled."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def repeat(self, step: Callable[[], Awaitable[float]], name: str) -> None:
        """Let a step run again and again; it says how long to wait. One that fails is logged and tried again."""
        self.spawn(_repeat(step, name))

    async def cancel(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _over(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task ended", exc_info=task.exception())


async def _repeat(step: Callable[[], Awaitable[float]], name: str) -> None:
    while True:
        try:
            pause = await step()
        except Exception:
            log.exception("loop=%s failed", name)
            pause = FAILED_S
        await asyncio.sleep(pause)
