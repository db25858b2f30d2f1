"""The agent proper: keeps every stream of its host folders moving until it has ended and arrived, and ends itself then.

Promises: nothing that goes wrong with one stream, destination or loop stops the others; what is not acknowledged is on
the disk soon after it was written. One event loop; file syncs and sampling go to threads.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtide.agent.answers import Answers
from runtide.agent.collector import Collector
from runtide.agent.ends import Ends
from runtide.agent.finding import Finder
from runtide.agent.served import Served
from runtide.agent.streams import TailedStream
from runtide.agent.tasks import Tasks
from runtide.agent.uploads import Uploads
from runtide.agent.voice import Voice
from runtide.agent.watch import Processes
from runtide.wire.states import HEARTBEAT_SECONDS

log = logging.getLogger(__name__)

POLL_S = 0.03
POLL_IDLE_S = 0.2
POLL_SHARE = 40
POLL_BUSY_S = 0.15
"""Looking at files may take one part in this many of the time, unless that would delay what was logged further."""
SYNC_S = 1.0
STOP_S = 1.5


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What can be set about an agent."""

    sample_seconds: float = 5.0
    """Between two rounds of resource sampling; 0 switches it off."""
    linger_seconds: float = 3.0
    """How long it stays when there is nothing left to do."""
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    once: bool = False
    """Stop when all that was there has been shipped, though processes go on writing (`runtide sync`)."""


class Agent:
    """Serves all streams of one or more host folders; the first one is this host's own."""

    def __init__(
        self,
        host_folders: Iterable[Path],
        settings: AgentSettings,
        clock: Callable[[], float] = time.monotonic,
        processes: Processes | None = None,
    ) -> None:
        """Must be made inside the event loop that runs it."""
        folders = list(host_folders)
        self._settings, self._clock = settings, clock
        self._tasks = Tasks()
        self._served = Served(folders[0], self._tasks, clock)
        self._finder = Finder(folders, self._served, self.stop, clock)
        self._voice = Voice(folders[0], self._served, clock)
        self._ends = Ends(self._served, self._voice, processes or Processes(), self._tasks, clock)
        self._collector = Collector(self._served, self._voice, self._tasks)
        self._answers = Answers(self._served, self._finder, self._collector, clock)
        self._uploads = Uploads(self._served, self._voice, self._tasks)
        self._stop = asyncio.Event()
        self._nothing_left = asyncio.Event()
        self._busy_at = clock()

    async def run(self, listen: Callable[[bool], Awaitable[None]]) -> None:
        """Serve until everything is shipped and nobody writes any more, or until `stop`.

        `listen` opens and closes the socket. It is closed before the last look for streams, so that a job which has
        heard this agent answer has either been seen by then or will start another agent.
        """
        self._begin()
        await listen(True)
        while not self._stop.is_set():
            await _first(self._stop.wait(), self._nothing_left.wait())
            await listen(False)
            self._finder.look()
            if self._stop.is_set() or (self.idle and not self._finder.hopeful):
                break
            self._nothing_left.clear()
            self._stay()
            await listen(True)
        self._finder.look()
        await self._collector.close(STOP_S)
        await self._ends.close(STOP_S)
        self._voice.close()
        self._finder.look()
        await self._served.wind_down(STOP_S)
        await self._tasks.cancel()
        await self._served.close()

    def stop(self) -> None:
        """End soon: what is in flight may finish, the rest waits in the spool."""
        self._stop.set()

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request of the unix socket. Raises TypeError or ValueError for one that makes no sense."""
        self._stay()
        return await self._answers.answer(request)

    @property
    def idle(self) -> bool:
        """Nothing to ship, nobody to wait for, nothing to report."""
        if (
            self._ends.busy
            or self._collector.busy
            or self._uploads.busy
            or not all(self._done(stream) for stream in self._served)
        ):
            return False
        if self._settings.once:
            return not self._voice.runs - self._ends.speaking
        return not self._voice.runs and not any(shipper.busy for shipper in self._served.shippers)

    def _done(self, stream: TailedStream) -> bool:
        if self._settings.once and not stream.dead:
            return stream.acknowledged >= stream.adopted_end or stream.at_rest
        return self._ends.outlived(stream) or (stream.foreign and not stream.dead and stream.at_rest)

    def _stay(self) -> None:
        """Somebody is about to write: start the time of grace again."""
        self._busy_at = self._clock()

    def _begin(self) -> None:
        self._tasks.repeat(self._poll, "poll")
        self._tasks.repeat(self._ends.watch, "watch")
        self._tasks.repeat(self._sync_files, "fsync")
        self._tasks.repeat(self._answers.learn_stored, "status")
        self._tasks.repeat(self._served.leave_unused, "destinations")
        self._tasks.repeat(lambda: self._voice.heartbeats(self._settings.heartbeat_seconds), "heartbeats")
        if self._settings.sample_seconds > 0:
            self._tasks.repeat(lambda: self._voice.samples(self._settings.sample_seconds), "samples")

    async def _poll(self) -> float:
        now, spent = self._clock(), time.thread_time()
        self._finder.look()
        active = self._served.poll(now)
        self._served.save()
        self._collector.look()
        self._uploads.look()
        self._ends.settle()
        if not self.idle:
            self._busy_at = now
        elif now - self._busy_at >= self._settings.linger_seconds:
            self._nothing_left.set()
        busy = min(POLL_BUSY_S, POLL_SHARE * (time.thread_time() - spent))
        return max(POLL_S if active else POLL_IDLE_S, busy)

    async def _sync_files(self) -> float:
        """Fsync what is not acknowledged yet, once a second."""
        waiting = [stream for stream in self._served if stream.reader.unread() or stream.in_flight]
        if waiting:
            await asyncio.to_thread(_sync_all, waiting)
        return SYNC_S


async def _first(*waits: Awaitable[object]) -> None:
    """Wait until one of several is there, and drop the others."""
    tasks = [asyncio.ensure_future(each) for each in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _sync_all(streams: list[TailedStream]) -> None:
    for stream in streams:
        try:
            stream.sync_to_disk()
        except OSError as error:
            log.debug("stream=%s fsync: %s", stream.info.stream, error)
