"""A gateway over real sockets: what it takes in, what it refuses and how it says so."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from runtide.bus import Message, message_key
from runtide.gateway import Gateway, GatewaySettings, Limits
from runtide.gateway.tokens import TokenMap, hash_token
from runtide.testing.gateway import Served, bearer, serving
from runtide.v1 import ingest_pb2 as pb
from runtide.v1 import records_pb2 as rec
from runtide.wire import framing
from runtide.wire.errors import BadInput, Busy, Unavailable

STEP = framing.StepEncoder(1, 2).encode(1, 2, [0.5, 1.5])
TOKENS = TokenMap({hash_token("secret-one"): "vision", hash_token("secret-two"): "speech"})


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


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        await asyncio.sleep(0.01)


def counted(served: Served, name: str) -> float:
    return served.gateway.metrics.registry.get_sample_value(f"runtide_gateway_{name}") or 0.0


# --- what is taken in


def test_ranges_of_several_streams_arrive_as_they_were_sent() -> None:
    async def main() -> None:
        async with serving() as served:
            sent = [
                sound(stream="s1", offset=0, rank=3, key_sets=[rec.KeySet(id=1, names=["loss", "accuracy"])]),
                sound(stream="s2", offset=500, rank=70, body=STEP * 3),
                sound(stream="s1", offset=len(STEP)),
                sound(stream="s3", body=b"", offset=40, gap=rec.Gap(length=60, records=2, reason="refused")),
            ]
            reply = await served.push(*sent)
            assert [(ack.stream, ack.acknowledged, ack.HasField("refusal")) for ack in reply.acks] == [
                ("s1", len(STEP), False),
                ("s2", 500 + 3 * len(STEP), False),
                ("s1", 2 * len(STEP), False),
                ("s3", 100, False),
            ]
            for range_ in sent:
                range_.project = "default"
            assert served.ranges() == sent
            first, second = served.stored[:2]
            assert first.key == message_key("default", "r", 3)
            assert second.key == message_key("default", "r", 70)
            assert abs(first.received_us / 1e6 - time.time()) < 60

    asyncio.run(main())


def test_one_bad_range_among_good_ones() -> None:
    async def main() -> None:
        async with serving() as served:
            bad = STEP + STEP[:-1] + b"\x00" + STEP
            reply = await served.push(sound(stream="a"), sound(stream="b", offset=1000, body=bad), sound(stream="c"))
            assert [ack.acknowledged for ack in reply.acks] == [len(STEP), 0, len(STEP)]
            refusal = reply.acks[1].refusal
            assert (refusal.code, refusal.field, refusal.offset) == ("crc", "body", 1000 + len(STEP))
            assert [range_.stream for range_ in served.ranges()] == ["a", "c"]
            assert "runtide_gateway_refusals_total" in await page(served, "/metrics")

    asyncio.run(main())


def test_fields_of_later_releases_are_forwarded() -> None:
    async def main() -> None:
        async with serving() as served:
            later = pb.Range.FromString(sound().SerializeToString() + b"\xfa\x07\x03new")  # field 127
            await served.push(later)
            assert b"\xfa\x07\x03new" in served.stored[0].value

    asyncio.run(main())


def test_an_acknowledgement_comes_after_the_bus_has_it() -> None:
    async def main() -> None:
        async with serving() as served:
            served.may_store.clear()
            push = asyncio.create_task(served.push(sound()))
            await until(lambda: served.bus.held_bytes > 0)
            assert not push.done()
            served.may_store.set()
            assert (await push).acks[0].acknowledged == len(STEP)

    asyncio.run(main())


def test_a_caller_that_went_away_joins_what_is_under_way() -> None:
    async def main() -> None:
        async with serving() as served:
            served.may_store.clear()
            gone = asyncio.create_task(served.push(sound()))
            await until(lambda: served.bus.held_bytes > 0)
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
            again = asyncio.create_task(served.push(sound()))
            await until(lambda: counted(served, "joined_total") == 1)
            served.may_store.set()
            assert (await again).acks[0].acknowledged == len(STEP)
            assert len(served.stored) == 1

    asyncio.run(main())


# --- whole-call refusals


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
            served.may_store.clear()
            first = asyncio.create_task(served.push(sound(stream="a", body=STEP * 2)))
            await until(lambda: served.bus.held_bytes > 0)
            error = await refused(served.push(sound(stream="b")))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "in_flight_bytes" in str(error.details())
            assert delay_ms(error) > 0
            served.may_store.set()
            await first
            await served.push(sound(stream="b"))

    asyncio.run(main())


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


# --- tokens


def test_the_token_gives_the_project() -> None:
    async def main() -> None:
        async with serving(tokens=TOKENS) as served:
            await served.push(sound(), token="secret-one")
            await served.push(sound(project="speech"), token="secret-two")
            assert [message.project for message in served.stored] == ["vision", "speech"]
            assert [range_.project for range_ in served.ranges()] == ["vision", "speech"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("token", "project", "code", "words"),
    [
        ("", "", grpc.StatusCode.UNAUTHENTICATED, ("RUNTIDE_TOKEN",)),
        ("secret-three", "", grpc.StatusCode.UNAUTHENTICATED, ("not known",)),
        ("secret-one", "speech", grpc.StatusCode.PERMISSION_DENIED, ("vision", "speech")),
    ],
)
def test_wrong_tokens(token: str, project: str, code: grpc.StatusCode, words: Sequence[str]) -> None:
    async def main() -> None:
        async with serving(tokens=TOKENS) as served:
            calls = (
                served.push(sound(), sound(project=project), token=token),
                served.stub.Preflight(pb.PreflightRequest(project=project), metadata=bearer(token)),
                served.stub.Status(pb.StatusRequest(project=project), metadata=bearer(token)),
            )
            for call in calls:
                error = await refused(call)
                assert error.code() is code
                for word in words:
                    assert word in str(error.details())
                assert not token or token not in str(error.details())
            assert served.stored == []

    asyncio.run(main())


def test_tls(tmp_path: Path, require: Callable[[object, str], None]) -> None:
    require(shutil.which("openssl"), "openssl makes the certificate of this test")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)

    async def main() -> None:
        settings = GatewaySettings(tls_cert=certificate, tls_key=key)
        trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
        async with serving(settings, TOKENS, credentials=trusted) as served:
            await served.push(sound(), token="secret-one")
            assert served.stored[0].project == "vision"

    asyncio.run(main())


def test_listening_elsewhere_without_tokens_is_refused_at_once() -> None:
    with pytest.raises(BadInput, match="RUNTIDE_GATEWAY_TOKENS"):
        Gateway(GatewaySettings(host="0.0.0.0"), Failing())


# --- Preflight and Status


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


class Ledger:
    def stream_status(self, project: str, streams: Sequence[str]) -> Sequence[Stream]:
        if project == "away":
            raise OSError("no route")
        return [Stream(stream, 100, 2) for stream in streams if stream != "unknown"]

    def run_facts(self, project: str, run_id: str, launch_id: str) -> Facts:
        if project == "away":
            raise OSError("no route")
        return Facts(True, f"{project}/{run_id}/{launch_id}", 3)


def test_preflight() -> None:
    async def main() -> None:
        async with serving(ledger=Ledger()) as served:
            reply = await served.stub.Preflight(pb.PreflightRequest(run_id="r", launch_id="l"))
            assert (reply.project, reply.run_exists, reply.attempt) == ("default", True, 3)
            assert reply.run_state == "default/r/l"
            assert dict(reply.limits) == Limits().table()
            assert abs(reply.time_us / 1e6 - time.time()) < 60

    asyncio.run(main())


def test_preflight_without_the_store_knows_the_token_and_no_attempt() -> None:
    async def main() -> None:
        async with serving(ledger=Ledger()) as served:
            reply = await served.stub.Preflight(pb.PreflightRequest(project="away", run_id="r"))
            assert (reply.project, reply.run_exists, reply.attempt) == ("away", False, 0)
        async with serving(tokens=TOKENS) as served:
            reply = await served.stub.Preflight(pb.PreflightRequest(run_id="r"), metadata=bearer("secret-one"))
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


# --- health, reflection, pages, stop


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


def test_a_stop_answers_what_is_under_way_and_refuses_what_is_new() -> None:
    async def main() -> None:
        async with serving() as served:
            served.may_store.clear()
            health: Any = health_pb2_grpc.HealthStub(served.channel)
            under_way = asyncio.create_task(served.push(sound(stream="a")))
            await until(lambda: served.bus.held_bytes > 0)
            stopping = asyncio.create_task(served.gateway.stop(20))
            await until(lambda: served.gateway.why_not_ready() != "")
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


def test_a_stop_is_bounded_when_the_bus_hangs() -> None:
    async def main() -> None:
        async with serving(publisher=Failing()) as served:
            push = asyncio.create_task(served.push(sound()))
            await until(lambda: counted(served, "in_flight_bytes") > 0)
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


def test_two_gateways_serve_side_by_side() -> None:
    async def main() -> None:
        async with serving() as one, serving(publisher=one.bus.publisher) as two:
            await one.push(sound(offset=0))
            await two.push(sound(offset=len(STEP)))
            assert [range_.offset for range_ in one.ranges()] == [0, len(STEP)]

    asyncio.run(main())
