"""The agent's life, what it says of processes and machines, its socket, `runtide run` and `runtide sync`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from runtide.agent.parent import main as run_main
from runtide.agent.sync import Progress, Synced, sync
from runtide.agent.sync import main as sync_main
from runtide.agent.watch import Ended
from runtide.spool.layout import Position, StreamInfo, host_folder, runtime_folder
from runtide.testing.pem import make_authority
from runtide.testing.waiting import until
from runtide.v1 import ingest_pb2 as pb

from tests.pipeline.agent_scripted import Job, Scripted, agent, fails, living, serving, take, write_stream


@pytest.fixture
def gateway() -> Iterator[Scripted]:
    with serving(Scripted()) as served:
        yield served


def ends(gateway: Scripted) -> list[dict[str, Any]]:
    found = [record.stream_ended for record in gateway.said_by_agents("stream_ended")]
    return [
        {
            "stream": each.stream,
            "offset": each.offset,
            "closed": each.closed,
            "code": each.exit_code if each.HasField("exit_code") else None,
            "signal": each.signal,
        }
        for each in found
    ]


def test_a_killed_process_is_noticed_within_two_seconds(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process, agent(tmp_path):
        job = write_stream(tmp_path, process, gateway.url)
        job.log(10)
        until(lambda: gateway.said_by_agents("heartbeat"))
        job.end()  # its parent has not waited for it: a zombie counts as dead
        until(lambda: ends(gateway), 2.0)
    assert ends(gateway) == [
        {"stream": job.info.stream, "offset": job.writer.offset, "closed": False, "code": None, "signal": ""}
    ]


def test_the_end_is_told_though_all_was_still_on_its_way_when_it_was_noticed(tmp_path: Path) -> None:
    def slowly(request: pb.PushRequest, context: grpc.ServicerContext) -> pb.PushResponse:
        time.sleep(0.8)
        return take(request, context)

    with serving(Scripted(always=slowly)) as gateway, living() as process:
        job = write_stream(tmp_path / "aside", process, gateway.url)
        job.log(10)
        job.end()
        with agent(tmp_path, RUNTIDE_AGENT_LINGER_S="2") as served:
            until(lambda: reachable(tmp_path))
            job.writer.folder.rename(host_folder(tmp_path) / job.info.stream)
            assert served.wait(15) == 0
        assert [each["offset"] for each in ends(gateway)] == [job.writer.offset]


def test_an_agent_that_is_stopped_still_tells_the_ends_that_it_knows_of(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process, agent(tmp_path) as served:
        job = write_stream(tmp_path, process, gateway.url)
        info = replace(job.info, parent_reports=True)
        info.write(job.writer.folder)
        until(lambda: gateway.said_by_agents("heartbeat"))
        job.end()
        process.wait()
        time.sleep(0.3)
        served.terminate()
        time.sleep(0.3)
        Ended(info.pid, info.started, 3, "").write(host_folder(tmp_path))
        assert served.wait(10) == 0
    assert [each["code"] for each in ends(gateway)] == [3]


def test_a_torn_tail_is_cut_and_not_part_of_the_end(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process, agent(tmp_path) as served:
        job = write_stream(tmp_path, process, gateway.url)
        job.log(10)
        with next(job.writer.folder.glob("*.seg")).open("ab") as segment:
            segment.write(b"\x0a\x60half a record")
        job.end()
        assert served.wait(15) == 0
    assert [each["offset"] for each in ends(gateway)] == [job.writer.offset]
    assert gateway.gaps(job.info.stream) == []
    assert not job.writer.folder.exists()


def test_a_pid_that_another_process_has_now_counts_as_dead(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process:
        job = write_stream(tmp_path, process, gateway.url)
        told = json.loads((job.writer.folder / "stream.json").read_text())
        (job.writer.folder / "stream.json").write_text(json.dumps(told | {"started": told["started"] - 1000}))
        with agent(tmp_path):
            until(lambda: ends(gateway))


def test_of_eight_agents_started_at_once_one_serves(tmp_path: Path, gateway: Scripted) -> None:
    host_folder(tmp_path).mkdir(parents=True)
    command = [sys.executable, "-m", "runtide.agent", "--root", str(tmp_path)]
    with living() as process:
        job = write_stream(tmp_path, process, gateway.url)
        agents = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(8)]
        try:
            until(lambda: sum(each.poll() is None for each in agents) == 1)
            assert sorted(each.poll() or 0 for each in agents) == [0] * 8
            until(lambda: Position.read(job.writer.folder).acknowledged == job.writer.offset)
        finally:
            for each in agents:
                each.kill()
                each.wait()


def test_samples_and_heartbeats_arrive(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process, agent(tmp_path, RUNTIDE_SAMPLE_SECONDS="0.5"):
        job = write_stream(tmp_path, process, gateway.url, rank=3)
        until(lambda: sum(record.sample.rank == 3 for record in gateway.said_by_agents("sample")) >= 2)
        heartbeat = until(lambda: gateway.said_by_agents("heartbeat"))[0].heartbeat
    assert list(heartbeat.streams) == [job.info.stream]
    samples = [record.sample for record in gateway.said_by_agents("sample")]
    host = {(each.device, each.name) for sample in samples if sample.rank == -1 for each in sample.readings}
    trees = [each for sample in samples if sample.rank == 3 for each in sample.readings]
    tree = {(each.device, each.name): each.value for each in trees}
    assert {("", "cpu_percent"), ("", "memory_bytes"), ("net", "sent_bytes_per_second")} <= host
    assert tree["process", "rss_bytes"] > 1_000_000
    assert ("process", "cpu_percent") in tree
    assert all(sample.time_us % 500_000 == 0 for sample in samples)


def test_a_stream_without_destination_waits_for_one(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process:
        job = write_stream(tmp_path, process, "")
        job.log(20)
        job.close()
        written = job.elements
        with agent(tmp_path) as served:
            assert served.wait(15) == 0
        assert gateway.ranges == []
    seen: list[Progress] = []
    assert sync(tmp_path).homeless == 1
    assert sync(tmp_path, gateway.url, "secret", seen.append) == Synced(1, job.writer.offset, 0, 0)
    assert gateway.records(job.info.stream) == written
    assert "Bearer secret" in gateway.tokens
    assert seen[-1].shipped == seen[-1].bytes == job.writer.offset
    assert not job.writer.folder.exists()


def test_sync_serves_the_folders_of_other_hosts_too(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process:
        job = write_stream(tmp_path, process, gateway.url)
        job.log(20)
        written = job.elements
    host_folder(tmp_path).rename(tmp_path / "other-host-0")
    assert sync(tmp_path).bytes == job.writer.offset
    assert gateway.records(job.info.stream) == written
    assert gateway.said_by_agents("stream_ended") == []  # nothing is known here of that host's processes


def test_sync_leaves_the_stream_of_a_job_elsewhere_that_is_only_quiet(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process:
        job = write_stream(tmp_path, process, gateway.url)
    host_folder(tmp_path).rename(other := tmp_path / "other-host-0")
    job.writer.folder = other / job.info.stream
    for count in (20, 30):
        job.log(count)
        for file in job.writer.folder.iterdir():
            os.utime(file, (1e9, 1e9))  # as if nothing had been logged for long
        sync(tmp_path)
        assert gateway.records(job.info.stream) == job.elements
    job.close()
    written = job.elements
    sync(tmp_path)
    assert gateway.records(job.info.stream) == written
    assert not job.writer.folder.exists()


def test_sync_beside_an_agent_looks_on(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process, agent(tmp_path):
        job = write_stream(tmp_path, process, "")
        job.log(20)
        live = write_stream(tmp_path, process, gateway.url, 1)
        until(lambda: Position.read(live.writer.folder).acknowledged == live.writer.offset)
        sync(tmp_path, gateway.url)
        assert Position.read(job.writer.folder).acknowledged == job.writer.offset
        assert gateway.records(job.info.stream) == job.elements


@pytest.mark.parametrize("beside", [False, True])
def test_sync_ends_though_a_job_goes_on_logging(tmp_path: Path, gateway: Scripted, beside: bool) -> None:
    with living() as process, agent(tmp_path) if beside else nullcontext():
        job = write_stream(tmp_path, process, gateway.url)
        job.log(10)
        over = threading.Event()

        def go_on() -> None:
            while not over.wait(0.001):
                job.log(3)

        logging = threading.Thread(target=go_on)
        logging.start()
        if beside:
            until(lambda: reachable(tmp_path))
        code = "import sys; from runtide.agent.sync import main; sys.exit(main(sys.argv[1:]))"
        syncing = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
        try:
            assert syncing.wait(15) == 0
        finally:
            over.set()
            logging.join()
            syncing.kill()
            syncing.wait()


def test_an_address_that_is_away_holds_up_no_other_stream(
    tmp_path: Path, gateway: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    with living() as process:
        away = write_stream(tmp_path, process, "grpc://127.0.0.1:1")
        job = write_stream(tmp_path, process, gateway.url, 1)
        job.close()
        away.log(5)
        written = job.elements
    done = sync(tmp_path, give_up_s=1.0)
    assert gateway.records(job.info.stream) == written
    assert (done.streams, [stream for stream, _ in done.waiting]) == (1, [away.info.stream])
    assert sync_main([str(tmp_path), "--discard", away.info.stream]) == 0
    assert not away.writer.folder.exists()
    assert sync_main([str(tmp_path), "--discard", away.info.stream]) == 2
    assert "there is none of this name" in capsys.readouterr().err


def test_a_stream_whose_process_goes_on_is_not_given_up(tmp_path: Path) -> None:
    with living() as process:
        job = write_stream(tmp_path, process, "grpc://127.0.0.1:1")
        assert sync_main([str(tmp_path), "--discard", job.info.stream]) == 2
        assert job.writer.folder.exists()


def test_an_agent_ends_when_what_it_waits_for_is_given_up(tmp_path: Path) -> None:
    with living() as process, agent(tmp_path) as served:
        job = write_stream(tmp_path, process, "grpc://127.0.0.1:1")
        until(lambda: Position.read(job.writer.folder).error)
        job.end()
        until(lambda: (job.writer.folder / "end.json").exists())
        assert sync_main([str(tmp_path), "--discard", job.info.stream]) == 0
        assert served.wait(10) == 0
    assert list(host_folder(tmp_path).glob("*/stream.json")) == []


@pytest.mark.parametrize("beside", [False, True])
def test_an_explicit_url_sends_what_was_logged_for_another_address(
    tmp_path: Path, gateway: Scripted, beside: bool
) -> None:
    with living() as process, agent(tmp_path) if beside else nullcontext():
        job = write_stream(tmp_path, process, "grpc://127.0.0.1:1", token="mine")
        job.log(20)
        if beside:
            until(lambda: Position.read(job.writer.folder).error)
        else:
            job.close()
            job.end()
            process.wait()
        written = job.elements
        assert sync(tmp_path, gateway.url).waiting == ()
        assert gateway.records(job.info.stream) == written
        assert "Bearer mine" in gateway.tokens


@pytest.mark.parametrize("beside", [False, True])
def test_a_new_token_for_the_same_address_takes_the_place_of_one_that_is_good_no_more(
    tmp_path: Path, gateway: Scripted, beside: bool
) -> None:
    def only_new(request: pb.PushRequest, context: grpc.ServicerContext) -> pb.PushResponse:
        good = ("authorization", "Bearer new") in [tuple(pair) for pair in context.invocation_metadata()]
        return (take if good else fails(grpc.StatusCode.UNAUTHENTICATED))(request, context)

    gateway.always = only_new
    with living() as process, agent(tmp_path) if beside else nullcontext():
        job = write_stream(tmp_path, process, gateway.url, token="old")
        job.log(20)
        if beside:
            until(lambda: Position.read(job.writer.folder).error)
        else:
            job.close()
            job.end()
            process.wait()
        written = job.elements
        assert sync(tmp_path, gateway.url, "new", give_up_s=5).waiting == ()
        assert gateway.records(job.info.stream) == written


def test_an_address_with_tls_takes_its_files_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = make_authority(tmp_path / "pem")
    key, chain, ca = (Path(file).read_bytes() for file in (ours.server_key, ours.server, ours.ca))
    credentials = grpc.ssl_server_credentials([(key, chain)], ca, require_client_auth=True)
    root = tmp_path / "spool"
    with serving(Scripted(), credentials=credentials) as secure:
        with living() as process:
            job = write_stream(root, process, "grpc://127.0.0.1:1", token="mine")
            job.log(20)
            job.close()
        written = job.elements
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("RUNTIDE_CA_FILE", "pem/ca.pem")
        monkeypatch.setenv("RUNTIDE_CERT_FILE", ours.client)
        assert sync_main([str(root), "--url", secure.url]) == 2
        assert "set RUNTIDE_KEY_FILE" in capsys.readouterr().err
        monkeypatch.setenv("RUNTIDE_KEY_FILE", ours.client_key)
        assert sync_main([str(root), "--url", secure.url]) == 0, capsys.readouterr().err
        assert secure.records(job.info.stream) == written
        assert "Bearer mine" in secure.tokens


def test_a_job_whose_gateway_answers_is_not_sent_elsewhere(tmp_path: Path, gateway: Scripted) -> None:
    with serving(Scripted()) as other, living() as process, agent(tmp_path):
        job = write_stream(tmp_path, process, gateway.url)
        until(lambda: Position.read(job.writer.folder).acknowledged == job.writer.offset)
        job.log(1000)
        sync(tmp_path, other.url)
        assert StreamInfo.read(job.writer.folder).url == gateway.url
        assert other.records(job.info.stream) == {}


def test_sync_beside_an_agent_ships_the_leftovers_of_other_hosts(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process:
        job = write_stream(tmp_path, process, gateway.url)
        host_folder(tmp_path).rename(tmp_path / "other-host-0")
        job.writer.folder = tmp_path / "other-host-0" / job.info.stream
        job.log(20)
        with agent(tmp_path, RUNTIDE_AGENT_LINGER_S="2") as served:
            until(lambda: reachable(tmp_path))
            assert sync(tmp_path).waiting == ()
            assert gateway.records(job.info.stream) == job.elements
            assert served.wait(15) == 0  # a stream of another host that is at rest does not keep it


@pytest.mark.parametrize("made", [None, "hooks/x.txt"])
def test_a_folder_that_is_no_spool_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], made: str | None
) -> None:
    root = tmp_path / "wrong"
    if made:
        (root / made).parent.mkdir(parents=True)
        (root / made).touch()
    before = sorted(tmp_path.rglob("*"))
    assert sync_main([str(root)]) == 2
    assert "no spool is there" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_sync_gives_up_where_no_gateway_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with living() as process:
        write_stream(tmp_path, process, "grpc://127.0.0.1:1")
        assert "unreachable" in sync(tmp_path, give_up_s=0.5).waiting[0][1]
    assert sync_main([str(tmp_path), "--url", "http://x"]) == 2
    assert "grpc://HOST:PORT" in capsys.readouterr().err


def ask(root: Path, *requests: object) -> list[dict[str, Any]]:
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(5)
        link.connect(str(runtime_folder(root) / "agent.sock"))
        with link.makefile("rw") as lines:
            found = []
            for request in requests:
                lines.write((request if isinstance(request, str) else json.dumps(request)) + "\n")
                lines.flush()
                found.append(json.loads(lines.readline()))
            return found


def reachable(root: Path) -> bool:
    try:
        return bool(ask(root, {"op": "ping"}))
    except OSError:
        return False


def test_the_socket_answers(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process, agent(tmp_path) as served:
        job = write_stream(tmp_path, process, gateway.url)
        until(lambda: reachable(tmp_path))
        ping, preflight, away, flush, unknown, odd, worse = ask(
            tmp_path,
            {"op": "ping"},
            {"op": "preflight", "project": "p", "run_id": "r", "launch_id": "l", "url": gateway.url, "token": ""},
            {"op": "preflight", "project": "p", "run_id": "r", "url": "grpc://127.0.0.1:1"},
            {"op": "flush", "stream": job.info.stream},
            {"op": "flush", "stream": "nobody"},
            "not json",
            {"op": "dance"},
        )
        assert ping["ok"]
        assert ping["pid"] == served.pid
        assert (preflight["reachable"], preflight["project"], preflight["attempt"]) == (True, "theirs", 3)
        assert (preflight["run_exists"], preflight["run_state"], preflight["error"]) == (True, "running", "")
        assert not away["reachable"]
        assert "unreachable" in away["error"]
        assert flush["ok"]
        assert not any(each["ok"] for each in (unknown, odd, worse))


def test_stored_is_kept_fresh_for_who_asks(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process, agent(tmp_path):
        job = write_stream(tmp_path, process, gateway.url)
        job.log(5)
        until(lambda: Position.read(job.writer.folder).acknowledged == job.writer.offset)
        assert Position.read(job.writer.folder).stored == 0
        assert ask(tmp_path, {"op": "want_stored", "stream": job.info.stream})[0]["ok"]
        until(lambda: Position.read(job.writer.folder).stored == job.writer.offset, 3.0)


JOB = """
import os, signal, sys, psutil
from pathlib import Path
from runtide.spool.layout import StreamInfo, default_root, host_folder
from runtide.spool.writer import SpoolWriter, new_stream_id
from runtide.v1.records_pb2 import ROLE_RANK, Record, StreamOpened
assert os.environ["RUNTIDE_PARENT_PID"] == str(os.getppid())
run, pid = os.environ["RUNTIDE_RUN_ID"], os.getpid()
info = StreamInfo(new_stream_id(), "demo", run, 0, 1, "host", ROLE_RANK, pid,
                  psutil.Process().create_time(), sys.argv[1], parent_reports=True)
