"""The three calls of `Artifacts`: what comes in is kept part by part, what goes out is checked on its way.

Promises: the event loop never waits for the store; a project has a bounded number of calls at once, and a gateway too,
so memory is bounded by their number times one part; nothing of another project can be read, or be known to be there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from runtide.gateway.access import caller
from runtide.gateway.answering import Context, answered
from runtide.gateway.blobs import PART_BYTES, Blobs, NoContent, check_digest
from runtide.gateway.limits import Limits, OverLimit
from runtide.gateway.metrics import Metrics
from runtide.gateway.tokens import DEFAULT_PROJECT, check_project
from runtide.v1 import artifacts_pb2 as pb
from runtide.v1 import artifacts_pb2_grpc as pb_grpc
from runtide.wire import limits as wire
from runtide.wire.errors import BadInput, Busy, RuntideError, Unavailable

log = logging.getLogger(__name__)

BUSY_S = 1.0
THREADS = 8
DATA_BYTES = wire.MIB
"""One piece of an upload."""

Found = TypeVar("Found")


class NoArtifacts(RuntideError):
    """The gateway was started without a place for contents."""

    code = "no_artifacts"

    def __init__(self) -> None:
        super().__init__("this gateway keeps no artifacts: set RUNTIDE_ARTIFACTS for it")


class ArtifactService(pb_grpc.ArtifactsServicer):  # type: ignore[misc]  # generated without annotations
    """Judges calls and answers them. Who may call is judged in `access`."""

    def __init__(self, blobs: Blobs | None, limits: Limits, metrics: Metrics) -> None:
        """`blobs` is None where no place was told."""
        self._blobs_or_none, self._limits, self._metrics = blobs, limits, metrics
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gateway-blobs")
        self._calls: Counter[str] = Counter()
        self._uploads: set[tuple[str, str]] = set()
        self.stopping = False
        """True once nothing new is taken in."""

    def close(self) -> None:
        """Take no more work for the store; what is under way there is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def Begin(self, request: pb.BeginRequest, context: Context) -> pb.BeginResponse:  # noqa: N802  gRPC's name
        """Say what is there of a content."""
        async with answered(self._metrics, "Begin", context):
            project, blobs = self._project(request.project), self._blobs()
            self._check(request.digest, request.size)
            stored = await self._in_thread(lambda: blobs.size(project, request.digest))
            if stored == request.size:
                return pb.BeginResponse(stored=True, offset=request.size)
            return pb.BeginResponse(offset=await self._in_thread(lambda: blobs.arrived(project, request.digest)))

    async def Upload(  # noqa: N802  gRPC's name
        self, request_iterator: AsyncIterator[pb.UploadRequest], context: Context
    ) -> pb.UploadResponse:
        """Take a content in, from where an earlier call has come to."""
        async with answered(self._metrics, "Upload", context):
            first = await anext(request_iterator, pb.UploadRequest())
            project, blobs = self._project(first.project), self._blobs()
            self._check(first.digest, first.size)
            with self._one_more(project), self._alone(project, first.digest):
                arrived = await self._in_thread(lambda: blobs.arrived(project, first.digest))
                if arrived != first.offset:
                    raise Unavailable(
                        f"{arrived} bytes of {first.digest} are here, not {first.offset}: ask Begin again"
                    )
                await self._take(project, blobs, first, request_iterator)
                await self._in_thread(lambda: blobs.finish(project, first.digest, first.size))
            return pb.UploadResponse(digest=first.digest, size=first.size)

    async def _take(
        self, project: str, blobs: Blobs, first: pb.UploadRequest, following: AsyncIterator[pb.UploadRequest]
    ) -> None:
        at, part = first.offset, bytearray()

        async def keep() -> None:
            nonlocal at
            data, start = bytes(part), at
            part.clear()
            await self._in_thread(lambda: blobs.put(project, first.digest, start, data))
            at += len(data)
            self._metrics.artifact_bytes.labels("in").inc(len(data))

        async for each in _chained(first, following):
            if len(each.data) > DATA_BYTES:
                raise BadInput("data", f"{len(each.data)} bytes long", f"a piece has at most {DATA_BYTES}")
            part += each.data
            if at + len(part) > first.size:
                raise BadInput("data", f"longer than {first.size} bytes", "it has as many as size says")
            if len(part) >= PART_BYTES:
                await keep()
        if at + len(part) != first.size:
            raise Unavailable(f"the upload of {first.digest} has ended after {at + len(part)} of {first.size} bytes")
        if part:
            await keep()

    async def Download(  # noqa: N802  gRPC's name
        self, request: pb.DownloadRequest, context: Context
    ) -> AsyncIterator[pb.DownloadResponse]:
        """Hand a content out."""
        async with answered(self._metrics, "Download", context):
            project, blobs = self._project(request.project), self._blobs()
            digest = check_digest(request.digest)
            with self._one_more(project):
                size = await self._in_thread(lambda: blobs.size(project, digest))
                if size is None:
                    raise NoContent(f"the project has no content {digest}")
                if request.offset > size:
                    raise BadInput("offset", request.offset, f"the content has {size} bytes")
                yield pb.DownloadResponse(size=size)
                pieces: Iterator[bytes] = blobs.read(project, digest, request.offset)
                while piece := await self._in_thread(lambda: next(pieces, b"")):
                    self._metrics.artifact_bytes.labels("out").inc(len(piece))
                    yield pb.DownloadResponse(data=piece)

    def _project(self, asked: str) -> str:
        who = caller()
        who.check({asked})
        return who.project or check_project(asked or DEFAULT_PROJECT)

    def _blobs(self) -> Blobs:
        if self.stopping:
            raise Unavailable("this gateway is stopping; another one, or the same one soon, will take it")
        if self._blobs_or_none is None:
            raise NoArtifacts
        return self._blobs_or_none

    def _check(self, digest: str, size: int) -> None:
        check_digest(digest)
        if size > self._limits.artifact_bytes:
            most = self._limits.artifact_bytes
            raise BadInput("size", size, f"a file of an artifact has at most {most} bytes (artifact_bytes)")

    @contextlib.contextmanager
    def _one_more(self, project: str) -> Iterator[None]:
        limits = self._limits
        for limit, under_way, most in (
            ("project_artifact_calls", self._calls[project], limits.project_artifact_calls),
            ("artifact_calls", self._calls.total(), limits.artifact_calls),
        ):
            if under_way >= most:
                self._metrics.limited.labels(limit).inc()
                raise OverLimit(limit, most, project, "one upload or download more", BUSY_S)
        self._calls[project] += 1
        try:
            yield
        finally:
            self._calls[project] -= 1
            if not self._calls[project]:
                del self._calls[project]

    @contextlib.contextmanager
    def _alone(self, project: str, digest: str) -> Iterator[None]:
        if (project, digest) in self._uploads:
            raise Busy(f"another call brings {digest} just now", BUSY_S)
        self._uploads.add((project, digest))
        try:
            yield
        finally:
            self._uploads.discard((project, digest))

    async def _in_thread(self, work: Callable[[], Found]) -> Found:
        """Work with the store. Raises Unavailable where the disk is full or the bucket away: it may be better later."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except OSError as error:
            log.warning("artifacts_store error=%s", error)
            raise Unavailable(f"the artifacts' store: {type(error).__name__}: {error}") from error


async def _chained(
    first: pb.UploadRequest, following: AsyncIterator[pb.UploadRequest]
) -> AsyncIterator[pb.UploadRequest]:
    yield first
    async for each in following:
        yield each
