"""The agent against a scripted gateway: everything arrives in order, whatever the gateway and the disk do."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from runtide.spool.layout import Position, host_folder
from runtide.testing.waiting import until
from runtide.v1 import ingest_pb2 as pb

from tests.pipeline.agent_scripted import (
    Scripted,
    agent,
    fails,
    living,
    serving,
    take,
    write_stream,
)


@pytest.fixture
def gateway() -> Iterator[Scripted]:
    with serving(Scripted()) as served:
        yield served


def test_everything_arrives_in_order_and_the_agent_cleans_up_and_ends(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process, agent(tmp_path) as served:
        job = write_stream(tmp_path, process, gateway.url, segment_bytes=20_000)
        job.log(2000)
        job.close()
        written = job.elements
        until(lambda: Position.read(job.writer.folder).acknowledged == job.writer.offset)
        job.end()
        assert served.wait(15) == 0
    assert gateway.records(job.info.stream) == written
    assert gateway.gaps(job.info.stream) == []
    ended = gateway.said_by_agents("stream_ended")
    assert [(each.stream_ended.stream, each.stream_ended.offset, each.stream_ended.closed) for each in ended] == [
        (job.info.stream, job.writer.offset, True)
    ]
    assert gateway.said_by_agents("stream_closed")
    assert [path for path in host_folder(tmp_path).iterdir() if path.is_dir()] == []


def test_the_token_and_the_identity_travel(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process, agent(tmp_path):
        job = write_stream(tmp_path, process, gateway.url, rank=7, token="secret")
        until(lambda: gateway.records(job.info.stream))
    range_ = next(range_ for range_ in gateway.ranges if range_.stream == job.info.stream)
    assert (range_.run_id, range_.rank, range_.attempt, range_.host, range_.project) == ("run-1", 7, 1, "host", "demo")
    assert set(gateway.tokens) == {"Bearer secret"}


def test_what_failed_comes_again(tmp_path: Path, gateway: Scripted) -> None:
    codes = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED)
    gateway.script.extend(fails(code) for code in codes)
    with living() as process, agent(tmp_path):
        job = write_stream(tmp_path, process, gateway.url)
        job.log(100)
        until(lambda: Position.read(job.writer.folder).acknowledged == job.writer.offset)
        assert gateway.records(job.info.stream) == job.elements
        until(lambda: Position.read(job.writer.folder).error == "")


def retry_info(seconds: float) -> bytes:
    delay = Duration()
    delay.FromMilliseconds(int(seconds * 1000))
    said = delay.SerializeToString()
    detail = Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\x0a" + bytes([len(said)]) + said)
    packed = detail.SerializeToString()
    return b"\x08\x08\x12\x04busy\x1a" + bytes([len(packed)]) + packed


@pytest.mark.parametrize(
    "metadata", [("retry-after-ms", "800"), ("grpc-status-details-bin", retry_info(0.8))], ids=["plain", "RetryInfo"]
)
def test_the_gateways_delay_is_honoured(tmp_path: Path, gateway: Scripted, metadata: tuple[str, str | bytes]) -> None:
    gateway.script.append(fails(grpc.StatusCode.RESOURCE_EXHAUSTED, metadata))
    with living() as process, agent(tmp_path):
        job = write_stream(tmp_path, process, gateway.url)
        job.log(10)
        until(lambda: Position.read(job.writer.folder).acknowledged == job.writer.offset)
    (first, _), (second, _) = gateway.pushes[:2]
    assert 0.8 <= second - first < 2.0


def test_a_gateway_that_is_away_is_named_and_gets_everything_when_it_comes(tmp_path: Path) -> None:
    with serving(Scripted()) as before:
        url = before.url
    with living() as process, agent(tmp_path):
        job = write_stream(tmp_path, process, url)
        job.log(50)
        until(lambda: Position.read(job.writer.folder).error == f"gateway at {url} unreachable", 3.0)
        job.log(50)
        with serving(Scripted(), int(url.rsplit(":", 1)[1])) as gateway:
            until(lambda: Position.read(job.writer.folder).acknowledged == job.writer.offset)
            assert gateway.records(job.info.stream) == job.elements
            until(lambda: Position.read(job.writer.folder).error == "")


def test_an_agent_that_is_killed_loses_nothing(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process:
        job = write_stream(tmp_path, process, gateway.url, segment_bytes=5_000)
        for _ in range(3):
            with agent(tmp_path):  # leaves with kill -9
                job.log(300)
                seen = len(gateway.ranges)
                until(lambda seen=seen: len(gateway.ranges) > seen)
        job.log(300)
        with agent(tmp_path):
            until(lambda: Position.read(job.writer.folder).acknowledged == job.writer.offset)
    records = gateway.records(job.info.stream)
    ends = {offset + len(element) for offset, element in records.items()}
    assert set(records) - ends == {0}  # one chain without a hole
    assert max(ends) == job.writer.offset
    assert gateway.gaps(job.info.stream) == []


def test_broken_folders_disturb_nobody(tmp_path: Path, gateway: Scripted) -> None:
    for name, text in {"a" * 32: "{", "b" * 32: "[]", "c" * 32: '{"stream": 1}', "d" * 32: None}.items():
        folder = host_folder(tmp_path) / name
        folder.mkdir(parents=True)
        if text is not None:
            (folder / "stream.json").write_text(text)
    with living() as process, agent(tmp_path):
        odd = write_stream(tmp_path, process, "http://not.a.gateway")
        job = write_stream(tmp_path, process, gateway.url)
        until(lambda: Position.read(job.writer.folder).acknowledged == job.writer.offset)
        until(lambda: "url is http://not.a.gateway" in Position.read(odd.writer.folder).error)


def test_sigterm_ends_the_agent_quickly_and_nothing_is_lost(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process, agent(tmp_path) as served:
        job = write_stream(tmp_path, process, gateway.url)
        until(lambda: Position.read(job.writer.folder).acknowledged)
        job.log(10)
        started = time.monotonic()
        os.kill(served.pid, signal.SIGTERM)
        assert served.wait(5) == 0
        assert time.monotonic() - started < 3
        assert job.writer.folder.exists()


def test_one_destination_that_is_away_holds_nobody_up(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process, agent(tmp_path):
        away = write_stream(tmp_path, process, "grpc://127.0.0.1:1")
        here = write_stream(tmp_path, process, gateway.url)
        here.log(10)
        until(lambda: Position.read(here.writer.folder).acknowledged == here.writer.offset)
        until(lambda: "unreachable" in Position.read(away.writer.folder).error)


def test_many_streams_travel_together(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process:
        jobs = [write_stream(tmp_path, process, gateway.url, rank) for rank in range(300)]
        for job in jobs:
            job.log(5)
        with agent(tmp_path):
            until(lambda: all(gateway.records(job.info.stream) == job.elements for job in jobs))
    assert max(len(push.ranges) for _, push in gateway.pushes) > 100
    assert len(gateway.pushes) < 30


@pytest.mark.fault(5)
def test_a_gateway_killed_in_the_middle_of_a_push_gets_it_again(tmp_path: Path) -> None:
    reached, over = threading.Event(), threading.Event()

    def hangs(request: pb.PushRequest, context: grpc.ServicerContext) -> pb.PushResponse:
        reached.set()
        over.wait(10)
        return take(request, context)

    with living() as process, agent(tmp_path):
        with serving(Scripted(always=hangs)) as first:
            job = write_stream(tmp_path, process, first.url)
            job.log(100)
            assert reached.wait(10)
            threading.Timer(0.2, over.set).start()
        with serving(Scripted(), int(first.url.rsplit(":", 1)[1])) as second:
            until(lambda: Position.read(job.writer.folder).acknowledged == job.writer.offset)
            assert second.records(job.info.stream) == job.elements


def test_a_token_that_is_not_known_is_said_and_nothing_is_given_up(tmp_path: Path, gateway: Scripted) -> None:
    gateway.always = fails(grpc.StatusCode.UNAUTHENTICATED)
    with living() as process:
        job = write_stream(tmp_path, process, gateway.url)
        with agent(tmp_path):
            until(lambda: "UNAUTHENTICATED: as scripted" in Position.read(job.writer.folder).error)
        assert len(gateway.pushes) == 1
        gateway.always = take
        with agent(tmp_path):
            until(lambda: Position.read(job.writer.folder).acknowledged == job.writer.offset)
    assert gateway.records(job.info.stream) == job.elements


def test_shipping_goes_on_where_the_agent_can_write_nothing(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process, agent(tmp_path, limits="ulimit -f 0") as served:
        job = write_stream(tmp_path, process, gateway.url)
        job.log(100)
        until(lambda: gateway.records(job.info.stream) == job.elements)
        job.log(100)
        until(lambda: gateway.records(job.info.stream) == job.elements)
        assert served.poll() is None


def test_tls_with_a_private_authority(tmp_path: Path, require: Callable[[object, str], None]) -> None:
    require(shutil.which("openssl"), "no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=here"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    root = tmp_path / "spool"
    with serving(Scripted(), 0, credentials) as gateway, living() as process, agent(root):
        job = write_stream(root, process, "")
        replace(job.info, url=gateway.url, ca_file=str(certificate)).write(job.writer.folder)
        stranger = write_stream(root, process, gateway.url)
        until(lambda: Position.read(job.writer.folder).acknowledged == job.writer.offset)
        assert gateway.records(job.info.stream) == job.elements
        until(lambda: "unreachable" in Position.read(stranger.writer.folder).error)


def test_one_stream_that_makes_no_message_stops_no_other(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process, agent(tmp_path) as served:
        bad = write_stream(tmp_path, process, gateway.url)
        replace(bad.info, rank=2**40).write(bad.writer.folder)
        bad.log(5)
        until(lambda: "stream.json" in Position.read(bad.writer.folder).error)
        job = write_stream(tmp_path, process, gateway.url, 1)
        job.log(50)
        until(lambda: Position.read(job.writer.folder).acknowledged == job.writer.offset)
        assert served.poll() is None


def test_bytes_that_only_look_like_a_step_stop_no_other_stream(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process, agent(tmp_path):
        bad = write_stream(tmp_path, process, gateway.url)
        with next(bad.writer.folder.glob("*.seg")).open("ab") as segment:
            odd = segment.write(b"\x0a\x05\x1a\xff\xff\xff\xff")
        until(lambda: Position.read(bad.writer.folder).acknowledged == bad.writer.offset + odd)
        job = write_stream(tmp_path, process, gateway.url, 1)
        job.log(50)
        until(lambda: Position.read(job.writer.folder).acknowledged == job.writer.offset)
