"""Uploads what jobs have left of artifacts, and says then in the run what it is called and which content it has.

Promises: one at a time for each stream, in the order in which they were logged, and few at once; what the gateway has
is not sent, and an upload that was cut off, by the end of the agent too, goes on where it was; the copy is deleted when
the artifact was said; what is refused for good stays in rejected/ and is declared. A stream with artifacts that wait is
not done with, and the run that it belongs to is not left.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

from runtide.agent.collector import in_thread
from runtide.agent.content import Content, Contents, contents
from runtide.agent.gateway import Failure, GatewayClient, Verdict
from runtide.agent.own import now_us
from runtide.agent.served import Served
from runtide.agent.shipper import NOT_ALLOWED_S, Backoff
from runtide.agent.streams import TailedStream
from runtide.agent.tasks import Tasks
from runtide.agent.voice import Voice
from runtide.spool.artifacts import DATA, ArtifactTask, Done, Sent, named, task_folders
from runtide.spool.layout import REJECTED_DIR
from runtide.v1.artifacts_pb2 import BeginRequest, UploadRequest
from runtide.v1.records_pb2 import ArtifactRef, Gap, Record

log = logging.getLogger(__name__)

AT_ONCE = 2
"""Uploads at the same time, whatever waits: records come first."""
NOTE_BYTES = 8 << 20
"""How often sent.json is written."""
DETAIL_CHARS = 500
UNSAID_S = 1.0
"""How long an artifact is left alone that the disk would not let be said."""


class Uploads:
    """Follows the artifacts of the streams that are served."""

    def __init__(self, served: Served, voice: Voice, tasks: Tasks) -> None:
        """Nothing is uploaded yet."""
        self._served, self._voice, self._tasks = served, voice, tasks
        self._under_way: dict[TailedStream, asyncio.Future[None]] = {}
        self._room = asyncio.Semaphore(AT_ONCE)

    @property
    def busy(self) -> bool:
        """Something waits for its upload."""
        return bool(self._under_way)

    def look(self) -> None:
        """Take up what is new. Streams that have something are held until it is uploaded."""
        for stream in self._served:
            if stream not in self._under_way and self._first(stream) is not None:
                stream.held.add("artifacts")
                self._under_way[stream] = self._tasks.spawn(self._all_of(stream))

    def _first(self, stream: TailedStream) -> tuple[Path, ArtifactTask] | None:
        try:
            for folder in task_folders(stream.folder):
                if (task := ArtifactTask.read(folder)) is not None:
                    return folder, task
        except (OSError, ValueError, TypeError) as error:
            log.warning("stream=%s artifacts not read: %s", stream.info.stream, error)
        return None

    async def _all_of(self, stream: TailedStream) -> None:
        try:
            while (found := self._first(stream)) is not None and self._is_served(stream):
                await self._one(stream, *found)
        finally:
            stream.held.discard("artifacts")
            del self._under_way[stream]

    def _is_served(self, stream: TailedStream) -> bool:
        return any(each is stream for each in self._served)

    async def _one(self, stream: TailedStream, folder: Path, task: ArtifactTask) -> None:
        """Upload and say one artifact, however long that takes; returns early where the stream is served no longer."""
        backoff, made = Backoff(), None
        while self._is_served(stream):
            client = self._served.shipper(stream).client
            try:
                async with self._room:
                    if made is None:
                        made = await in_thread(lambda: contents(folder / DATA, task.path))
                    sent = await _Upload(client, stream.info.project, folder).send(made)
                if self._say(stream, Record(artifact_ref=_ref(folder, task, made))):
                    self._finish(stream, folder, task, made, sent)
                    return
                delay = UNSAID_S
            except Failure as failure:
                if failure.verdict is Verdict.REFUSED:
                    self._give_up(stream, folder, task, failure.text)
                    return
                if failure.damaged:
                    made = None  # is it the copy that has changed?
                delay, error = backoff.next(failure.delay_s), failure.text
                if failure.verdict is Verdict.NOT_ALLOWED:
                    delay = max(delay, NOT_ALLOWED_S)
                _note(folder, Sent(error=error))
            except OSError as error:
                log.warning("stream=%s artifact=%s %s", stream.info.stream, task.name, error)
                delay = backoff.next()
                if not (folder / DATA).exists():
                    self._give_up(stream, folder, task, f"its copy is gone: {error}")
                    return
            await asyncio.sleep(delay)

    def _say(self, stream: TailedStream, record: Record) -> bool:
        """Say it in our own stream of the stream's run; False where the disk would not take it."""
        own = self._voice.to(stream.info)
        return own is not None and own.say([record])

    def _finish(self, stream: TailedStream, folder: Path, task: ArtifactTask, made: Contents, sent: int) -> None:
        log.info(
            "stream=%s artifact=%s digest=%s size=%d sent=%d",
            *(stream.info.stream, task.name, made.digest, made.size, sent),
        )
        Done(made.digest).write(folder)
        _remove(folder / DATA)

    def _give_up(self, stream: TailedStream, folder: Path, task: ArtifactTask, why: str) -> None:
        """Keep the copy in rejected/ and declare that it is not there."""
        log.warning("stream=%s artifact=%s refused: %s", stream.info.stream, task.name, why)
        detail = why[:DETAIL_CHARS]
        told = json.dumps({"of": named(folder), "refused": detail})
        gap = Gap(time_us=now_us(), reason="refused", records=1, detail=f"artifact {task.name[:100]}: {detail}")
        self._say(stream, Record(gap=gap))
        self._say(stream, Record(artifact_ref=ArtifactRef(time_us=now_us(), name=task.name, kind=task.kind, json=told)))
        kept = stream.folder / REJECTED_DIR
        kept.mkdir(mode=0o700, exist_ok=True)
        if (folder / DATA).exists():
            (folder / DATA).replace(kept / f"artifact-{folder.name}")
        Done(error=why).write(folder)


