"""The gateway (RUNTIDE_DASHBOARD_GATEWAY), by which alone a page changes anything, and what a token may do there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import grpc
import streamlit as st
from runtide.v1 import ingest_pb2 as pb
from runtide.v1.ingest_pb2_grpc import IngestStub
from runtide.warehouse.rulings import Push
from runtide.wire.errors import Busy, NotAllowed, Refused, RuntideError, Unavailable
from runtide.wire.roles import Role

Reply = TypeVar("Reply")

ANSWER_S = 5.0
PUSH_S = 60.0
"""A gateway acknowledges after storing, which may take long when the store is busy."""
_KNOWN_S = 10.0
"""How long an answer about a token is believed."""
_WANTED = Role.ADMIN
_AWAY = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
NOT_ALLOWED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}


@dataclass(frozen=True)
class Access:
    """What a token may do."""

    project: str = ""
    """The token's."""
    role: str = ""
    """The token's; empty where the gateway has no tokens, and lets everybody do everything."""
    problem: str = ""
    """Why nothing can be done at all."""

    def why_not(self, projects: Iterable[str]) -> str:
        """Why dead letters of these projects cannot be ruled on; "" where they can."""
        if self.problem or not self.role:
            return self.problem
        if self.role != _WANTED:
            create = f"`runtide token create --project {self.project} --role {_WANTED}`"
            return f"The token's role is {self.role}; to replay or discard needs {_WANTED}: {create}"
        others = sorted(set(projects) - {self.project})
        return f"The token is for project {self.project}, not for {', '.join(others)}." if others else ""


def url() -> str:
    """Where it is."""
    return os.environ.get("RUNTIDE_DASHBOARD_GATEWAY", "") or "grpc://127.0.0.1:7171"


def preflight(token: str) -> pb.PreflightResponse:
    """Ask whether a token is good. Raises grpc.RpcError."""
    return _call(lambda stub: stub.Preflight(pb.PreflightRequest(), metadata=_bearer(token), timeout=ANSWER_S))


def access(token: str) -> Access:
    """What a token may do, or nobody's."""
    return _access(url(), token)


@st.cache_resource(ttl=_KNOWN_S, max_entries=1000, show_spinner=False)
def _access(where: str, token: str) -> Access:
    try:
        reply = preflight(token)
    except grpc.RpcError as error:
        if error.code() not in NOT_ALLOWED:
            return Access(problem=f"The gateway at {where} does not answer ({error.code().name}).")
        if token:
            return Access(problem=f"The gateway does not take this page's token: {error.details()}")
        return Access(
            problem="The gateway asks for tokens and this page has none: set RUNTIDE_DASHBOARD_SIGN_IN=token, so that "
            "visitors bring their own, or RUNTIDE_DASHBOARD_TOKEN."
        )
    return Access(reply.project, reply.role)


def pushing(token: str) -> Push:
    """What hands ranges over with this token."""

    def push(request: pb.PushRequest) -> Sequence[pb.Ack]:
        try:
            reply = _call(lambda stub: stub.Push(request, metadata=_bearer(token), timeout=PUSH_S))
        except grpc.RpcError as error:
            raise _meant(error) from error
        return list(reply.acks)

    return push


def _meant(error: grpc.RpcError) -> RuntideError:
    """A failed Push as an error for people."""
    code, said = error.code(), f"the gateway at {url()} says {error.code().name}: {error.details()}"
    if code in NOT_ALLOWED:
        return NotAllowed(said)
    if code not in _AWAY:
        return Refused(said)
    for key, value in error.trailing_metadata() or ():
        if key == "retry-after-ms":
            return Busy(said, float(value) / 1000)
    return Unavailable(said)


def _call(ask: Callable[[IngestStub], Reply]) -> Reply:
    parts = urlsplit(url())
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    with _channel(f"{host}:{parts.port or 7171}", secure=parts.scheme == "grpcs") as channel:
        return ask(IngestStub(channel))


def _channel(target: str, *, secure: bool) -> grpc.Channel:
    if not secure:
        return grpc.insecure_channel(target)
    files = (os.environ.get(f"RUNTIDE_{name}_FILE", "") for name in ("CA", "KEY", "CERT"))
    return grpc.secure_channel(
        target, grpc.ssl_channel_credentials(*(Path(file).read_bytes() if file else None for file in files))
    )


def _bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),) if token else ()
