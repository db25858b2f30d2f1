"""What a gateway answers to Preflight and Status, with and without a store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from runtide.gateway import Limits
from runtide.testing.gateway import bearer, serving
from runtide.v1 import ingest_pb2 as pb

from tests.pipeline.gateway_calls import (
    ONE,
    TOKENS,
    refused,
)


@dataclass
class Stream:
    stream: str
    stored: int
    holes: int


@dataclass
class Facts:
    exists: bool
    state: str
    attempt: int
    last_step: int | None = None


class Ledger:
    def stream_status(self, project: str, streams: Sequence[str]) -> Sequence[Stream]:
        if project == "away":
            raise OSError("no route")
        return [Stream(stream, 100, 2) for stream in streams if stream != "unknown"]

    def run_facts(self, project: str, run_id: str, launch_id: str) -> Facts:
        if project == "away":
            raise OSError("no route")
        return Facts(True, f"{project}/{run_id}/{launch_id}", 3, last_step=0 if run_id == "r" else None)


def test_preflight() -> None:
    async def main() -> None:
        async with serving(ledger=Ledger()) as served:
            reply = await served.stub.Preflight(pb.PreflightRequest(run_id="r", launch_id="l"))
            assert (reply.project, reply.run_exists, reply.attempt) == ("default", True, 3)
            assert reply.run_state == "default/r/l"
            assert dict(reply.limits) == Limits().table()
            assert abs(reply.time_us / 1e6 - time.time()) < 60
            assert (reply.HasField("last_step"), reply.last_step) == (True, 0)
            other = await served.stub.Preflight(pb.PreflightRequest(run_id="empty", launch_id="l"))
            assert not other.HasField("last_step")

    asyncio.run(main())


def test_preflight_without_the_store_knows_the_token_and_no_attempt() -> None:
    async def main() -> None:
        async with serving(ledger=Ledger()) as served:
            reply = await served.stub.Preflight(pb.PreflightRequest(project="away", run_id="r"))
            assert (reply.project, reply.run_exists, reply.attempt) == ("away", False, 0)
        async with serving(tokens=TOKENS) as served:
            reply = await served.stub.Preflight(pb.PreflightRequest(run_id="r"), metadata=bearer(ONE))
            assert (reply.project, reply.run_exists, reply.attempt) == ("vision", False, 0)

    asyncio.run(main())


def test_status() -> None:
    async def main() -> None:
        async with serving(ledger=Ledger()) as served:
            reply = await served.stub.Status(pb.StatusRequest(streams=["s", "unknown"]))
            assert [(each.stream, each.stored, each.holes) for each in reply.streams] == [("s", 100, 2)]
            error = await refused(served.stub.Status(pb.StatusRequest(project="away", streams=["s"])))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            error = await refused(served.stub.Status(pb.StatusRequest(streams=["s"] * 1025)))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "status_streams" in str(error.details())
        async with serving() as served:
            error = await refused(served.stub.Status(pb.StatusRequest(streams=["s"])))
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "RUNTIDE_CLICKHOUSE_HOST" in str(error.details())

    asyncio.run(main())
