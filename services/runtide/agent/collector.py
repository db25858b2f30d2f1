"""Collects what the first process of each run ran on, beside it, and says it once to the run.

The agent does it for the jobs of its host. A job that has no agent here starts this file as a program, which says it in
a stream of its own and ends.

Promises: a task is removed when it is said, so what an agent that was killed has not said the next one says; what was
said twice means the same. Reading is done in threads that hold nothing up, the end of the agent neither: git may hang.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar
from weakref import WeakSet

from runtide.agent.collect import collect
from runtide.agent.own import OwnStream
from runtide.agent.served import Served
from runtide.agent.streams import TailedStream
from runtide.agent.tasks import Tasks
from runtide.agent.voice import Voice
from runtide.spool.capture import CAPTURE_FILE, CaptureTask
from runtide.spool.layout import StreamInfo
from runtide.v1.records_pb2 import ROLE_RANK, Record

log = logging.getLogger(__name__)

COLLECT_S = 120.0
"""A file system that hangs for longer keeps no stream from being done with."""
AT_ONCE = 2
"""Tasks that are collected at the same time, however many runs begin."""
KEPT = 8
"""Tasks whose records are remembered for a while."""
UNSAID_S = 1.0
"""How long it is left alone where the disk takes nothing."""
TRIES = 60
Found = TypeVar("Found")


class Collector:
    """Looks for the tasks of the streams that are served."""

    def __init__(self, served: Served, voice: Voice, tasks: Tasks) -> None:
        """Nothing is collected yet."""
        self._served, self._voice, self._tasks = served, voice, tasks
        self._seen: WeakSet[TailedStream] = WeakSet()
        self._under_way: set[asyncio.Future[None]] = set()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._found: OrderedDict[str, asyncio.Future[list[Record]]] = OrderedDict()

    @property
    def busy(self) -> bool:
        """Something is being collected."""
        return bool(self._under_way)

    def look(self) -> None:
        """Look at the streams that are new."""
        for stream in self._served:
            if stream not in self._seen:
                self._seen.add(stream)
                if stream.info.role == ROLE_RANK and not stream.foreign:
                    self._begin(stream)

    async def close(self, timeout_s: float) -> None:
        """Look once more, and see that what is under way is said, as far as that can be done in time."""
        self.look()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=timeout_s)

    def found(self, task: CaptureTask) -> asyncio.Future[list[Record]]:
        """What is collected of a task: once, though a job may ask about duplicates before its stream is there."""
        key = task.text()
        if (known := self._found.get(key)) is None:
            known = self._found[key] = asyncio.ensure_future(in_thread(lambda: list(collect(task))))
            known.add_done_callback(_looked_at)
            while len(self._found) > KEPT:
                self._found.popitem(last=False)
        return known

    def _begin(self, stream: TailedStream) -> None:
        try:
            task = CaptureTask.read(stream.folder)
        except (OSError, ValueError, TypeError) as error:
            log.warning("stream=%s %s not read: %s", stream.info.stream, CAPTURE_FILE, error)
            return
        if task is not None and not task.by_job:
            stream.held.add("capture")
            work = self._tasks.spawn(self._collect(stream, task))
            self._under_way.add(work)
            work.add_done_callback(self._under_way.discard)

    async def _collect(self, stream: TailedStream, task: CaptureTask) -> None:
        try:
            async with self._room:
                records = await asyncio.wait_for(asyncio.shield(self.found(task)), COLLECT_S)
            for _ in range(TRIES):
                if (own := self._voice.to(stream.info)) is not None:
                    own.say(records)
                    (stream.folder / CAPTURE_FILE).unlink(missing_ok=True)
                    log.info("stream=%s %d records of what ran", stream.info.stream, len(records))
                    return
                await asyncio.sleep(UNSAID_S)  # a full disk
        except TimeoutError:
            log.warning("stream=%s what ran is not kept: not read within %g s", stream.info.stream, COLLECT_S)
        finally:
            stream.held.discard("capture")


def _looked_at(done: asyncio.Future[list[Record]]) -> None:
    """Of a failure that nobody waits for any more a line is left."""
    if not done.cancelled() and (error := done.exception()) is not None:
        log.warning("what ran is not kept: %s: %s", type(error).__name__, error)


async def in_thread(work: Callable[[], Found]) -> Found:
    """Like asyncio.to_thread, but nobody waits for the thread when the loop is over."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Found] = loop.create_future()

    def settle(found: Found | None, error: Exception | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(found)  # type: ignore[arg-type]  # it is there where there is no error

    def run() -> None:
        found, error = None, None
        try:
            found = work()
        except Exception as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is over, and with it who asked
            loop.call_soon_threadsafe(settle, found, error)

    threading.Thread(target=run, name="collect", daemon=True).start()
    return await done


def main(argv: Sequence[str]) -> int:
    """Collect for one stream's folder, in a stream of its own; exit code 1 where that could not be said."""
    folder = Path(argv[0])
    try:
        info, task = StreamInfo.read(folder), CaptureTask.read(folder)
        if task is not None:
            records = list(collect(task))
            own = OwnStream(folder.parent, info)
            own.say(records)
            own.close()
            (folder / CAPTURE_FILE).unlink(missing_ok=True)
    except (OSError, ValueError, TypeError) as error:
        sys.stderr.write(f"stream={folder.name} what ran is not kept: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