writer = SpoolWriter.create(host_folder(default_root()), info)
writer.append_record(Record(stream_opened=StreamOpened(run_id=run)))
exec(sys.argv[2])
"""


@pytest.mark.parametrize(
    ("last_act", "code", "said"),
    [
        ("sys.exit(3)", 3, {"code": 3, "signal": ""}),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, {"code": None, "signal": "SIGKILL"}),
    ],
)
def test_run_knows_how_its_job_ended(
    tmp_path: Path, gateway: Scripted, monkeypatch: pytest.MonkeyPatch, last_act: str, code: int, said: dict[str, Any]
) -> None:
    monkeypatch.setenv("RUNTIDE_DIR", str(tmp_path))
    monkeypatch.delenv("RUNTIDE_RUN_ID", raising=False)
    with living() as process, agent(tmp_path, RUNTIDE_AGENT_LINGER_S="30"):
        write_stream(tmp_path, process, gateway.url)
        assert run_main(["--", sys.executable, "-c", JOB, gateway.url, last_act]) == code
        found = until(lambda: ends(gateway))[0]
    assert found | said == found


def test_run_says_that_a_command_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_main(["--", "/no/such/command"]) == 127
    assert "command not found" in capfd.readouterr().err


def test_run_passes_signals_on(tmp_path: Path) -> None:
    code = "import signal as s, time; s.signal(s.SIGTERM, lambda *_: exit(5)); print('up', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", "import sys; from runtide.agent.parent import main; sys.exit(main(sys.argv[1:]))"]
    env = os.environ | {"RUNTIDE_DIR": str(tmp_path)}
    with subprocess.Popen([*command, "--", sys.executable, "-c", code], env=env, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        parent.terminate()
        assert parent.wait(10) == 5


def test_the_agent_writes_nothing_but_its_log(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process:
        job: Job = write_stream(tmp_path, process, gateway.url)
        job.close()
    command = [sys.executable, "-m", "runtide.agent", "--root", str(tmp_path)]
    log = host_folder(tmp_path) / "agent.log"
    with log.open("ab") as target:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=target, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    assert "ends" in log.read_text()


def test_an_agent_whose_folder_is_taken_away_ends(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    with living() as process, agent(root) as served:
        write_stream(root, process, "grpc://127.0.0.1:1")
        until(lambda: reachable(root))
        root.rename(tmp_path / "elsewhere")
        assert served.wait(10) == 0


def test_stream_info_survives_what_sync_does(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process:
        job = write_stream(tmp_path, process, "", token="mine")
        assert sync(tmp_path, "grpc://127.0.0.1:1", "other", give_up_s=0.3).waiting
        assert StreamInfo.read(job.writer.folder).token == "mine"
        assert StreamInfo.read(job.writer.folder).url == "grpc://127.0.0.1:1"


KEPT = """
import sys, time, runtide
run = runtide.init("p", url=sys.argv[1], capture_console=False)
for step in range(10**6):
    run.log({"x": step})
    time.sleep(0.05)
