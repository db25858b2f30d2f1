"""Who may do what, over real sockets: every call of every service, every role, and two projects side by side."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import clickhouse_connect
import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from runtide.bus.control import FileControl
from runtide.bus.local import LocalBus
from runtide.cli.parts import follow_tokens
from runtide.gateway import Gateway, GatewaySettings, TokenBook
from runtide.gateway.access import RULES, RULINGS
from runtide.gateway.tokens import KEY, new_token, revoked
from runtide.sink.sink import Sink, SinkSettings
from runtide.testing.embedded import EmbeddedClickHouse
from runtide.testing.gateway import Served, bearer, serving
from runtide.v1 import artifacts_pb2
from runtide.v1 import ingest_pb2 as pb
from runtide.v1 import ingest_pb2_grpc as pb_grpc
from runtide.v1 import records_pb2 as rec
from runtide.warehouse.client import ClickHouseSettings, connect
from runtide.warehouse.ledger import LedgerReader
from runtide.warehouse.migrate import migrate
from runtide.wire import framing
from runtide.wire.roles import Role

pytestmark = pytest.mark.fault(12)

SERVICES = [*pb.DESCRIPTOR.services_by_name.values(), *artifacts_pb2.DESCRIPTOR.services_by_name.values()]
METHODS = [method for service in SERVICES for method in service.methods]
HOLDERS = {role: new_token("vision", role, f"{role} of vision") for role in Role}
EXPIRED, EXPIRED_TEXT = new_token("vision", Role.ADMIN, expires=int(time.time()) - 1)
REVOKED, REVOKED_TEXT = new_token("vision", Role.ADMIN)
BOOK = TokenBook([*(token for token, _ in HOLDERS.values()), EXPIRED, revoked(REVOKED)])
STEP = framing.StepEncoder(1, 1).encode(1, 2, [0.5])


async def call(served: Served, method: MethodDescriptor, token: str, **fields: Any) -> grpc.StatusCode:
    """Make a call as its descriptor says, and return what it ended with."""
    request, reply = (message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type))
    path = f"/{method.containing_service.full_name}/{method.name}"
    told = {"metadata": bearer(token), "timeout": 20}
    how = (path, request.SerializeToString, reply.FromString)
    if method.client_streaming:
        return await code_of(served.channel.stream_unary(*how)(iter([request(**fields)]), **told))
    if method.server_streaming:
        return await code_of(all_of(served.channel.unary_stream(*how)(request(**fields), **told)))
    return await code_of(served.channel.unary_unary(*how)(request(**fields), **told))


async def all_of(answers: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in answers]


def passed(method: MethodDescriptor) -> grpc.StatusCode:
    """What a call ends with that was let in; this gateway keeps no artifacts, and says so to those alone."""
    ingest = method.containing_service.name == "Ingest"
    return grpc.StatusCode.OK if ingest else grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_nobody_calls_anything_without_a_good_token(method: MethodDescriptor) -> None:
    async def main() -> None:
        async with serving(tokens=BOOK, ledger=Nothing()) as served:
            guess = new_token("vision", Role.ADMIN)[1]
            for token in ("", "x", guess, EXPIRED_TEXT, REVOKED_TEXT):
                assert await call(served, method, token) is grpc.StatusCode.UNAUTHENTICATED
            assert served.stored == []

    asyncio.run(main())


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_role_may_call_what_its_rule_says(method: MethodDescriptor, role: Role) -> None:
    async def main() -> None:
        async with serving(tokens=BOOK, ledger=Nothing()) as served:
            may = role in RULES[f"/{method.containing_service.full_name}/{method.name}"]
            found = await call(served, method, HOLDERS[role][1])
            assert found is (passed(method) if may else grpc.StatusCode.PERMISSION_DENIED)

    asyncio.run(main())


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_no_token_reaches_another_project(method: MethodDescriptor) -> None:
    def naming(project: str) -> dict[str, Any]:
        if "project" in method.input_type.fields_by_name:
            return {"project": project}
        return {"ranges": [pb.Range(stream="s", run_id="r", body=STEP, project=project)]}

    async def main() -> None:
        async with serving(tokens=BOOK, ledger=Nothing()) as served:
            token = HOLDERS[Role.ADMIN][1]
            assert await call(served, method, token, **naming("speech")) is grpc.StatusCode.PERMISSION_DENIED
            assert served.stored == []
            assert await call(served, method, token, **naming("vision")) is passed(method)

    asyncio.run(main())


def ways(kind: Descriptor, wanted: Descriptor, seen: frozenset[str] = frozenset()) -> list[list[str]]:
    """How a message of one kind can hold one of another, as paths of field names."""
    found = []
    for field in kind.fields:
        if field.message_type is not None and field.message_type.full_name not in seen:
            inner = ways(field.message_type, wanted, seen | {kind.full_name})
            found += [[field.name, *path] for path in ([[]] if field.message_type is wanted else inner)]
    return found


CARRIERS = [(method, path) for method in METHODS for path in ways(method.input_type, pb.Ruling.DESCRIPTOR)]
"""Every place of every request in which a ruling can travel."""


def test_a_ruling_travels_in_push_alone() -> None:
    assert [(method.name, path) for method, path in CARRIERS] == [("Push", ["ranges", "ruling"])]


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize(("method", "path"), CARRIERS, ids=lambda each: getattr(each, "name", None))
def test_only_an_admin_rules_on_dead_letters(method: MethodDescriptor, path: list[str], role: Role) -> None:
    async def main() -> None:
        async with serving(tokens=BOOK, ledger=Nothing()) as served:
            said = pb.Ruling(offsets=[0], by="ann@desk", discard="by mistake", token="forged")
            harmless, carrier = pb.Range(stream="s", run_id="r", body=STEP), pb.Range(stream="s", run_id="r")
            getattr(carrier, path[1]).CopyFrom(said)
            holder, text = HOLDERS[role]
            found = await call(served, method, text, **{path[0]: [harmless, carrier]})
            assert found is (grpc.StatusCode.OK if role in RULINGS else grpc.StatusCode.PERMISSION_DENIED)
            if role in RULINGS:
                assert [range_.ruling.token for range_ in served.ranges() if range_.HasField("ruling")] == [
                    f"{holder.id} admin admin of vision"
                ]
            else:
                assert served.stored == [], "nothing of a call that is refused is taken in"

    assert frozenset({Role.ADMIN}) == RULINGS
    asyncio.run(main())


def test_the_role_that_is_missing_is_named() -> None:
    async def main() -> None:
        async with serving(tokens=BOOK) as served:
            range_ = pb.Range(stream="s", run_id="r", ruling=pb.Ruling(offsets=[0]))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await served.push(range_, token=HOLDERS[Role.WRITER][1])
            said = str(refused.value.details())
            assert "role is writer" in said
            assert "a ruling on dead letters needs admin" in said
            assert "--project vision --role admin" in said

    asyncio.run(main())


def test_where_there_are_no_tokens_everybody_rules_and_nobody_signs_for_another() -> None:
    async def main() -> None:
        async with serving(tokens=TokenBook()) as served:
            range_ = pb.Range(stream="s", run_id="r", ruling=pb.Ruling(offsets=[0], by="ann", token="forged"))
            await served.push(range_)
            assert [(each.ruling.by, each.ruling.token) for each in served.ranges()] == [("ann", "")]
            assert (await served.stub.Preflight(pb.PreflightRequest(), timeout=20)).role == ""

    asyncio.run(main())


@pytest.mark.parametrize("role", list(Role))
def test_preflight_says_what_the_token_is_for(role: Role) -> None:
    async def main() -> None:
        async with serving(tokens=BOOK) as served:
            reply = await served.stub.Preflight(pb.PreflightRequest(), metadata=bearer(HOLDERS[role][1]), timeout=20)
            assert (reply.project, reply.role) == ("vision", role)

    asyncio.run(main())


@dataclass
class NoFacts:
    exists: bool = False
    state: str = ""
    attempt: int = 1


class Nothing:
    """A store without a run."""

    def stream_status(self, project: str, streams: object) -> list[Any]:
        return []

    def run_facts(self, project: str, run_id: str, launch_id: str) -> NoFacts:
        return NoFacts()


def test_tokens_come_and_go_while_the_gateway_serves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Open on loopback until the first token; a revocation acts within seconds; no log line has a token in it."""
    caplog.set_level(logging.DEBUG)
    token, text = new_token("vision", Role.WRITER)

    async def main() -> None:
        control = FileControl(tmp_path / "control.json")
        book, following = await follow_tokens(control)
        async with serving(tokens=book) as served:
            anyone, holder = pb.Range(stream="a", run_id="r", body=STEP), pb.Range(stream="b", run_id="r", body=STEP)

            async def push(range_: pb.Range, given: str) -> grpc.StatusCode:
                return await code_of(served.push(range_, token=given))

            assert await push(anyone, "") is grpc.StatusCode.OK
            await control.put(KEY + token.id, token.entry())
            await within(5, lambda: push(anyone, ""), grpc.StatusCode.UNAUTHENTICATED)
            assert await push(holder, text) is grpc.StatusCode.OK
            await control.put(KEY + token.id, revoked(token).entry())
            await within(5, lambda: push(holder, text), grpc.StatusCode.UNAUTHENTICATED)
            refused = served.gateway.metrics.registry.get_sample_value(
                "runtide_gateway_calls_total", {"method": "Push", "code": "UNAUTHENTICATED"}
            )
            assert refused
            assert {message.project for message in served.stored} == {"default", "vision"}
        following.cancel()
        await asyncio.wait([following])

    asyncio.run(main())
    assert text not in caplog.text
    assert text.rpartition("_")[2] not in (tmp_path / "control.json").read_text()


