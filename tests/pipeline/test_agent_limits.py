"""An agent that meets a limit of its project or run: it waits as long as it was told, and one run waits alone."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import grpc
import pytest
from runtide.agent import rejects
from runtide.agent.shipper import FIRST_PUSH_BYTES, LEAST_PUSH_BYTES
from runtide.agent.streams import TailedStream
from runtide.spool.layout import Position, runtime_folder
from runtide.testing.waiting import until
from runtide.v1 import ingest_pb2 as pb
from runtide.v1.records_pb2 import KeySet, Record
from runtide.wire import framing

from tests.pipeline.agent_scripted import (
    STEPS,
    Job,
    Scripted,
    acknowledged,
    agent,
    fails,
    living,
    serving,
    write_stream,
)


def position(job: Job) -> Position:
    return Position.read(job.writer.folder)


def puts_off(stream: str, seconds: float) -> object:
    """Put one stream off, and take the others."""

    def said(request: pb.PushRequest, context: object) -> pb.PushResponse:
        later = pb.Later(limit="project_open_runs", text="one run too many", retry_after_ms=int(seconds * 1000))
        put_off = pb.Ack(stream=stream, later=later)
        return pb.PushResponse(
            acks=[put_off if range_.stream == stream else acknowledged(range_) for range_ in request.ranges]
        )

    return said


def test_a_stream_that_is_put_off_waits_alone_and_loses_nothing(tmp_path: Path) -> None:
    with serving(Scripted()) as gateway, living() as process:
        waits, goes_on = (write_stream(tmp_path, process, gateway.url, rank) for rank in range(2))
        begun = time.monotonic()
        gateway.always = lambda request, context: puts_off(  # type: ignore[operator]
            waits.info.stream if time.monotonic() < begun + 1.0 else "", 1.5
        )(request, context)
        with agent(tmp_path):
            waits.log(100)
            until(lambda: position(waits).error == "one run too many")
            goes_on.log(100)
            until(lambda: position(goes_on).acknowledged == goes_on.writer.offset)
            assert position(waits).acknowledged == 0
            until(lambda: position(waits).acknowledged == waits.writer.offset)
            assert position(waits).error == ""
            assert list(gateway.records(waits.info.stream).values()) == list(waits.elements.values())
            tried = [at for at, push in gateway.pushes if any(r.stream == waits.info.stream for r in push.ranges)]
            assert tried[1] - tried[0] >= 1.5


def flush(root: Path, stream: str) -> None:
    """Ask the agent to ship at once, as a job does that is about to end."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(5)
        link.connect(str(runtime_folder(root) / "agent.sock"))
        link.sendall(json.dumps({"op": "flush", "stream": stream}).encode() + b"\n")
        assert json.loads(link.recv(4096))["ok"]


def test_somebody_who_waits_does_not_shorten_the_delay_that_the_gateway_asked_for(tmp_path: Path) -> None:
    with serving(Scripted()) as gateway, living() as process:
        gateway.script.append(fails(grpc.StatusCode.RESOURCE_EXHAUSTED, ("retry-after-ms", "1500")))
        job = write_stream(tmp_path, process, gateway.url)
        job.log(10)
        with agent(tmp_path):
            until(lambda: "RESOURCE_EXHAUSTED" in position(job).error)
            flush(tmp_path, job.info.stream)
            until(lambda: len(gateway.pushes) > 1)
        assert gateway.pushes[1][0] - gateway.pushes[0][0] >= 1.5


def test_an_agent_at_its_limit_sends_little_and_grows_again_when_it_may(tmp_path: Path) -> None:
    with serving(Scripted()) as gateway, living() as process:
        gateway.script.extend(fails(grpc.StatusCode.RESOURCE_EXHAUSTED, ("retry-after-ms", "20")) for _ in range(12))
        job = write_stream(tmp_path, process, gateway.url)
        job.log(200_000)
        with agent(tmp_path):
            until(lambda: position(job).acknowledged == job.writer.offset)
        refused = [sum(len(range_.body) for range_ in push.ranges) for _, push in gateway.pushes[:12]]
        taken = [sum(len(range_.body) for range_ in push.ranges) for _, push in gateway.pushes[12:]]
        assert refused[0] == pytest.approx(FIRST_PUSH_BYTES, rel=0.01)
        assert refused[-3:] == pytest.approx([LEAST_PUSH_BYTES] * 3, rel=0.01)
        assert taken[0] == pytest.approx(LEAST_PUSH_BYTES, rel=0.01)
        assert max(taken) > 1 << 20


