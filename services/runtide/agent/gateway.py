"""The agent's side of a gateway: one channel, its calls, and what their errors mean."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message

from runtide.spool.layout import StreamInfo
from runtide.v1 import artifacts_pb2
from runtide.v1 import ingest_pb2 as pb
from runtide.v1.artifacts_pb2_grpc import ArtifactsStub
from runtide.v1.ingest_pb2_grpc import IngestStub
from runtide.wire.errors import BadInput

Answer = TypeVar("Answer", bound=Message)

PUSH_TIMEOUT_S = 60.0
"""A gateway acknowledges after storing, which may take long when the store is busy; a copy costs little."""
UPLOAD_TIMEOUT_S = 3600.0
"""An upload that takes longer goes on with another call. A connection that has died is noticed much earlier."""

_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 5000),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    # a connection that a network has forgotten answers no ping, and another one is opened; without this every call on
    # it would end at its deadline, for ever
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),  # newer releases go by this one, and would wait for a minute
]
DEAD_S = 30.0
"""A connection that has died in silence is known to be dead after this long at the most."""


class Tls(NamedTuple):
    """Files, in PEM, of a channel that is not plain; empty ones are not needed."""

    ca_file: str = ""
    """The authority that signed the gateway's certificate; the system's ones without it."""
    cert_file: str = ""
    """Our own certificate, where the gateway asks for one."""
    key_file: str = ""

    @classmethod
    def of(cls, info: StreamInfo) -> Tls:
        """As a stream says."""
        return cls(info.ca_file, info.cert_file, info.key_file)

    @classmethod
    def asked(cls, request: Mapping[str, object]) -> Tls:
        """As a job's request says."""
        return cls(*(str(request.get(name) or "") for name in cls._fields))


class Destination(NamedTuple):
    """Where a stream goes. Streams of one destination travel together."""

    url: str
    token: str
    tls: Tls
    project: str
    """Apart, so that a project that the token may not write stops no other one."""

    @classmethod
    def of(cls, info: StreamInfo) -> Destination:
        """Return where a stream goes."""
        return cls(info.url, info.token, Tls.of(info), info.project)


class Verdict(Enum):
    """What a failed call means for the bytes in it."""

    RETRY = "retry"
    NOT_ALLOWED = "not allowed"
    """Keep everything and ask seldom: a person has to change something."""
    REFUSED = "refused"
    """Something in the call breaks a limit for good."""


@dataclass(frozen=True, slots=True)
class Failure(Exception):
    """A call that was not answered with a result."""

    verdict: Verdict
    text: str
    delay_s: float | None = None
    """As the gateway asked for."""
    in_vain: bool = False
    """The bytes have to travel again; not so where the gateway has them and does not know yet whether they are stored:
    then the same ranges join what is under way."""
    damaged: bool = False
    """What has arrived, or is stored, is not what its digest stands for."""
    missing: bool = False
    """The gateway has no such content."""