async def code_of(work: Awaitable[object]) -> grpc.StatusCode:
    try:
        await work
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def within(seconds: float, ask: Any, wanted: grpc.StatusCode) -> None:
    deadline = time.monotonic() + seconds
    while await ask() is not wanted:
        assert time.monotonic() < deadline, f"not {wanted.name} within {seconds} s"
        await asyncio.sleep(0.05)


# --- two projects with the same run, all the way to the store


@pytest.fixture
def store(embedded_clickhouse: EmbeddedClickHouse) -> ClickHouseSettings:
    server = embedded_clickhouse
    settings = ClickHouseSettings(server.host, server.port, "writer", server.password)
    client = connect(settings)
    migrate(client)
    client.close()
    return settings


@contextlib.asynccontextmanager
async def storing(store: ClickHouseSettings, book: TokenBook) -> AsyncIterator[pb_grpc.IngestStub]:
    bus = LocalBus()
    sink = Sink(bus.consumer, store, SinkSettings())
    gateway = Gateway(GatewaySettings(port=0, metrics_port=None), bus.publisher, LedgerReader(connect(store)), book)
    task = asyncio.create_task(sink.run())
    await gateway.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}")
    try:
        yield pb_grpc.IngestStub(channel)
    finally:
        await channel.close()
        await gateway.stop(2)
        sink.stop()
        await asyncio.wait([task], timeout=20)
        await bus.publisher.close()


