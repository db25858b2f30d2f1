"""Collects what the first process of each run ran on, beside it, and says it once to the run.

The agent does it for the jobs of its host. A job that has no agent here starts this file as a program, which says it in
a stream of its own and ends.

Promises: a task is removed when it is said, so an agent that was killed in between has it said again by the next one,
with the same meaning. Reading is done in a thread, and holds nothing else up.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakSet

from runtide.agent.collect import collect
from runtide.agent.own import OwnStream
from runtide.agent.served import Served
from runtide.agent.streams import TailedStream
from runtide.agent.tasks import Tasks
from runtide.agent.voice import Voice
from runtide.spool.capture import CAPTURE_FILE, CaptureTask
from runtide.spool.layout import StreamInfo
from runtide.v1.records_pb2 import ROLE_RANK

log = logging.getLogger(__name__)

LOOK_S = 0.1
UNSAID_S = 1.0
"""How long it is left alone where the disk takes nothing."""
TRIES = 60


class Collector:
    """Looks for the tasks of the streams that are served."""

    def __init__(self, served: Served, voice: Voice, tasks: Tasks) -> None:
        """Nothing is collected yet."""
        self._served, self._voice, self._tasks = served, voice, tasks
        self._seen: WeakSet[TailedStream] = WeakSet()
        self._under_way: set[asyncio.Future[None]] = set()

    @property
    def busy(self) -> bool:
        """Something is being collected."""
        return bool(self._under_way)

    async def look(self) -> float:
        """Look at the streams that are new; returns when to look again."""
        for stream in self._served:
            if stream not in self._seen:
                self._seen.add(stream)
                if stream.info.role == ROLE_RANK and not stream.foreign:
                    self._begin(stream)
        return LOOK_S

    async def close(self, timeout_s: float) -> None:
        """Look once more, and see that what is under way is said, as far as that can be done in time."""
        await self.look()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=timeout_s)

    def _begin(self, stream: TailedStream) -> None:
        try:
            task = CaptureTask.read(stream.folder)
        except (OSError, ValueError, TypeError) as error:
            log.warning("stream=%s %s not read: %s", stream.info.stream, CAPTURE_FILE, error)
            return
        if task is not None and not task.by_job:
            work = self._tasks.spawn(self._collect(stream.folder, stream.info, task))
            self._under_way.add(work)
            work.add_done_callback(self._under_way.discard)

    async def _collect(self, folder: Path, info: StreamInfo, task: CaptureTask) -> None:
        records = await asyncio.to_thread(lambda: list(collect(task)))
        for _ in range(TRIES):
            if (own := self._voice.to(info)) is not None:
                own.say(records)
                (folder / CAPTURE_FILE).unlink(missing_ok=True)
                log.info("stream=%s %d records of what ran", info.stream, len(records))
                return
            await asyncio.sleep(UNSAID_S)  # a full disk


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
