"""How processes end: notices it, says it once to the run, and deletes what has ended and arrived.

Promises: the end of a process is noticed within a second; how it ended is said once and noted on disk; nothing is
deleted that is not wholly acknowledged. Of a stream of another host or boot nothing is said, and it is deleted only
when its last word has arrived or its own agent has told its end: silence does not mean that nobody writes there.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path
from weakref import WeakKeyDictionary

from runtide.agent.own import OwnStream
from runtide.agent.served import Run, Served
from runtide.agent.streams import End, TailedStream
from runtide.agent.tasks import Tasks
from runtide.agent.voice import Voice
from runtide.agent.watch import Ended, Processes
from runtide.spool.layout import StreamInfo
from runtide.spool.reader import Cut, SegmentReader
from runtide.v1.records_pb2 import ROLE_AGENT, ROLE_USER, StreamEnded

log = logging.getLogger(__name__)

WATCH_S = 0.25
PARENT_LOOK_S = 0.05
PARENT_LOOKS = 20
"""How often a dead process's parent is asked how it ended before that stays unknown."""
UNSAID_S = 1.0
"""How long an end that could not be told is left alone."""
CLOSED_GRACE_S = 2.0
"""How long a process may go on after its stream's last word before its end is no longer waited for."""


class Ends:
    """Follows the processes behind the streams that are served."""

    def __init__(
        self,
        served: Served,
        voice: Voice,
        processes: Processes,
        tasks: Tasks,
        clock: Callable[[], float],
    ) -> None:
        """Nothing is known of any process yet."""
        self._served, self._voice, self._processes, self._tasks, self._clock = served, voice, processes, tasks, clock
        self.speaking: set[Run] = set()
        """The runs of which somebody on this host speaks, at the last look."""
        self._reporting: dict[TailedStream, asyncio.Future[None]] = {}
        self._over = False
        self._let_go_at: WeakKeyDictionary[TailedStream, float] = WeakKeyDictionary()

    @property
    def busy(self) -> bool:
        """An end is being reported."""
        return bool(self._reporting)

    def outlived(self, stream: TailedStream) -> bool:
        """Whether a stream's last word has arrived and its process was seen to go on after it."""
        return stream.closed and stream in self._let_go_at

    async def close(self, timeout_s: float) -> None:
        """Look at all processes once more, and see that the ends found are told. Those that are not in time, the next
        agent tells."""
        await self.watch()
        self._over = True
        if self._reporting:
            await asyncio.wait(self._reporting.values(), timeout=timeout_s)

    async def watch(self) -> float:
        """Look at all processes once; returns when to look again."""
        if self._over:
            return WATCH_S
        now = self._clock()
        alive: dict[tuple[int, float], bool] = {}
        for stream in self._served:
            if not stream.dead:
                stream.dead = not self._lives(stream, alive)
            if stream.closed and not stream.dead:
                self._let_go_at.setdefault(stream, now + CLOSED_GRACE_S)
            if _told_of(stream):
                self._account(stream)
        self._leave_runs(now)
        return WATCH_S

    def _lives(self, stream: TailedStream, known: dict[tuple[int, float], bool]) -> bool:
        info = stream.info
        if stream.foreign:
            return not (stream.closed or stream.reported)
        if info.role == ROLE_AGENT and info.pid == os.getpid():
            return self._voice.says(info.stream)
        process = (info.pid, info.started)
        if process not in known:
            known[process] = self._processes.alive(*process)
        return known[process]

    def _account(self, stream: TailedStream) -> None:
        """Speak to a run that lives or has an end to be told; tell the end."""
        if stream.reported:
            return
        if stream.silent:
            if stream.dead:
                stream.finish(End(0, closed=False, reported=True))
            return
        own = self._voice.to(stream.info)
        if own is None and stream.dead and stream.drained:
            stream.make_room()  # it may be these very bytes that leave the agent no room to say anything
        if own is not None and stream.dead and stream not in self._reporting:
            self._reporting[stream] = self._tasks.spawn(self._report(stream, own))

    async def _report(self, stream: TailedStream, own: OwnStream) -> None:
        """Say how a stream's process ended, once, and note on disk that it was said."""
        try:
            info = stream.info
            offset, closed = await asyncio.to_thread(measure_end, stream.folder, stream.acknowledged)
            closed = closed or stream.closed
            word = await _parent_word(info, stream.folder.parent)
            said = StreamEnded(stream=info.stream, offset=offset, closed=closed)
            if word is not None:
                said.signal = word.signal
                if word.exit_code is not None:
                    said.exit_code = word.exit_code
            if offset and not own.ended(said):
                await asyncio.sleep(UNSAID_S)  # a full disk: it is told later
                return
            log.info("stream=%s ended at %d closed=%s %s", info.stream, offset, closed, word or "")
            stream.finish(End(offset, closed, reported=True))
            self._processes.forget(info.pid, info.started)
        finally:
            self._reporting.pop(stream, None)

    def _leave_runs(self, now: float) -> None:
        """Say the last word to runs of which nobody on this host speaks any more."""
        speaking: set[Run] = set()
        over: dict[Run, list[TailedStream]] = {}
        for stream in filter(_told_of, self._served):
            if not stream.held and (stream.reported or now >= self._let_go_at.get(stream, float("inf"))):
                over.setdefault(Run.of(stream.info), []).append(stream)
            else:
                speaking.add(Run.of(stream.info))
        self.speaking = speaking
        for run in self._voice.runs - speaking:
            self._voice.leave(run)
            for stream in over.get(run, ()):
                if not stream.reported:
                    stream.finish(End(stream.acknowledged, closed=True, reported=True))

    def settle(self) -> None:
        """Delete what has ended and is wholly acknowledged."""
        for stream in self._served:
            told = stream.reported or not _told_of(stream)
            if stream.dead and stream.drained and told and not stream.held and stream not in self._reporting:
                self._served.remove(stream)


def _told_of(stream: TailedStream) -> bool:
    """Whether the run is told how the process behind a stream ended: not of agents or strangers, and no book is."""
    return stream.info.role not in (ROLE_AGENT, ROLE_USER) and not stream.foreign


def measure_end(folder: Path, position: int) -> tuple[int, bool]:
    """Return a dead stream's end, first byte that was never written, and whether the last word was StreamClosed."""
    reader, closed = SegmentReader(folder, position), False
    while (found := reader.cut(dead=True)) is not None:
        closed = isinstance(found, Cut) and found.closed
    return reader.position, closed


async def _parent_word(info: StreamInfo, host_folder: Path) -> Ended | None:
    for _ in range(PARENT_LOOKS if info.parent_reports else 1):
        if (word := Ended.read(host_folder, info.pid, info.started)) is not None:
            return word
        await asyncio.sleep(PARENT_LOOK_S)
    return None
