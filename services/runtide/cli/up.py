"""`runtide up` and `runtide down`: the whole of runtide on one machine."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import psutil

from runtide.cli import child, dashboard
from runtide.cli.home import Home, Ports, UpState
from runtide.cli.ports import free_port
from runtide.cli.settings import Settings
from runtide.cli.stop import stop
from runtide.cli.supervisor import Part, Supervisor
from runtide.embedded.secret import read_or_create_secret
from runtide.warehouse.client import ClickHouseSettings
from runtide.wire.errors import RuntideError

READY_S = 120.0
"""How long `--detach` waits for every part to answer."""
ORPHAN_S = child.GRACE_S + 2.0
"""How long parts of a killed supervisor may take to end by themselves."""
FLAGS = {
    "gateway": "--gateway-port",
    "metrics": "--metrics-port",
    "clickhouse": "--clickhouse-port",
    "dashboard": "--dashboard-port",
    "canary": "--canary-port",
}


class NotReady(RuntideError):
    """`up --detach` did not come up."""

    code = "not_ready"


def pick_ports(ports: Ports) -> Ports:
    """Replace every 0 by a port that is free now."""
    chosen = dataclasses.replace(ports)
    for name in FLAGS:
        if getattr(chosen, name) == 0:
            setattr(chosen, name, free_port())
    return chosen


def parts_of(home: Home, ports: Ports, settings: Settings) -> list[Part]:
    """The child processes, in the order in which they start."""
    folder = str(home.folder)
    clickhouse = Part(
        "clickhouse",
        "runtide.embedded",
        ("--home", folder, "--port", str(ports.clickhouse)),
        f"http://{ports.host}:{ports.clickhouse}/ping",
        ((FLAGS["clickhouse"], ports.clickhouse),),
    )
    ingest = Part(
        "ingest",
        "runtide.cli.ingest",
        (
            *("--home", folder, "--clickhouse-port", str(ports.clickhouse)),
            *("--gateway-port", str(ports.gateway), "--metrics-port", str(ports.metrics)),
        ),
        f"http://{ports.host}:{ports.metrics}/healthz",
        ((FLAGS["gateway"], ports.gateway), (FLAGS["metrics"], ports.metrics)),
    )
    parts = [clickhouse, ingest]
    if ports.dashboard is not None:
        parts.append(_pages(ports, ports.dashboard, settings))
    if ports.canary is not None:
        parts.append(_canary(home, ports, ports.canary, settings))
    return parts


def _pages(ports: Ports, port: int, settings: Settings) -> Part:
    gateway = settings.gateway.url(ports.host, ports.gateway)
    return Part(
        "dashboard",
        "streamlit",
        dashboard.arguments(ports.host, port),
        f"http://{ports.host}:{port}/_stcore/health",
        ((FLAGS["dashboard"], port),),
        {
            **dashboard.environment(ClickHouseSettings(ports.host, ports.clickhouse)),
            **dashboard.sign_in(settings, ports.host, gateway),
            "RUNTIDE_PUBLIC_URL": gateway,
        },
        str(dashboard.script().parent),
    )


def _canary(home: Home, ports: Ports, port: int, settings: Settings) -> Part:
    return Part(
        "canary",
        "runtide.cli.canary",
        (
            *("--home", str(home.folder), "--url", settings.gateway.url(ports.host, ports.gateway)),
            *("--clickhouse-port", str(ports.clickhouse), "--metrics-port", str(port)),
        ),
        f"http://{ports.host}:{port}/healthz",
        ((FLAGS["canary"], port),),
    )


def addresses(ports: Ports, settings: Settings) -> list[str]:
    """Lines for people: what answers where."""
    gateway = settings.gateway.url(ports.host, ports.gateway)
    lines = [
        f"  gateway     {gateway}   (metrics http://{ports.host}:{ports.metrics}/metrics)",
        f"  clickhouse  http://{ports.host}:{ports.clickhouse}   (read-only: runtide sql, curl, any ClickHouse client)",
    ]
    if ports.dashboard is not None:
        lines.insert(0, f"  dashboard   http://{ports.host}:{ports.dashboard}")
    if ports.canary is not None:
        lines.append(f"  canary      http://{ports.host}:{ports.canary}/metrics")
    return lines


def run_up(settings: Settings, ports: Ports, say: Callable[[str], None]) -> None:
    """Serve until told to stop. Blocks. Raises AlreadyUp and PortTaken."""
    home = Home(settings.home_folder)
    home.make()
    lock = home.lock()
    try:
        _end_orphans(home, say)
        read_or_create_secret(home.folder)
        chosen = pick_ports(ports)
        url = settings.gateway.url(chosen.host, chosen.gateway)
        state = UpState(os.getpid(), psutil.Process().create_time(), version("runtide"), chosen, url=url)
        home.write(state)
        began = time.monotonic()

        def ready() -> None:
            say(f"runtide is up in {time.monotonic() - began:.1f} s, home {home.folder}")
            for line in addresses(chosen, settings):
                say(line)

        Supervisor(home, state, parts_of(home, chosen, settings), say, ready).run()
        say("runtide is down")
    finally:
        os.close(lock)


def _end_orphans(home: Home, say: Callable[[str], None]) -> None:
    """Wait for parts of an earlier supervisor that was killed; they end by themselves, or are ended."""
    state = home.read()
    left = {name: part for name, part in state.parts.items() if part.alive} if state else {}
    if not left:
        return
    say(f"waiting for parts of an earlier runtide to end: {', '.join(left)}")
    until = time.monotonic() + ORPHAN_S
    while any(part.alive for part in left.values()) and time.monotonic() < until:
        time.sleep(0.1)
    for part in left.values():
        if part.alive:
            os.kill(part.pid, signal.SIGKILL)


def detach(settings: Settings, ports: Ports, say: Callable[[str], None]) -> None:
    """Start `up` in a session of its own and return when every part answers. Raises NotReady with what it said."""
    home = Home(settings.home_folder)
    home.make()
    os.close(home.lock())  # the clear error at once, where one is up already
    log = home.open_log("up")
    start = os.lseek(log, 0, os.SEEK_END)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "runtide.cli", "up", *up_arguments(home, ports)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    finally:
        os.close(log)
    until = time.monotonic() + READY_S
    while True:
        state = home.read()
        if state and state.pid == process.pid and state.ready:
            break
        if process.poll() is not None or time.monotonic() > until:
            if process.poll() is None:
                stop(home, say)
            said = home.log("up").read_bytes()[start:].decode(errors="replace").strip()
            raise NotReady(f"up did not start: {said or 'see ' + str(home.log('up'))}")
        time.sleep(0.05)
    say(f"runtide is up (pid {state.pid}), home {home.folder}")
    for line in addresses(state.ports, settings):
        say(line)


def up_arguments(home: Home, ports: Ports) -> list[str]:
    """Arguments of `runtide up` for this home and these ports."""
    arguments = ["--home", str(home.folder)]
    for name, flag in FLAGS.items():
        port = getattr(ports, name)
        if port is not None:
            arguments += [flag, str(port)]
    arguments += ["--no-dashboard"] if ports.dashboard is None else []
    return [*arguments, *(["--canary"] if ports.canary is not None else [])]