class _Upload:
    """One try to bring all parts of an artifact to a gateway."""

    def __init__(self, client: GatewayClient, project: str, folder: Path) -> None:
        self._client, self._project, self._folder = client, project, folder
        self._done = 0
        self._noted = 0

    async def send(self, made: Contents) -> int:
        """Send what is missing; returns how many bytes that were. Raises Failure and OSError."""
        sent = 0
        for part in made.parts:
            request = BeginRequest(project=self._project, digest=part.digest, size=part.size)
            found = await self._client.begin(request)
            if not found.stored:
                sent += part.size - found.offset
                await self._client.upload(self._requests(part, found.offset))
            self._done += part.size
        return sent

    async def _requests(self, part: Content, offset: int) -> AsyncIterator[UploadRequest]:
        yield UploadRequest(project=self._project, digest=part.digest, size=part.size, offset=offset)
        pieces = part.read(offset)
        while piece := await in_thread(lambda: next(pieces, b"")):
            yield UploadRequest(data=piece)
            offset += len(piece)
            if self._done + offset - self._noted >= NOTE_BYTES:
                self._noted = self._done + offset
                _note(self._folder, Sent(self._noted))


def _ref(folder: Path, task: ArtifactTask, made: Contents) -> ArtifactRef:
    said = {name: getattr(task, name) for name in ("aliases", "metadata", "step", "metric", "value", "goal")}
    return ArtifactRef(
        time_us=task.time_us,
        name=task.name,
        kind=task.kind,
        digest=made.digest,
        size=made.size,
        json=json.dumps(said | made.listed() | {"of": named(folder)}),
    )


def _note(folder: Path, sent: Sent) -> None:
    try:
        sent.write(folder)
    except OSError as error:  # a full disk, or the folder has gone: what it says is for people only
        log.debug("%s: %s", folder, error)


def _remove(data: Path) -> None:
    if data.is_dir():
        shutil.rmtree(data, ignore_errors=True)
    else:
        data.unlink(missing_ok=True)