"""


def test_a_job_whose_agent_is_killed_gets_another_and_its_values_go_on(tmp_path: Path, gateway: Scripted) -> None:
    env = os.environ | {"RUNTIDE_DIR": str(tmp_path), "RUNTIDE_AGENT_LINGER_S": "0.3", "RUNTIDE_SAMPLE_SECONDS": "0"}
    with subprocess.Popen([sys.executable, "-c", KEPT, gateway.url], env=env) as job:
        try:
            until(lambda: gateway.ranges)
            killed = ask(tmp_path, {"op": "ping"})[0]["pid"]
            os.kill(killed, signal.SIGKILL)
            time.sleep(0.5)  # what it had sent has come
            before = len(gateway.ranges)
            until(lambda: len(gateway.ranges) > before + 2, 8.0)
            serving_now = ask(tmp_path, {"op": "ping"})[0]["pid"]
            assert serving_now != killed
        finally:
            job.kill()
            job.wait()
        until(lambda: not psutil.pid_exists(serving_now))
        assert ends(gateway)


def test_nothing_of_an_agent_stays_in_the_runtime_folder(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process, agent(tmp_path) as served:
        job = write_stream(tmp_path, process, gateway.url)
        until(lambda: reachable(tmp_path))
        assert (runtime_folder(tmp_path) / "agent.lock").exists()
        job.close()
        job.end()
        assert served.wait(15) == 0
    assert not runtime_folder(tmp_path).exists()


def test_old_ends_are_forgotten_when_all_has_arrived(tmp_path: Path, gateway: Scripted) -> None:
    host = host_folder(tmp_path)
    Ended(1, 1.0, 0, "").write(host)
    (host / "ended-old").touch()  # of a run, by its job: not the agent's
    for old in (host / "ended-old", host / "ended" / "1.json"):
        os.utime(old, (1e9, 1e9))
    with living() as process:
        job = write_stream(tmp_path, process, gateway.url)
        job.close()
    with agent(tmp_path) as served:
        assert served.wait(15) == 0
    assert [path.name for path in sorted(host.rglob("*")) if path.is_file()] == ["agent.log", "ended-old"]
