"""A gateway as a service: health, reflection, pages, ports and how it stops."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from runtide.gateway import Gateway, GatewaySettings
from runtide.testing.gateway import serving
from runtide.testing.waiting import until_async
from runtide.wire.errors import BadInput

from tests.pipeline.gateway_calls import (
    STEP,
    TOKENS,
    Failing,
    counted,
    delay_ms,
    held_push,
    page,
    refused,
    sound,
)


def test_health_and_reflection() -> None:
    async def main() -> None:
        async with serving(tokens=TOKENS) as served:  # both need no token, as everywhere
            health: Any = health_pb2_grpc.HealthStub(served.channel)
            for name in ("", "runtide.v1.Ingest"):
                reply = await health.Check(health_pb2.HealthCheckRequest(service=name))
                assert reply.status == health_pb2.HealthCheckResponse.SERVING
            channel: Any = served.channel
            reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
            question = reflection_pb2.ServerReflectionRequest(list_services="")
            call = reflection.ServerReflectionInfo(iter([question]))
            async for answer in call:
                names = {service.name for service in answer.list_services_response.service}
                assert "runtide.v1.Ingest" in names
                break

    asyncio.run(main())


def test_pages() -> None:
    async def main() -> None:
        async with serving() as served:
            await served.push(sound(body=STEP * 7))
            metrics = await page(served, "/metrics")
            assert "runtide_gateway_records_total 7.0" in metrics
            assert f"runtide_gateway_bytes_total {7.0 * len(STEP)}" in metrics
            assert 'runtide_gateway_calls_total{code="OK",method="Push"} 1.0' in metrics
            assert "runtide_gateway_in_flight_bytes 0.0" in metrics
            assert "runtide_gateway_serving 1.0" in metrics
            assert await page(served, "/healthz") == "ok\n"
            assert await page(served, "/readyz") == "ready\n"
            assert (await page(served, "/secrets")).startswith("404 ")
            assert (await page(served, "/metrics", "POST")).startswith("405 ")

    asyncio.run(main())


@pytest.mark.fault(28)
def test_a_stop_answers_what_is_under_way_and_refuses_what_is_new() -> None:
    async def main() -> None:
        async with serving() as served:
            health: Any = health_pb2_grpc.HealthStub(served.channel)
            under_way = await held_push(served, sound(stream="a"))
            stopping = asyncio.create_task(served.gateway.stop(20))
            await until_async(lambda: served.gateway.why_not_ready() != "")
            reply = await health.Check(health_pb2.HealthCheckRequest())
            assert reply.status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert "not serving" in await page(served, "/readyz")
            error = await refused(served.push(sound(stream="b")))
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert delay_ms(error) > 0
            served.may_store.set()
            assert (await under_way).acks[0].acknowledged == len(STEP)
            await stopping
            assert [range_.stream for range_ in served.ranges()] == ["a"]

    asyncio.run(main())


def test_a_stop_ends_the_calls_that_watch_with_the_last_word() -> None:
    async def main() -> None:
        async with serving() as served:
            health: Any = health_pb2_grpc.HealthStub(served.channel)
            watches = [health.Watch(health_pb2.HealthCheckRequest(service=name)) for name in ("", "unknown")]
            states = health_pb2.HealthCheckResponse
            assert (await watches[0].read()).status == states.SERVING
            assert (await watches[1].read()).status == states.SERVICE_UNKNOWN
            begun = time.monotonic()
            await served.gateway.stop(20)
            assert time.monotonic() - begun < 5
            assert (await watches[0].read()).status == states.NOT_SERVING
            assert [await watch.read() for watch in watches] == [grpc.aio.EOF] * 2

    asyncio.run(main())


@pytest.mark.fault(28)
def test_a_stop_is_bounded_when_the_bus_hangs() -> None:
    async def main() -> None:
        async with serving(publisher=Failing()) as served:
            push = asyncio.create_task(served.push(sound()))
            await until_async(lambda: counted(served, "in_flight_bytes") > 0)
            begun = time.monotonic()
            await served.gateway.stop(0.3)
            assert time.monotonic() - begun < 5
            assert (await refused(push)).code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}

    asyncio.run(main())


def test_a_port_that_is_taken_is_named_with_its_setting() -> None:
    async def main() -> None:
        async with serving() as served:
            taken = GatewaySettings(port=served.gateway.port, metrics_port=None)
            with pytest.raises(BadInput, match="RUNTIDE_GATEWAY_PORT"):
                await Gateway(taken, Failing()).start()
            taken = GatewaySettings(port=0, metrics_port=served.gateway.metrics_port)
            with pytest.raises(BadInput, match="RUNTIDE_GATEWAY_METRICS_PORT"):
                await Gateway(taken, Failing()).start()

    asyncio.run(main())
