"""Whole calls that a gateway refuses: limits, rates, and a bus that fails or hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

import grpc
import pytest
from runtide.gateway import GatewaySettings, Limits
from runtide.testing.gateway import serving
from runtide.v1 import ingest_pb2 as pb
from runtide.wire.errors import BadInput, Busy, Unavailable

from tests.pipeline.gateway_calls import (
    STEP,
    Failing,
    delay_ms,
    held_push,
    page,
    refused,
    sound,
)

pytestmark = pytest.mark.fault(7)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (pb.PushRequest(ranges=[sound()] * 257), ("ranges", "257", "256", "push_ranges")),
        (pb.PushRequest(ranges=[sound(body=bytes(900 * 1024))] * 5), ("ranges.body", "4608000", "push_bytes")),
        (pb.PushRequest(agent="x" * 2_000_000), ("Push", "1048576", "push_envelope_bytes")),
    ],
)
def test_a_push_over_a_limit_names_field_value_and_limit(request_: pb.PushRequest, words: Sequence[str]) -> None:
    async def main() -> None:
        async with serving() as served:
            error = await refused(served.stub.Push(request_))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            for word in words:
                assert word in str(error.details())
            assert served.stored == []

    asyncio.run(main())


def test_rates_answer_with_a_delay_and_the_push_passes_after_it() -> None:
    async def main() -> None:
        limits = replace(Limits(), project_pushes_per_s=10, burst_s=1)
        async with serving(GatewaySettings(limits=limits)) as served:
            for offset in range(10):
                await served.push(sound(offset=offset * len(STEP)))
            error = await refused(served.push(sound(offset=10 * len(STEP))))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "project_pushes_per_s" in str(error.details())
            assert 0 < delay_ms(error) <= 100
            await asyncio.sleep(delay_ms(error) / 1000)
            await served.push(sound(offset=10 * len(STEP)))

    asyncio.run(main())


def test_too_much_under_way_is_refused_until_there_is_room() -> None:
    async def main() -> None:
        limits = replace(Limits(), in_flight_bytes=2 * len(STEP))
        async with serving(GatewaySettings(limits=limits)) as served:
            first = await held_push(served, sound(stream="a", body=STEP * 2))
            error = await refused(served.push(sound(stream="b")))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "in_flight_bytes" in str(error.details())
            assert delay_ms(error) > 0
            served.may_store.set()
            await first
            await served.push(sound(stream="b"))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "code", "delay"),
    [
        (Busy("no room", 0.75), grpc.StatusCode.RESOURCE_EXHAUSTED, 750),
        (Unavailable("away"), grpc.StatusCode.UNAVAILABLE, 1000),
    ],
)
def test_the_bus_says_no(error: Exception, code: grpc.StatusCode, delay: int) -> None:
    async def main() -> None:
        async with serving(publisher=Failing(error)) as served:
            answer = await refused(served.push(sound(), sound(offset=len(STEP))))
            assert (answer.code(), delay_ms(answer)) == (code, delay)

    asyncio.run(main())


def test_after_a_failure_the_rest_of_the_push_is_not_begun() -> None:
    async def main() -> None:
        publisher = Failing(Unavailable("away"))
        async with serving(publisher=publisher) as served:
            await refused(served.push(*[sound(offset=at * len(STEP)) for at in range(20)]))
            assert publisher.tried == 1

    asyncio.run(main())


def test_what_the_bus_never_takes_is_a_refusal() -> None:
    async def main() -> None:
        async with serving(publisher=Failing(BadInput("range", "9 bytes", "at most 8"))) as served:
            reply = await served.push(sound(offset=5))
            refusal = reply.acks[0].refusal
            assert (refusal.code, refusal.field, refusal.value, refusal.limit) == (
                "bus",
                "range",
                "9 bytes",
                "at most 8",
            )

    asyncio.run(main())


def test_a_fault_of_the_gateway_is_internal_and_says_nothing_else() -> None:
    async def main() -> None:
        async with serving(publisher=Failing(ZeroDivisionError("inside"))) as served:
            answer = await refused(served.push(sound()))
            assert answer.code() is grpc.StatusCode.INTERNAL
            assert "inside" not in str(answer.details())

    asyncio.run(main())


def test_a_bus_that_hangs_is_unavailable_in_time_and_not_ready() -> None:
    async def main() -> None:
        settings = GatewaySettings(publish_timeout_s=0.2)
        async with serving(settings, publisher=Failing()) as served:
            begun = time.monotonic()
            answer = await refused(served.push(sound()))
            assert answer.code() is grpc.StatusCode.UNAVAILABLE
            assert time.monotonic() - begun < 5
            assert "the bus does not answer" in await page(served, "/readyz")
            assert await page(served, "/healthz") == "ok\n"

    asyncio.run(main())
