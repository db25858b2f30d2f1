"""Parts of the agent alone: backoff, urls, delays, processes, sampling, refusals."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtide.agent.ends import measure_end
from runtide.agent.gateway import judge, parse_url, retry_info
from runtide.agent.parent import job_environment, signal_name
from runtide.agent.sample import Sampler
from runtide.agent.shipper import LAST_BACKOFF_S, LEAST_PUSH_BYTES, Backoff, PushSize
from runtide.agent.streams import End, Piece, TailedStream
from runtide.agent.watch import Ended, Processes
from runtide.spool.layout import Position, StreamInfo, segment_name, segments
from runtide.v1.ingest_pb2 import Refusal
from runtide.v1.records_pb2 import KeySet, LogLine, Record
from runtide.wire.errors import BadInput
from runtide.wire.framing import StepEncoder, elements, seal
from runtide.wire.limits import BATCH_BYTES, MIB, PUSH_BYTES, RECORD_BYTES


def test_the_first_retry_is_quick_and_none_waits_longer_than_the_bound() -> None:
    backoff = Backoff()
    delays = [backoff.next() for _ in range(50)]
    assert delays[0] <= 0.1
    assert max(delays) <= LAST_BACKOFF_S
    assert max(delays) > 5
    backoff.reset()
    assert backoff.next() <= 0.1


@given(st.floats(0, 100), st.integers(0, 30))
def test_no_retry_comes_before_the_delay_that_was_asked_for(asked: float, failures: int) -> None:
    backoff = Backoff()
    backoff.failures = failures
    assert asked <= backoff.next(asked) <= asked * 1.25


@given(st.lists(st.integers(2 * LEAST_PUSH_BYTES, 2 * PUSH_BYTES), min_size=1, max_size=4))
def test_whatever_the_room_is_less_travels_in_vain_than_arrives(rooms: list[int]) -> None:
    """Room for a Push changes every 30 MiB."""
    size = PushSize(soon_s=15)
    arrived = in_vain = 0
    while arrived < len(rooms) * 30 * MIB:
        tried = size.bytes
        if tried > rooms[arrived // (30 * MIB)]:
            in_vain += tried
            size.in_vain()
        else:
            arrived += tried
            size.passed(tried, took_s=0.1)
    assert in_vain < arrived


def test_a_push_that_takes_long_lets_none_grow_and_a_small_one_neither() -> None:
    size = PushSize(soon_s=15)
    first = size.bytes
    size.passed(first, took_s=16)
    size.passed(first // 3, took_s=0.1)
    assert size.bytes == first


@pytest.mark.parametrize(
    ("code", "asked", "in_vain"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ("retry-after-ms", "500"), True),
        (grpc.StatusCode.DEADLINE_EXCEEDED, None, True),
        (grpc.StatusCode.UNAVAILABLE, None, True),
        (grpc.StatusCode.UNAVAILABLE, ("retry-after-ms", "500"), False),
    ],
)
def test_what_the_gateway_is_still_storing_has_not_travelled_in_vain(
    code: grpc.StatusCode, asked: tuple[str, str] | None, in_vain: bool
) -> None:
    said = grpc.aio.Metadata(*([asked] if asked else []))
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), said)
    assert judge(error, "grpc://h").in_vain is in_vain


@pytest.mark.parametrize(
    ("url", "target", "secure"),
    [
        ("grpc://127.0.0.1:7171", "127.0.0.1:7171", False),
        ("grpcs://tide.example.org:443", "tide.example.org:443", True),
        ("grpc://host", "host:7171", False),
        ("grpc://[::1]:9", "[::1]:9", False),
    ],
)
def test_urls(url: str, target: str, secure: bool) -> None:
    assert parse_url(url) == (target, secure)


@pytest.mark.parametrize("url", ["", "http://x:1", "grpc://", "grpc://x:port", "grpc://[::1", "127.0.0.1:7171"])
def test_other_urls_are_named(url: str) -> None:
    with pytest.raises(BadInput, match="grpc://HOST:PORT"):
        parse_url(url)


@given(st.binary(max_size=60))
def test_any_bytes_may_stand_for_a_status(status: bytes) -> None:
    assert (delay := retry_info(status)) is None or delay >= 0


def test_processes_that_live_and_that_do_not() -> None:
    processes = Processes()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        started = psutil.Process(child.pid).create_time()
        assert processes.alive(child.pid, started)
        assert not processes.alive(child.pid, started - 100)
        child.kill()
        psutil.Process(child.pid).wait(5) if not sys.platform.startswith("linux") else os.waitid(
            os.P_PID, child.pid, os.WEXITED | os.WNOWAIT
        )
        assert not processes.alive(child.pid, started)  # a zombie
    assert not processes.alive(child.pid, started)


def test_a_word_about_another_process_with_the_same_pid_does_not_count(tmp_path: Path) -> None:
    Ended(42, 1000.0, 3, "").write(tmp_path)
    assert Ended.read(tmp_path, 42, 1000.2) == Ended(42, 1000.0, 3, "")
    assert Ended.read(tmp_path, 42, 2000.0) is None
    assert Ended.read(tmp_path, 43, 1000.0) is None
    (tmp_path / "ended" / "43.json").write_text("{}")
    assert Ended.read(tmp_path, 43, 1000.0) is None


def test_signals_have_names() -> None:
    assert signal_name(9) == "SIGKILL"
    assert signal_name(250) == "signal 250"


def test_a_job_gets_one_run_id_unless_it_has_one() -> None:
    made = job_environment({"A": "b"})
    assert made["A"] == "b"
    assert made["RUNTIDE_RUN_ID"]
    assert made["RUNTIDE_PARENT_PID"] == str(os.getpid())
    assert job_environment({"RUNTIDE_RUN_ID": "mine"})["RUNTIDE_RUN_ID"] == "mine"


def test_the_sampler_reads_the_host_and_a_process_tree() -> None:
    sampler = Sampler()
    first = sampler.read([os.getpid(), 2**22 + 1])
    host = {(each.device, each.name): each.value for each in first.host}
    assert 0 < host["", "memory_percent"] <= 100
    assert [each.name for each in first.trees[os.getpid()]] == ["rss_bytes"], "of no interval there is no load"
    sum(range(2_000_000))
    again = {each.name: each.value for each in sampler.read([os.getpid()]).trees[os.getpid()]}
    assert again["cpu_percent"] > 0
    assert again["rss_bytes"] > 1_000_000
    sampler.close()


STEP = StepEncoder(1, 1).encode(1, 2, [3.0])


def stream(folder: Path, body: bytes) -> TailedStream:
    (folder / segment_name(0)).write_bytes(body)
    return TailedStream(folder, StreamInfo("s", "p", "r", 0, 1, "h", 1, 1, 1.0, "grpc://x"))


def take(tailed: TailedStream) -> Piece:
    piece = tailed.take()
    assert piece is not None
    return piece


def test_refusals_of_the_whole_identity_park_the_whole_range(tmp_path: Path) -> None:
    tailed = stream(tmp_path, STEP * 10)
    piece = take(tailed)
    tailed.refuse(piece, Refusal(code="identity", field="run_id", offset=piece.offset), 0.0)
    tailed.settle()
    gap = take(tailed).gap
    assert gap is not None
    assert (gap.records, gap.length) == (10, 10 * len(STEP))


@given(bad=st.sets(st.integers(0, 39), max_size=6), named=st.booleans())
def test_refused_records_are_found_and_no_other_is_lost(
    tmp_path_factory: pytest.TempPathFactory, bad: set[int], named: bool
) -> None:
    tmp_path = tmp_path_factory.mktemp("stream")
    size = len(STEP)
    tailed = stream(tmp_path, STEP * 40)
    arrived: list[int] = []
    for _ in range(400):
        pieces = [piece for piece in (tailed.take(9 * size), tailed.take(9 * size)) if piece is not None]
        if not pieces:
            break
        for piece in pieces:
            held = [(piece.offset + e.start) // size for e in elements(piece.body)]
            worst = next((each for each in held if each in bad), None)
            if worst is None:
                arrived += held
                tailed.acknowledge(piece, piece.end, 0.0)
            else:
                code = "record_too_large" if named else "odd"
                tailed.refuse(piece, Refusal(code=code, offset=worst * size), 0.0)
        tailed.settle()
    assert tailed.acknowledged == 40 * size
    assert set(arrived) == set(range(40)) - bad
    assert tailed.position.gap_records == len(bad)


def test_a_record_beyond_the_limit_is_never_sent(tmp_path: Path) -> None:
    large = seal(Record(log_line=LogLine(line="x" * RECORD_BYTES)).SerializeToString())
    tailed = stream(tmp_path, STEP + large + STEP)
    sent: list[Piece] = []
    while tailed.acknowledged < len(large) + 2 * len(STEP):
        if (piece := tailed.take()) is not None:
            sent.append(piece)
            tailed.acknowledge(piece, piece.end, 0.0)
        tailed.settle()
    assert [piece.gap.length if piece.gap else piece.records for piece in sent] == [1, len(large), 1]


def test_names_and_body_together_fit(tmp_path: Path) -> None:
    names = [f"{number:04d}" + "n" * 200 for number in range(1000)]
    key_set = seal(Record(key_set=KeySet(id=1, names=names)).SerializeToString())
    step = StepEncoder(1, len(names)).encode(1, 2, [0.5] * len(names))
    tailed = stream(tmp_path, key_set + step * 400)
    while (piece := tailed.take()) is not None:
        assert len(piece.body) + piece.beside <= BATCH_BYTES + 1024
        tailed.acknowledge(piece, piece.end, 0.0)
        tailed.settle()
    assert tailed.acknowledged == len(key_set) + 400 * len(step)


def test_segments_go_only_after_position_says_that_they_arrived(tmp_path: Path) -> None:
    body = STEP * (5_000_000 // len(STEP))
    (tmp_path / segment_name(len(body))).write_bytes(STEP)
    tailed = stream(tmp_path, body)
    while (piece := tailed.take()) is not None:
        tailed.acknowledge(piece, piece.end, 0.0)
    assert len(segments(tmp_path)) == 2
    tailed.save(1.0, 0.0)
    assert Position.read(tmp_path).acknowledged == len(body) + len(STEP)
    assert [first for first, _ in segments(tmp_path)] == [len(body)]


def test_where_a_dead_stream_ends(tmp_path: Path) -> None:
    stream(tmp_path, STEP * 3 + STEP[:-2])
    assert measure_end(tmp_path, 0) == (3 * len(STEP), False)


def test_the_note_of_an_end_is_read_back(tmp_path: Path) -> None:
    assert End.read(tmp_path) is None
    End(7, closed=True, reported=False).write(tmp_path)
    assert End.read(tmp_path) == End(7, closed=True, reported=False)


def test_an_agent_takes_note_of_what_another_one_has_shipped(tmp_path: Path) -> None:
    info = StreamInfo("s", "", "r", 0, 1, "h", 1, 1, 1.0, "")
    body = [seal(Record(log_line=LogLine(line=text)).SerializeToString()) for text in ("a", "b")]
    (tmp_path / segment_name(0)).write_bytes(body[0])
    (tmp_path / segment_name(len(body[0]))).write_bytes(body[1])
    stream = TailedStream(tmp_path, info)
    assert stream.reader.unread() > 0
    (tmp_path / segment_name(0)).unlink()
    Position(acknowledged=len(body[0])).write(tmp_path)
    assert stream.take() is None  # no gap: nothing is lost
    piece = stream.take()
    assert piece is not None
    assert (piece.offset, piece.body, stream.position.gap_records) == (len(body[0]), body[1], 0)


def test_the_load_of_the_host_is_right_in_every_thread() -> None:
    sampler = Sampler()

    def said() -> list[float]:
        return [each.value for each in sampler.read([]).host if each.name == "cpu_percent"]

    for _ in range(3):
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            pass
        with ThreadPoolExecutor(1) as fresh:
            assert fresh.submit(said).result()[0] > 100 / (os.cpu_count() or 1) / 3
    assert said() == []  # a late round and the next one in its time
