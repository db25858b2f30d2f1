"""The supervisor with the standard library's web server as its parts: real processes, no stack."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from runtide.cli import child
from runtide.cli.home import AlreadyUp, Home, Ports, UpState, is_alive
from runtide.cli.ports import PortTaken, free_port, is_free
from runtide.cli.supervisor import Part, Supervisor, answers
from runtide.testing.waiting import until


def web(name: str, port: int) -> Part:
    address = ("--bind", "127.0.0.1", str(port))
    return Part(name, "http.server", address, f"http://127.0.0.1:{port}/", (("--web-port", port),))


def state_of(home: Home) -> UpState:
    home.make()
    return UpState(os.getpid(), psutil.Process().create_time(), "0", Ports(1, 2, 3, None))


def supervise(home: Home, parts: list[Part], story: Callable[[Supervisor], None]) -> list[str]:
    """Run a supervisor here and the story beside it; returns what people were told."""
    said: list[str] = []
    supervisor = Supervisor(home, state_of(home), parts, said.append, lambda: said.append("ready"))
    failures: list[BaseException] = []

    def tell() -> None:
        try:
            story(supervisor)
        except BaseException as error:
            failures.append(error)
        finally:
            supervisor.stop()

    teller = threading.Thread(target=tell)
    teller.start()
    supervisor.run()
    teller.join()
    if failures:
        raise failures[0]
    return said


def test_a_part_that_is_killed_comes_back_and_a_stop_leaves_nothing(tmp_path: Path) -> None:
    home, port = Home(tmp_path / "home"), free_port()
    pids: list[int] = []

    def pid_of_web() -> int:
        state = home.read()
        return state.parts["web"].pid if state and state.parts and state.parts["web"].ready else 0

    def story(_: Supervisor) -> None:
        until(lambda: pid_of_web() > 0)
        pids.append(pid_of_web())
        os.kill(pids[0], signal.SIGKILL)
        until(lambda: pid_of_web() not in (0, pids[0]))
        pids.append(pid_of_web())
        assert answers(f"http://127.0.0.1:{port}/")

    said = supervise(home, [web("web", port)], story)
    assert said[0] == "ready"
    assert "web was killed by SIGKILL, starting it again in 0.2 s" in said[1]
    assert said.count("ready") == 1
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert is_free(port)
    assert home.read() is None


def test_a_taken_port_ends_it_and_names_the_flag(tmp_path: Path) -> None:
    home, port = Home(tmp_path / "home"), free_port()
    other = subprocess.Popen(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)], stderr=subprocess.DEVNULL
    )
    try:
        until(lambda: not is_free(port))
        with pytest.raises(PortTaken, match=rf"port {port} .* --web-port"):
            supervise(home, [web("web", port)], lambda _: time.sleep(0))
    finally:
        other.kill()
        other.wait()


def test_children_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    port = free_port()
    script = (
        "import subprocess, sys, time\n"
        "from runtide.cli import child\n"
        f"p = subprocess.Popen(child.command('http.server', '--bind', '127.0.0.1', '{port}'), start_new_session=True)\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        until(lambda: answers(f"http://127.0.0.1:{port}/"))
        started = psutil.Process(pid).create_time()
        parent.kill()
        parent.wait()
        until(lambda: not is_alive(pid, started), child.GRACE_S + 5)
        until(lambda: is_free(port))


def test_one_home_is_served_once(tmp_path: Path) -> None:
    home = Home(tmp_path)
    lock = home.lock()
    home.write(state_of(home))
    with pytest.raises(AlreadyUp, match=f"already up in {tmp_path} .pid {os.getpid()}.*runtide down --home"):
        home.lock()
    os.close(lock)
    os.close(home.lock())


def test_state_survives_a_round_and_nonsense_is_no_state(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert home.read() is None
    state = state_of(home)
    home.write(state)
    found = home.read()
    assert found == state
    assert found.alive
    (tmp_path / "up.json").write_text('{"pid": 1}')
    assert home.read() is None


def test_a_reused_pid_is_not_the_same_process() -> None:
    assert is_alive(os.getpid(), psutil.Process().create_time())
    assert not is_alive(os.getpid(), psutil.Process().create_time() - 100)
