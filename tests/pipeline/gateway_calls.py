"""What the gateway's tests share: ranges to push, the answers they look at, and a bus that fails."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from runtide.bus import Message
from runtide.gateway.tokens import TokenBook, new_token
from runtide.testing.gateway import Served
from runtide.testing.waiting import until_async
from runtide.v1 import ingest_pb2 as pb
from runtide.wire import framing
from runtide.wire.roles import Role

STEP = framing.StepEncoder(1, 2).encode(1, 2, [0.5, 1.5])
(_vision, ONE), (_speech, TWO) = new_token("vision", Role.WRITER), new_token("speech", Role.ADMIN)
TOKENS = TokenBook([_vision, _speech])


def sound(**changes: Any) -> pb.Range:
    fields: dict[str, Any] = {"stream": "s1", "run_id": "r", "rank": 0, "host": "h", "body": STEP}
    return pb.Range(**fields | changes)


async def refused(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


def delay_ms(error: grpc.aio.AioRpcError) -> int:
    trailing = dict(error.trailing_metadata() or ())
    assert "grpc-status-details-bin" in trailing
    return int(trailing["retry-after-ms"])


async def held_push(served: Served, range_: pb.Range) -> asyncio.Task[pb.PushResponse]:
    """Begin a Push that the bus holds until `may_store` is set."""
    served.may_store.clear()
    push = asyncio.create_task(served.push(range_))
    await until_async(lambda: served.bus.held_bytes > 0)
    return push


def counted(served: Served, name: str) -> float:
    return served.gateway.metrics.registry.get_sample_value(f"runtide_gateway_{name}") or 0.0


async def page(served: Served, path: str, method: str = "GET") -> str:
    url = f"http://127.0.0.1:{served.gateway.metrics_port}{path}"

    def get() -> str:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=5) as reply:
                return str(reply.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return f"{error.code} {error.read().decode()}"

    return await asyncio.to_thread(get)


@dataclass
class Failing:
    """A publisher that fails with what it was given, and hangs without."""

    error: Exception | None = None
    tried: int = 0

    async def publish(self, message: Message) -> None:
        self.tried += 1
        if self.error is None:
            await asyncio.Event().wait()
        else:
            raise self.error

    async def close(self) -> None:
        pass
