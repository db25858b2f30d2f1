"""Runs that have ended, with readings that are known: what they cost can be counted by hand."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import grpc
from runtide.testing.stack import Stack
from runtide.testing.streams import MadeStream
from runtide.v1 import ingest_pb2 as pb
from runtide.v1 import records_pb2 as v1
from runtide.v1.ingest_pb2_grpc import IngestStub

HOUR = int(time.time()) // 3600 * 3600 - 3 * 3600
"""When the story begins: a full hour, some hours ago."""


def at(seconds: float) -> int:
    return int((HOUR + seconds) * 1_000_000)


def ran(stack: Stack, run: str, host: str, since: int, until: int, readings: list[v1.Reading], **more: Any) -> None:
    """Push one run that has ended: a rank, and an agent that sampled every ten seconds."""
    who = {"run_id": run, "user": more.pop("user", "ada"), "experiment": more.pop("experiment", "one"), "host": host}
    world, facts = more.pop("world", 1), {"gpus": more.pop("gpus", []), "variables": more.pop("variables", {})}
    opened = {"time_us": at(since), "launch_id": run, "attempt": 1, "world_size": world, **who}
    rank = MadeStream(f"{run}-rank", project="default", run_id=run, host=host)
    rank.add(stream_opened=v1.StreamOpened(role=v1.ROLE_RANK, **opened))
    agent = MadeStream(f"{run}-agent", project="default", run_id=run, rank=-1, host=host, role=v1.ROLE_AGENT)
    agent.add(stream_opened=v1.StreamOpened(role=v1.ROLE_AGENT, rank=-1, **opened))
    agent.add(environment=v1.Environment(time_us=at(since), json=json.dumps(facts)))
    for second in range(since, until, 10) if readings else ():
        own = [each for each in readings if each.device == "process"]
        rest = [each for each in readings if each.device != "process"]
        agent.add(sample=v1.Sample(time_us=at(second), rank=-1, readings=rest))
        agent.add(sample=v1.Sample(time_us=at(second), rank=0, readings=own))
    rank.add(
        stream_closed=v1.StreamClosed(
            time_us=at(until), reason="finish", records=1, elapsed_us=(until - since) * 1_000_000
        )
    )

    async def push() -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{stack.state.ports.gateway}") as channel:
            ranges = [agent.range(), rank.range()]
            reply = await IngestStub(channel).Push(pb.PushRequest(ranges=ranges), timeout=60)
            assert not any(ack.HasField("refusal") for ack in reply.acks), reply

    asyncio.run(push())


def reading(device: str, name: str, value: float) -> v1.Reading:
    return v1.Reading(device=device, name=name, value=value)
