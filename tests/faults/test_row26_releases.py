"""Row 26 of docs/reliability.md: parts of other releases beside those of today.

There is one release so far, so the others are made: earlier ones from what is frozen of the wire, or by taking kinds of
records away from it, later ones by adding what today's code does not know.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from runtide.bus.kafka import KafkaConsumer, KafkaPublisher, KafkaSettings
from runtide.cli.letters import NO_RUN, Choice, find
from runtide.sink.arrived import read
from runtide.sink.sink import Sink
from runtide.sink.store import Store
from runtide.spool.layout import host_folder
from runtide.testing.embedded import EmbeddedClickHouse
from runtide.testing.mock_kafka import MockKafka
from runtide.testing.stack import Stack
from runtide.testing.streams import NOW_US, MadeStream
from runtide.testing.waiting import until, until_async
from runtide.v1 import ingest_pb2 as pb
from runtide.v1 import records_pb2 as v1
from runtide.warehouse.client import ClickHouseSettings, Client
from runtide.warehouse.dead_letters import letters_of, list_letters
from runtide.warehouse.rulings import Word, rule
from runtide.warehouse.verify import verify_run
from runtide.warehouse.writer import Writer
from runtide.wire.framing import STEP_FIELD, elements, field_number, seal

from tests.pipeline.agent_scripted import Scripted, serving

pytestmark = pytest.mark.fault(26)

RELEASES = sorted((Path(__file__).parents[1] / "golden").glob("v*"))
UNKNOWN = b"\xfa\x07\x05later"
"""Field 127, with a text."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One that is up, for all tests that have a run of their own."""
    made = Stack(tmp_path_factory.mktemp("releases") / "home")
    made.up("--no-dashboard")
    yield made
    made.end()


def push(stack: Stack, request: bytes) -> pb.PushResponse:
    """Hand over bytes as they are."""
    with grpc.insecure_channel(f"127.0.0.1:{stack.state.ports.gateway}") as channel:
        call = channel.unary_unary("/runtide.v1.Ingest/Push", response_deserializer=pb.PushResponse.FromString)
        reply: pb.PushResponse = call(request, timeout=60)
    assert [str(ack.refusal) for ack in reply.acks if ack.HasField("refusal")] == []
    return reply


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
def test_what_an_earlier_agent_pushes_is_stored(running: Stack, release: Path) -> None:
    frozen = (release / "push.bin").read_bytes()
    request = pb.PushRequest.FromString(frozen)
    push(running, frozen)
    code, found = running.verify("frozen")
    assert code == 0, found["problems"]
    assert (found["dead"], found["stored_points"]) == (0, 3)
    ends = {range_.stream: range_.offset + (range_.gap.length or len(range_.body)) for range_ in request.ranges}
    assert dict(running.sql("SELECT stream, stored_offset FROM streams WHERE run_id = 'frozen'")) == ends
    assert running.sql("SELECT count() FROM logs WHERE run_id = 'frozen'") == [(1,)]


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)
@pytest.mark.parametrize("says_more", [False, True], ids=["earlier", "later"])
def test_what_another_release_left_on_the_disk_is_shipped(
    running: Stack, tmp_path: Path, release: Path, says_more: bool
) -> None:
    root = shutil.copytree(release / "spool", tmp_path / "spool")
    (told,) = root.rglob("stream.json")
    run = f"left {release.name}"
    said = json.loads(told.read_text()) | {"run_id": run}
    if says_more:
        run = said["run_id"] = f"{run} by a later one"
        said["later"] = {"a": [1]}
        told.with_name("position.json").write_text('{"acknowledged": 0, "later": 1}')
        told.with_name("later.json").write_text("{}")
    told.write_text(json.dumps(said))
    synced = running.runtide("sync", str(root), "--url", f"grpc://127.0.0.1:{running.state.ports.gateway}")
    assert synced.returncode == 0, synced.stdout + synced.stderr
    code, found = running.verify(run)
    assert code == 0, found["problems"]
    assert (found["declared_points"], found["stored_points"]) == (30, 30)
    assert list(root.rglob("*.seg")) == []


def later(message: Message) -> Any:
    """The same with a field that today's code does not know."""
    return type(message).FromString(message.SerializeToString() + UNKNOWN)


