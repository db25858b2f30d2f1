"""Push over a real socket under spoiled requests: always a status, and nothing on the bus that is not sound."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from contextlib import suppress

import grpc
import pytest
from runtide.gateway.checks import check_range
from runtide.gateway.limits import Limits
from runtide.testing.gateway import Served, serving
from runtide.testing.streams import varied_stream
from runtide.v1 import ingest_pb2 as pb
from runtide.v1 import records_pb2 as v1
from runtide.wire.framing import Checked

from tests.fuzz.kept import cases, corpus, failing
from tests.fuzz.mutate import SEED, TIMEOUT_S, Watch, mutated

pytestmark = [pytest.mark.fault(11), pytest.mark.timeout(TIMEOUT_S)]
SOUND = varied_stream("sound", 3)
AT_ONCE = 16
ANSWERS = {"OK", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}


def seeds() -> list[bytes]:
    several = [varied_stream(f"s{rank}", 4, rank=rank).range() for rank in range(3)]
    gap = SOUND.gap(0, 100)
    ruling = pb.Range(stream="s", run_id="r", ruling=pb.Ruling(offsets=[0, 9], by="ann", discard="why"))
    many = SOUND.range()
    many.key_sets.extend(v1.KeySet(id=number, names=[f"m{number}"]) for number in range(50))
    requests = [[SOUND.range()], several, [gap], [ruling], [many, gap], []]
    made = [pb.PushRequest(ranges=ranges, agent="fuzz").SerializeToString() for ranges in requests]
    return [*made, *corpus("push")]


def test_push() -> None:
    asyncio.run(_push())


async def _push() -> None:
    dice, watch, from_ = random.Random(SEED), Watch("Gateway.Push"), seeds()
    codes: dict[str, int] = {}
    limits = Limits()
    async with serving() as served:
        push = served.channel.unary_unary("/runtide.v1.Ingest/Push", response_deserializer=pb.PushResponse.FromString)

        async def one(request: bytes) -> None:
            code = "OK"
            try:
                reply = await push(request, timeout=30)
            except grpc.aio.AioRpcError as error:
                code = error.code().name
            else:
                asked = pb.PushRequest.FromString(request)
                assert len(reply.acks) == len(asked.ranges)
            assert code in ANSWERS
            codes[code] = codes.get(code, 0) + 1

        async def tried(request: bytes) -> None:
            with failing("push", request):
                await one(request)

        made = cases("push", watch, lambda: mutated(dice, from_))
        while some := list(itertools.islice(made, AT_ONCE)):
            await asyncio.gather(*map(tried, some))
            if dice.random() < 0.1:
                await noise(served, dice)
            check(served, limits)
        reply = await served.push(SOUND.range())
        assert reply.acks[0].acknowledged == len(SOUND.body)
        assert served.gateway.why_not_ready() == ""
        assert codes["OK"] > 0 < codes["INVALID_ARGUMENT"]
    watch.end()


def check(served: Served, limits: Limits) -> None:
    """What reached the bus is whole and sound, and carries the identity that it is keyed by."""
    for message in served.stored:
        range_ = pb.Range.FromString(message.value)
        with failing("push", pb.PushRequest(ranges=[range_]).SerializeToString()):
            assert isinstance(check_range(range_, limits), Checked)
            assert message.project == range_.project
    served.stored.clear()


async def noise(served: Served, dice: random.Random) -> None:
    """Bytes that are not even HTTP/2, at both ports; the second one answers HTTP/1."""
    for port in (served.gateway.port, served.gateway.metrics_port):
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            request = (
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" if port == served.gateway.port else b"GET /metrics HTTP/1.1\r\n\r\n"
            )
            writer.write(mutated(dice, [request]))
            writer.write_eof()
            with suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await reader.read()
            writer.close()


def test_a_request_that_is_none_is_the_callers_mistake(caplog: pytest.LogCaptureFixture) -> None:
    async def ask() -> None:
        async with serving() as served:
            push = served.channel.unary_unary("/runtide.v1.Ingest/Push")
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await push(b"\xff\xff", timeout=30)
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "no Push request" in str(error.value.details())

    asyncio.run(ask())
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
