"""`runtide demo`: a stack of its own, a real training on it, and what came of it.

Ends with everything stopped: parts, job and agent are children or are waited for, and where the demo itself is killed
they notice (see `child`).
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runtide.cli import checking, child
from runtide.cli.home import Home, Ports
from runtide.cli.ports import free_port, is_free
from runtide.cli.store import RunKey, open_store, rows
from runtide.cli.supervisor import stop_group
from runtide.cli.tables import print_table
from runtide.cli.up import FLAGS, NotReady, up_arguments
from runtide.spool.layout import runtime_folder
from runtide.wire.errors import RuntideError

Say = Callable[[str], None]

UP_S = 120.0
"""How long the stack may take to come up."""
STORED_S = 60.0
"""How long the last record may take into the store, and the agent to end."""
STOP_S = 20.0
ENOUGH = 0.9
"""Test accuracy that the demo promises."""

_TABLE = """
SELECT metric, count AS points, round(min, 4) AS min, round(max, 4) AS max, round(last, 4) AS last
FROM runtide.metric_summary
WHERE project = {project:String} AND run_id = {run:String} AND rank = -1 ORDER BY metric
"""
_RANKS = """
SELECT rank, count() AS points, max(step) AS last_step, round(argMaxIf(value, step, metric = 'train/loss'), 4) AS loss
FROM runtide.metrics
WHERE project = {project:String} AND run_id = {run:String} GROUP BY rank ORDER BY rank
"""
_STATE = "SELECT state FROM runtide.runs WHERE project = {project:String} AND run_id = {run:String}"
_ACCURACY = """
SELECT argMax(value, step) AS accuracy FROM runtide.metrics
WHERE project = {project:String} AND run_id = {run:String} AND metric = 'test/accuracy'
"""


class DemoFailed(RuntideError):
    """The demo did not do what it promises."""

    code = "demo_failed"


def run_demo(folder: Path | None, ports: Ports, seconds: float, exit_after: bool, say: Say) -> int:
    """Run the whole demo and return its exit code. Blocks."""
    stay = sys.stdout.isatty() and sys.stdin.isatty() and not exit_after
    with _home(folder) as home:
        ports = _free_ports(ports, say)
        say("starting ClickHouse, gateway, sink, processor and dashboard ...")
        with _stack(home, ports) as process:
            if ports.dashboard is not None:
                say(f"watch it on http://{ports.host}:{ports.dashboard}")
            code = _show(home, ports, seconds, say)
            if stay:
                _stay(process, ports, say)
    say("everything is stopped")
    return code


def _show(home: Home, ports: Ports, seconds: float, say: Say) -> int:
    key = _train(home, ports, seconds, say)
    address = f"{ports.host}:{ports.clickhouse}"
    with open_store(home.folder, address) as client:
        _until(lambda: _ended(rows(client, _STATE, project=key.project, run=key.run_id)), "the end of the run")
        _until(lambda: agent_ended(home.spool), "the end of the agent")
        told = {"project": key.project, "run": key.run_id}
        say("\nwhat SQL says:")
        print_table(rows(client, _TABLE, **told))
        print_table(rows(client, _RANKS, **told))
        found = checking.check(client, key)
        checking.show(found)
        accuracy = float(rows(client, _ACCURACY, **told)[0]["accuracy"])
    say(f"test accuracy {accuracy:.3f}")
    if accuracy <= ENOUGH:
        say(f"that is not above {ENOUGH}: something is wrong")
    return 0 if found["clean"] and accuracy > ENOUGH else 1


def _ended(found: list[dict[str, Any]]) -> bool:
    return bool(found) and found[0]["state"] in {"finished", "failed", "crashed"}


@contextmanager
def _home(folder: Path | None) -> Iterator[Home]:
    """The given folder, which is kept, or a temporary one, which is not."""
    if folder is not None:
        yield Home(folder.expanduser().absolute())
        return
    made = Path(tempfile.mkdtemp(prefix="runtide-demo-"))
    try:
        yield Home(made)
    finally:
        shutil.rmtree(made)


def _free_ports(ports: Ports, say: Say) -> Ports:
    """The ports asked for, and free ones in place of those that are taken; says so."""
    chosen = Ports(ports.gateway, ports.metrics, ports.clickhouse, ports.dashboard, ports.host)
    for name in FLAGS:
        port = getattr(chosen, name)
        if port == 0:
            setattr(chosen, name, free_port())
        elif port is not None and not is_free(port):
            setattr(chosen, name, free_port())
            say(f"port {port} ({name}) is taken, using {getattr(chosen, name)}")
    return chosen


@contextmanager
def _stack(home: Home, ports: Ports) -> Iterator[subprocess.Popen[bytes]]:
    """`runtide up` as a child, ready; stopped at the end. Raises NotReady with what it said."""
    home.make()
    log = home.open_log("up")
    try:
        command = child.command("runtide.cli", "up", *up_arguments(home, ports))
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    finally:
        os.close(log)
    try:
        until = time.monotonic() + UP_S
        while not ((state := home.read()) and state.pid == process.pid and state.ready):
            if process.poll() is not None or time.monotonic() > until:
                raise NotReady(f"the stack did not start: {home.log('up').read_text(errors='replace').strip()}")
            time.sleep(0.05)
        yield process
    finally:
        stop_group(process, STOP_S)


def _train(home: Home, ports: Ports, seconds: float, say: Say) -> RunKey:
    """Run the job, passing on what it prints, and return its run. Raises DemoFailed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RUNTIDE_")}
    environment |= {
        "RUNTIDE_URL": f"grpc://{ports.host}:{ports.gateway}",
        "RUNTIDE_DIR": str(home.spool),
        "RUNTIDE_SAMPLE_SECONDS": "1",
        "RUNTIDE_SILENT": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    say(f"training a small network on four processes for {seconds:.0f} s")
    job = subprocess.Popen(
        child.command("runtide.cli.demo_job", "--seconds", str(seconds)),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    run_id = ""
    try:
        assert job.stdout is not None
        for line in job.stdout:
            say(f"  {line.rstrip()}")
            if found := re.match(r"run (\S+)", line):
                run_id = found[1]
        code = job.wait()
    finally:
        stop_group(job, 2.0)
    if code or not run_id:
        raise DemoFailed(f"the training ended with exit code {code}" if code else "the training did not name its run")
    return RunKey("demo", run_id)


def _until(done: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + STORED_S
    while not done():
        if time.monotonic() > until:
            raise DemoFailed(f"{what} did not come within {STORED_S:.0f} s")
        time.sleep(0.1)


def agent_ended(spool: Path) -> bool:
    """Whether no agent serves this spool: its lock is free."""
    try:
        handle = os.open(runtime_folder(spool) / "agent.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(handle)
    return True


def _stay(process: subprocess.Popen[bytes], ports: Ports, say: Say) -> None:
    """Leave the stack up until Ctrl-C, or until it ends."""
    say("\nthe stack stays up until Ctrl-C; look around:")
    if ports.dashboard is not None:
        say(f"  http://{ports.host}:{ports.dashboard}")
    say(f"  runtide runs --clickhouse {ports.host}:{ports.clickhouse}")
    try:
        process.wait()
    except KeyboardInterrupt:
        say("")