def test_what_a_later_agent_pushes_is_stored_as_far_as_it_is_understood(running: Stack) -> None:
    made = MadeStream("5a", project="default", run_id="later").open().key_set(1, "loss")
    for step in range(50):
        said = v1.Step(key_set=1, step=step, time_us=NOW_US, values=[0.5])
        made.step(1, step, 0.5) if step % 2 else made.add(step=later(said))
        if step % 10 == 0:
            made.add_bytes(seal(UNKNOWN))  # a kind of record
    made.add(log_line=later(v1.LogLine(time_us=NOW_US, console=9, line="said elsewhere")))
    made.add(alert=later(v1.Alert(time_us=NOW_US, title="hot")))
    records, points = len(made.edges) - 1, made.points
    made.add(stream_closed=later(v1.StreamClosed(time_us=NOW_US, reason="9", records=records, points=points)))
    other = MadeStream("5b", project="default", run_id="later", role=9).open().close()  # type: ignore[arg-type]
    push(running, later(pb.PushRequest(ranges=[later(made.range()), later(other.range())])).SerializeToString())

    code, found = running.verify("later")
    assert code == 0, found["problems"]
    assert (found["dead"], found["stored_points"]) == (5, 50)
    assert running.sql("SELECT count(), uniqExact(step) FROM metrics WHERE run_id = 'later'") == [(50, 50)]
    assert running.sql("SELECT line FROM logs WHERE run_id = 'later'") == [("said elsewhere",)]
    assert running.sql(
        "SELECT JSONExtractString(json, 'title') FROM events WHERE run_id = 'later' AND kind = 'alert'"
    ) == [("hot",)]
    again = running.runtide("dead-letters", "replay", "later", "--json")
    assert {(row["fate"], row["reason"]) for row in json.loads(again.stdout)} == {
        ("refused", "its kind is not known to this release")
    }
    assert len(json.loads(running.runtide("dead-letters", "list", "later", "--json").stdout)) == 5
    assert running.verify("later") == (code, found)


class Earlier(Scripted):
    """A gateway from before Preflight and Status."""

    def Preflight(self, request: pb.PreflightRequest, context: Any) -> pb.PreflightResponse:  # noqa: N802
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        raise AssertionError

    def Status(self, request: pb.StatusRequest, context: Any) -> pb.StatusResponse:  # noqa: N802
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        raise AssertionError


class Later(Scripted):
    """A gateway whose answers say more than today's agent knows."""

    def Push(self, request: pb.PushRequest, context: grpc.ServicerContext) -> pb.PushResponse:  # noqa: N802
        reply = super().Push(request, context)
        said: pb.PushResponse = later(pb.PushResponse(acks=map(later, reply.acks)))
        return said

    def Preflight(self, request: pb.PreflightRequest, context: object) -> pb.PreflightResponse:  # noqa: N802
        said: pb.PreflightResponse = later(super().Preflight(request, context))
        said.limits["of a later release"] = 1
        return said

    def Status(self, request: pb.StatusRequest, context: object) -> pb.StatusResponse:  # noqa: N802
        said: pb.StatusResponse = later(super().Status(request, context))
        return said


JOB = """
import runtide
run = runtide.init("demo", run_id="run-1")
for step in range(200):
    run.log({"loss": 0.5})
print("stored", run.wait_stored(timeout=3))
run.finish()
"""