class GatewayClient:
    """One channel to a gateway. Must be made and used in one event loop."""

    def __init__(self, url: str, token: str = "", tls: Tls | None = None) -> None:
        """Connects on the first call. Raises BadInput for a url of another kind, OSError for an unreadable file."""
        self.url = url
        target, secure = parse_url(url)
        if secure:
            roots, chain, key = (Path(file).read_bytes() if file else None for file in tls or Tls())
            credentials = grpc.ssl_channel_credentials(roots, key, chain)
            self._channel = grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._stub = IngestStub(self._channel)
        self._artifacts = ArtifactsStub(self._channel)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    async def push(self, request: pb.PushRequest, timeout_s: float = PUSH_TIMEOUT_S) -> list[pb.Ack]:
        """Hand over ranges; one answer for each. Raises Failure."""
        request.sent_us = time.time_ns() // 1000
        response = await self._call(self._stub.Push, request, timeout_s)
        if len(response.acks) != len(request.ranges):
            text = f"gateway at {self.url} answered {len(response.acks)} of {len(request.ranges)} ranges"
            raise Failure(Verdict.RETRY, text)
        return list(response.acks)

    async def preflight(self, request: pb.PreflightRequest, timeout_s: float) -> pb.PreflightResponse:
        """Ask what is known of a run. Raises Failure."""
        return await self._call(self._stub.Preflight, request, timeout_s)

    async def status(self, request: pb.StatusRequest, timeout_s: float) -> pb.StatusResponse:
        """Ask what is stored. Raises Failure."""
        return await self._call(self._stub.Status, request, timeout_s)

    async def begin(self, request: artifacts_pb2.BeginRequest) -> artifacts_pb2.BeginResponse:
        """Ask what is there of a content. Raises Failure."""
        return await self._call(self._artifacts.Begin, request, PUSH_TIMEOUT_S)

    async def upload(self, requests: AsyncIterator[artifacts_pb2.UploadRequest]) -> artifacts_pb2.UploadResponse:
        """Send a content. Raises Failure; what the iterator raises is raised here too."""
        call = self._artifacts.Upload(timeout=UPLOAD_TIMEOUT_S, metadata=self._metadata)
        try:
            async for request in requests:
                try:
                    await call.write(request)
                except asyncio.InvalidStateError:  # it is answered already
                    break
            else:
                await call.done_writing()
            answer: artifacts_pb2.UploadResponse = await call
        except grpc.aio.AioRpcError as error:
            raise judge(error, self.url) from error
        finally:
            call.cancel()
        return answer

    async def download(self, request: artifacts_pb2.DownloadRequest) -> AsyncIterator[artifacts_pb2.DownloadResponse]:
        """Read a content. Raises Failure."""
        call = self._artifacts.Download(request, timeout=UPLOAD_TIMEOUT_S, metadata=self._metadata)
        try:
            async for each in call:
                yield each
        except grpc.aio.AioRpcError as error:
            raise judge(error, self.url) from error

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._channel.close()

    async def _call(self, method: Callable[..., Awaitable[Answer]], request: Message, timeout_s: float) -> Answer:
        try:
            return await method(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            raise judge(error, self.url) from error


def parse_url(url: str) -> tuple[str, bool]:
    """Return the gRPC target and whether it is TLS. Raises BadInput."""
    wrong = BadInput("url", url, "it must be grpc://HOST:PORT, or grpcs://HOST:PORT for TLS")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in {"grpc", "grpcs"} or not parts.hostname:
        raise wrong
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port or 7171}", parts.scheme == "grpcs"


_REFUSED = frozenset({grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE})
_NOT_ALLOWED = frozenset(
    {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED}
)


def judge(error: grpc.aio.AioRpcError, url: str) -> Failure:
    """Say what a failed call means. What is not known is tried again: bytes are kept rather than parked."""
    code, details = error.code(), error.details() or ""
    text = f"gateway at {url}: {code.name}: {details}"
    if code in _REFUSED or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details):
        return Failure(Verdict.REFUSED, text)
    if code in _NOT_ALLOWED:
        return Failure(Verdict.NOT_ALLOWED, text)
    delay_s = _asked_delay(error)
    if code is grpc.StatusCode.UNAVAILABLE and delay_s is None:
        text = f"gateway at {url} unreachable"
    in_vain = code is not grpc.StatusCode.UNAVAILABLE or delay_s is None
    damaged, missing = code is grpc.StatusCode.DATA_LOSS, code is grpc.StatusCode.NOT_FOUND
    return Failure(Verdict.RETRY, text, delay_s, in_vain, damaged, missing)


def _asked_delay(error: grpc.aio.AioRpcError) -> float | None:
    for key, value in error.trailing_metadata() or ():
        if key == "retry-after-ms":
            try:
                return max(0.0, float(value) / 1000)
            except ValueError:
                continue
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            delay = retry_info(value)
            if delay is not None:
                return delay
    return None


def retry_info(status: bytes) -> float | None:
    """Return the delay of a google.rpc.RetryInfo within a serialized google.rpc.Status.

    Read by hand: googleapis-common-protos is no dependency of the agent, and only one field of one detail matters.
    """
    for detail in _fields(status, 3):
        try:
            found = AnyMessage.FromString(detail)
            if found.type_url.endswith("/google.rpc.RetryInfo"):
                for delay in _fields(found.value, 1):
                    return max(0.0, Duration.FromString(delay).ToTimedelta().total_seconds())
        except DecodeError:
            return None
    return None


def _fields(message: bytes, number: int) -> list[bytes]:
    """Return the length-delimited fields with this number; stops at what is neither these nor varints."""
    found, at = [], 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key & 7 == 2:
            if key >> 3 == number:
                found.append(message[at : at + value])
            at += value
        elif key & 7 != 0:
            break
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            break
    return value, at