def opened(launch: str, attempt: int) -> bytes:
    record = rec.Record(
        stream_opened=rec.StreamOpened(role="ROLE_RANK", run_id="same", launch_id=launch, attempt=attempt)
    )
    return framing.seal(record.SerializeToString())


def test_the_same_run_and_stream_in_two_projects_are_two(store: ClickHouseSettings) -> None:
    (vision, one), (speech, two) = new_token("vision", Role.WRITER), new_token("speech", Role.WRITER)
    step = framing.seal(rec.Record(step=rec.Step(step=1, key_set=1, values=[7.0])).SerializeToString())
    keys = rec.KeySet(id=1, names=["loss"])

    def range_(body: bytes, offset: int = 0) -> pb.Range:
        return pb.Range(stream="same-stream", run_id="same", offset=offset, attempt=1, body=body, key_sets=[keys])

    async def main() -> None:
        async with storing(store, TokenBook([vision, speech])) as stub:
            launch = opened("launch-one", 1)
            first = pb.PushRequest(ranges=[range_(launch), range_(step * 3, len(launch))])
            await stub.Push(first, metadata=bearer(one), timeout=30)

            # the other project knows nothing of run, stream, attempt and launch
            ask = pb.PreflightRequest(run_id="same", launch_id="launch-one")
            mine = await stub.Preflight(ask, metadata=bearer(one), timeout=20)
            other = await stub.Preflight(ask, metadata=bearer(two), timeout=20)
            assert (mine.project, mine.run_exists, mine.attempt) == ("vision", True, 1)
            assert (other.project, other.run_exists, other.run_state, other.attempt) == ("speech", False, "", 1)
            new = pb.PreflightRequest(run_id="same", launch_id="launch-two")
            assert (await stub.Preflight(new, metadata=bearer(one), timeout=20)).attempt == 2
            assert (await stub.Preflight(new, metadata=bearer(two), timeout=20)).attempt == 1
            status = pb.StatusRequest(streams=["same-stream"])
            assert (await stub.Status(status, metadata=bearer(one), timeout=20)).streams[0].stored == len(
                launch + step * 3
            )
            assert list((await stub.Status(status, metadata=bearer(two), timeout=20)).streams) == []

            # and what it pushes under the same names neither counts as a copy nor changes the first one
            theirs = opened("launch-other", 1)
            await stub.Push(
                pb.PushRequest(ranges=[range_(theirs), range_(step, len(theirs))]), metadata=bearer(two), timeout=30
            )
            stored = {}
            for token in (one, two):
                reply = await stub.Status(status, metadata=bearer(token), timeout=20)
                stored[token] = [(each.stored, each.holes) for each in reply.streams]
            assert stored == {one: [(len(launch + step * 3), 0)], two: [(len(theirs + step), 0)]}

    asyncio.run(main())
    client = clickhouse_connect.get_client(host=store.host, port=store.port, autogenerate_session_id=False)
    rows = client.query("SELECT project, count() FROM runtide.metrics WHERE run_id = 'same' GROUP BY 1 ORDER BY 1")
    assert list(rows.result_rows) == [("speech", 1), ("vision", 3)]
    client.close()