@pytest.mark.parametrize("gateway", [Earlier, Later])
def test_todays_job_and_agent_ship_everything_to_another_gateway(tmp_path: Path, gateway: type[Scripted]) -> None:
    with serving(gateway()) as served:
        told = {"RUNTIDE_DIR": str(tmp_path), "RUNTIDE_URL": served.url, "RUNTIDE_AGENT_LINGER_S": "0.3"}
        job = subprocess.run(
            [sys.executable, "-W", "error", "-c", JOB],
            env=os.environ | told,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert job.returncode == 0, job.stderr
        assert "Traceback" not in job.stderr
        until(lambda: left(tmp_path) == [], 20, "everything was acknowledged, and the agent cleaned up")
        (stream,) = {range_.stream for range_ in served.ranges if range_.role == v1.ROLE_RANK}
        kinds = [field_number(element, next(elements(element))) for element in served.records(stream).values()]
        assert kinds.count(STEP_FIELD) == 200
        assert served.gaps(stream) == []
        assert f"stored {gateway is Later}" in job.stdout


def left(root: Path) -> list[Path]:
    """Folders of streams."""
    return [path for path in host_folder(root).iterdir() if path.is_dir()]


def wire_without(*kinds: str) -> SimpleNamespace:
    """The messages of an earlier release that did not know these kinds of records."""
    contract = FileDescriptorSet.FromString((RELEASES[0] / "contract.binpb").read_bytes())
    (file,) = [file for file in contract.file if file.name.endswith("records.proto")]
    (record,) = [message for message in file.message_type if message.name == "Record"]
    kept = [field for field in record.field if field.name not in kinds]
    del record.field[:]
    record.field.extend(kept)
    pool = DescriptorPool()
    pool.Add(file)
    known = {
        each.name: GetMessageClass(pool.FindMessageTypeByName(f"runtide.v1.{each.name}")) for each in file.message_type
    }
    return SimpleNamespace(**known)


def test_what_an_earlier_sink_did_not_understand_a_later_one_stores(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {"alert", "kpi", "summary_set"}
    made = MadeStream("s", run_id="earlier").open().key_set(1, "loss").steps(1, range(10))
    made.add(alert=v1.Alert(time_us=NOW_US, title="hot")).add(kpi=v1.Kpi(time_us=NOW_US, name="revenue", value=1))
    made.steps(1, range(10, 20)).add(summary_set=v1.SummarySet(time_us=NOW_US)).close()
    with monkeypatch.context() as earlier:
        earlier.setattr("runtide.wire.decode.v1", wire_without(*kinds))
        Store(client, Writer(client)).flush([read(made.message(made.range()))])
    before = verify_run(client, "p", "earlier")
    assert (before.problems, before.dead, before.stored_points) == ([], 3, 20)
    letters = list_letters(client, "p", "earlier")
    assert {letter.reason for letter in letters} == {"its kind is not known to this release"}

    offsets = sorted(letter.offset for letter in letters)
    word = pb.Range(stream="s", run_id="earlier", offset=offsets[0], ruling=pb.Ruling(offsets=offsets, by="ann"))
    Store(client, Writer(client)).flush([read(made.message(word))])
    after = verify_run(client, "p", "earlier")
    assert (after.problems, after.dead, after.stored_records) == ([], 0, len(made.edges) - 1)
    stored = client.query("SELECT kind FROM runtide.events WHERE run_id = 'earlier'").result_rows
    assert kinds <= {kind for (kind,) in stored}


def test_what_a_later_gateway_writes_is_no_range_for_todays_sink(
    client: Client, embedded_clickhouse: EmbeddedClickHouse
) -> None:
    """A value of another schema may well parse as a Range, and mean something else."""
    server = embedded_clickhouse
    made = MadeStream("s", run_id="schema").open().key_set(1, "loss").steps(1, range(20)).close()
    other = MadeStream("s", run_id="schema-2").open().key_set(1, "loss").steps(1, range(20)).close()
    edges = made.edges
    messages = [
        made.message(made.range(0, edges[10])),
        replace(other.message(other.range()), schema="2"),
        made.message(made.range(edges[10])),
    ]

    async def run(kafka: MockKafka) -> None:
        settings = KafkaSettings(kafka.bootstrap, topic_prefix="schema", partitions=1)
        kafka.create_topic(settings.records_topic, 1)
        publisher, consumer = KafkaPublisher(settings), KafkaConsumer(settings)
        for message in messages:
            await publisher.publish(message)
        sink = Sink(consumer, ClickHouseSettings(server.host, server.port, "writer", server.password))
        running = asyncio.create_task(sink.run())
        await until_async(lambda: sink.stats.points >= 20, 60)
        sink.stop()
        await running
        await consumer.close()
        await publisher.close()

    with MockKafka() as kafka:
        asyncio.run(run(kafka))
    found = verify_run(client, "p", "schema")
    assert (found.problems, found.stored_points) == ([], 20)
    assert client.query("SELECT count() FROM runtide.points WHERE run_id = 'schema-2'").result_rows == [(0,)]
    choice = Choice(run=NO_RUN, project="p")
    (letter,) = find(client, choice)
    assert (letter.kind, letter.reason.split(",")[0]) == (
        "schema 2",
        "schema 2 of the message is not known to this release",
    )
    (kept,) = letters_of(client, "p", "", letter.stream, [0])
    assert kept.bytes == messages[1].value  # for a release that knows it
    pushed: list[pb.PushRequest] = []

    def push(request: pb.PushRequest) -> list[pb.Ack]:
        pushed.append(request)
        return []

    (outcome,) = rule(client, [letter], Word("a person"), push)
    assert pushed == []
    assert outcome.fate == "refused"
    assert "schema 2 of the message is not known" in outcome.reason
    assert find(client, choice) == [letter]