def over_limit(body: bytes) -> int | None:
    """Where a record under key set 2 begins."""
    for element in framing.elements(body):
        if framing.key_set_of(body, element) == 2:
            return element.start
    return None


def refuses_key_set_2(request: pb.PushRequest, context: object) -> pb.PushResponse:
    def judged(range_: pb.Range) -> pb.Ack:
        at = over_limit(range_.body)
        if at is None:
            return acknowledged(range_)
        refusal = pb.Refusal(code="metric_names", field="key_sets.names", value="1", offset=range_.offset + at)
        return pb.Ack(stream=range_.stream, refusal=refusal)

    return pb.PushResponse(acks=[judged(range_) for range_ in request.ranges])


def test_names_over_the_limit_are_parked_and_declared_and_the_rest_goes_on(tmp_path: Path) -> None:
    with serving(Scripted(always=refuses_key_set_2)) as gateway, living() as process:
        job = write_stream(tmp_path, process, gateway.url)
        job.writer.append_record(Record(key_set=KeySet(id=2, names=["made", "up"])))
        over = framing.StepEncoder(2, 2)
        for step in range(300):  # turn by turn: the worst for whoever cuts ranges
            job.log(1)
            body = over.encode(step, step, [0.5, 1.5])
            assert job.writer.append_step(body, job.names)
        job.log(5000)
        with agent(tmp_path):
            until(lambda: position(job).acknowledged == job.writer.offset, 15)
        kept, lost = gateway.records(job.info.stream), gateway.gaps(job.info.stream)
        expected = {at: body for at, body in job.elements.items() if over_limit(body) is None}
        assert kept == expected
        assert {at for at, _, _ in lost} == set(job.elements) - set(expected)
        gaps = {range_.offset: range_.gap for range_ in gateway.ranges if range_.HasField("gap")}
        assert sum(gap.records for gap in gaps.values()) == 301
        assert sum(gap.points for gap in gaps.values()) == 600
        assert all("metric_names" in gap.detail for gap in gaps.values())
        parked = sum(path.stat().st_size for path in (job.writer.folder / "rejected").iterdir())
        assert parked == sum(gap.length for gap in gaps.values())


def test_no_more_refused_bytes_are_kept_than_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejects, "REJECTED_BYTES", 100)
    with living() as process:
        job = write_stream(tmp_path, process, "grpc://127.0.0.1:1")
        for _ in range(2):  # a second agent counts what the first one kept
            kept = rejects.Rejects(job.writer.folder, job.info.stream)
            for offset in range(5):
                assert kept.park(offset, bytes(40), "why").length == 40
            assert sum(path.stat().st_size for path in (job.writer.folder / "rejected").iterdir()) <= 100


def test_a_damaged_record_among_those_over_the_limit_is_left_to_the_gateway(tmp_path: Path) -> None:
    with living() as process:
        job = write_stream(tmp_path, process, "grpc://127.0.0.1:1")
        job.log(3)
        stream = TailedStream(job.writer.folder, job.info)
        stream._over = {1: "too many"}
        path = next(iter(job.writer.folder.glob("*.seg")))
        body = bytearray(path.read_bytes())
        body[-1] ^= 1
        path.write_bytes(body)
        opened, gap, damaged = (stream.take() for _ in range(3))
        assert opened is not None
        assert gap is not None
        assert damaged is not None
        assert (opened.gap, opened.records) == (None, 1)
        assert gap.gap is not None
        assert (gap.gap.records, gap.gap.points) == (3, 4), "the key set and two steps"
        assert (damaged.gap, damaged.records, len(damaged.body)) == (None, 1, len(STEPS.encode(0, 0, [0.0, 0.0])))
