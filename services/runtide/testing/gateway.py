"""A gateway on free ports in the test's own loop, with a local bus and a sink that keeps messages in a list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import grpc

from runtide.bus import Message, Publisher
from runtide.bus.local import LocalBus
from runtide.gateway import Gateway, GatewaySettings, TokenBook
from runtide.gateway.service import Ledger
from runtide.v1 import ingest_pb2 as pb
from runtide.v1 import ingest_pb2_grpc as pb_grpc


@dataclass(slots=True)
class Served:
    """A gateway that serves, and what is around it."""

    gateway: Gateway
    bus: LocalBus
    channel: grpc.aio.Channel
    stored: list[Message] = field(default_factory=list)
    """What the sink has committed, in order."""
    may_store: asyncio.Event = field(default_factory=asyncio.Event)
    """The sink commits while this is set, as it is at the beginning."""

    def ranges(self) -> list[pb.Range]:
        """What is stored, decoded."""
        return [pb.Range.FromString(message.value) for message in self.stored]

    async def push(self, *ranges: pb.Range, token: str = "") -> pb.PushResponse:
        """Push as an agent does. Raises grpc.aio.AioRpcError."""
        reply: pb.PushResponse = await self.stub.Push(
            pb.PushRequest(ranges=ranges, agent="test"), metadata=bearer(token), timeout=30
        )
        return reply

    @property
    def stub(self) -> pb_grpc.IngestStub:
        """All calls of Ingest."""
        return pb_grpc.IngestStub(self.channel)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata that carries a token."""
    return (("authorization", f"Bearer {token}"),) if token else ()


@asynccontextmanager
async def serving(
    settings: GatewaySettings | None = None,
    tokens: TokenBook | None = None,
    ledger: Ledger | None = None,
    publisher: Publisher | None = None,
    credentials: grpc.ChannelCredentials | None = None,
) -> AsyncIterator[Served]:
    """Serve until the block ends; ports in `settings` are replaced by free ones."""
    bus = LocalBus()
    chosen = replace(settings or GatewaySettings(), port=0, metrics_port=0)
    gateway = Gateway(chosen, publisher or bus.publisher, ledger, tokens)
    await gateway.start()
    address = f"127.0.0.1:{gateway.port}"
    if credentials is None:
        channel = grpc.aio.insecure_channel(address)
    else:
        channel = grpc.aio.secure_channel(address, credentials)
    served = Served(gateway, bus, channel)
    served.may_store.set()
    sink = asyncio.create_task(_store(served))
    try:
        yield served
    finally:
        served.may_store.set()
        await channel.close()
        await gateway.stop(2)
        sink.cancel()
        await asyncio.wait({sink})
        await bus.publisher.close()


async def _store(served: Served) -> None:
    consumer = served.bus.consumer
    while True:
        messages = await consumer.poll(0.05)
        await served.may_store.wait()
        await consumer.commit(messages)
        served.stored.extend(messages)
