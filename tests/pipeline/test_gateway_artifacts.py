"""The calls of Artifacts over a real socket, on a folder and on a server that speaks S3."""

from __future__ import annotations

import asyncio
import hashlib
import random
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import fsspec
import grpc
import pytest
from moto.server import ThreadedMotoServer
from runtide.gateway import GatewaySettings, Limits, TokenBook
from runtide.gateway.blobs import PART_BYTES
from runtide.gateway.tokens import new_token
from runtide.testing.gateway import bearer, serving
from runtide.v1 import artifacts_pb2 as pb
from runtide.v1.artifacts_pb2_grpc import ArtifactsStub
from runtide.wire.limits import MIB
from runtide.wire.roles import Role

VISION, VISION_TEXT = new_token("vision", Role.WRITER)
READER, READER_TEXT = new_token("vision", Role.READER)
SPEECH, SPEECH_TEXT = new_token("speech", Role.WRITER)
CONTENT = random.Random(1).randbytes(2 * PART_BYTES + 12_345)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(params=["folder", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where contents are kept."""
    if request.param == "folder":
        yield str(tmp_path / "kept")
        return
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    told = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    for name, value in (told | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid.uuid4()}"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(bucket)
    yield f"s3://{bucket}/artifacts"
    fsspec.filesystem("s3").clear_instance_cache()
    server.stop()


class Calls:
    """The calls of one token."""

    def __init__(self, stub: ArtifactsStub, token: str) -> None:
        self._stub, self._told = stub, {"metadata": bearer(token), "timeout": 60}

    async def begin(self, digest: str = DIGEST, size: int = len(CONTENT)) -> tuple[bool, int]:
        found = await self._stub.Begin(pb.BeginRequest(digest=digest, size=size), **self._told)
        return found.stored, found.offset

    async def upload(self, content: bytes = CONTENT, offset: int = 0, size: int = len(CONTENT)) -> None:
        async def requests() -> AsyncIterator[pb.UploadRequest]:
            yield pb.UploadRequest(digest=DIGEST, size=size, offset=offset)
            for at in range(offset, len(content), MIB):
                yield pb.UploadRequest(data=content[at : at + MIB])

        await self._stub.Upload(requests(), **self._told)

    async def download(self, digest: str = DIGEST, offset: int = 0) -> bytes:
        request = pb.DownloadRequest(digest=digest, offset=offset)
        return b"".join([each.data async for each in self._stub.Download(request, **self._told)])


@asynccontextmanager
async def calls(url: str, **limits: int) -> AsyncIterator[tuple[Calls, Calls, Calls]]:
    """A writer and a reader of one project, and a writer of another."""
    settings = GatewaySettings(artifacts=url, limits=Limits(**limits))
    async with serving(settings, tokens=TokenBook([VISION, READER, SPEECH])) as served:
        stub = ArtifactsStub(served.channel)
        yield Calls(stub, VISION_TEXT), Calls(stub, READER_TEXT), Calls(stub, SPEECH_TEXT)


async def code(awaitable: object) -> grpc.StatusCode:
    try:
        await awaitable  # type: ignore[misc]
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_a_content_is_there_when_all_of_it_is_and_for_its_project_alone(url: str) -> None:
    async def main() -> None:
        async with calls(url) as (vision, reader, speech):
            assert await vision.begin() == (False, 0)
            assert await code(vision.upload(CONTENT[: PART_BYTES + 5])) is grpc.StatusCode.UNAVAILABLE
            assert await vision.begin() == (False, PART_BYTES)
            assert await code(reader.download()) is grpc.StatusCode.NOT_FOUND
            assert await code(vision.upload(b"", offset=0)) is grpc.StatusCode.UNAVAILABLE  # it has to ask first
            await vision.upload(offset=PART_BYTES)
            assert await vision.begin() == (True, len(CONTENT))
            assert await reader.download() == CONTENT
            assert await reader.download(offset=len(CONTENT) - 7) == CONTENT[-7:]
            assert await speech.begin() == (False, 0)
            assert await code(speech.download()) is grpc.StatusCode.NOT_FOUND
            assert await code(speech.download(f"../../x{DIGEST}")) is grpc.StatusCode.INVALID_ARGUMENT

    asyncio.run(main())


def test_what_is_not_its_digest_is_dropped_and_may_come_again(url: str) -> None:
    async def main() -> None:
        async with calls(url) as (vision, *_):
            wrong = bytes([CONTENT[0] ^ 1]) + CONTENT[1:]
            assert await code(vision.upload(wrong)) is grpc.StatusCode.DATA_LOSS
            assert await vision.begin() == (False, 0)
            assert await code(vision.download()) is grpc.StatusCode.NOT_FOUND
            await vision.upload()
            assert await vision.download() == CONTENT

    asyncio.run(main())


def test_a_damaged_content_is_refused_on_reading(url: str) -> None:
    async def main() -> None:
        async with calls(url) as (vision, *_):
            await vision.upload()
            files, root = fsspec.core.url_to_fs(url, skip_instance_cache=True)
            (path,) = [found for found in files.find(root) if found.endswith(DIGEST)]
            content = files.cat_file(path)
            files.pipe_file(path, content[:-1] + bytes([content[-1] ^ 1]))
            assert await code(vision.download()) is grpc.StatusCode.DATA_LOSS
            files.pipe_file(path, content[:-1])
            assert await code(vision.download()) is grpc.StatusCode.DATA_LOSS
            assert await vision.begin() == (False, 0), "what is cut short may be brought again"
            await vision.upload()
            assert await vision.download() == CONTENT

    asyncio.run(main())


def test_limits_of_size_and_number(tmp_path: Path) -> None:
    async def main() -> None:
        async with calls(str(tmp_path), artifact_bytes=len(CONTENT), project_artifact_calls=1) as (vision, reader, _):
            assert await code(vision.begin(size=len(CONTENT) + 1)) is grpc.StatusCode.INVALID_ARGUMENT
            assert await code(vision.upload(b"", size=len(CONTENT) + 1)) is grpc.StatusCode.INVALID_ARGUMENT
            assert await code(vision.upload(CONTENT + b"x")) is grpc.StatusCode.INVALID_ARGUMENT
            assert await code(reader.upload(b"")) is grpc.StatusCode.PERMISSION_DENIED
            both = await asyncio.gather(
                code(vision.upload(offset=2 * PART_BYTES)), code(vision.upload(offset=2 * PART_BYTES))
            )
            assert sorted(both, key=str) == [grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED]

    asyncio.run(main())
