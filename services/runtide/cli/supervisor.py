"""The supervisor of `runtide up`: starts the parts, restarts one that dies, stops all of them.

Parts run in sessions of their own, so a Ctrl-C reaches the supervisor alone and parts stop in order; see `child` for
what happens when it is killed itself. It never gives a part up, but for one that cannot start because its port is
taken.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from types import FrameType

import psutil

from runtide.cli import child
from runtide.cli.home import Home, PartState, UpState
from runtide.cli.ports import PortTaken, is_free

TICK_S = 0.1
BACKOFF_S = (0.2, 10.0)
"""First and longest wait before a part is started again."""
STEADY_S = 30.0
"""After this long alive a part's next death counts as its first."""
PORT_GRACE_S = 3.0
"""How long a part's own port may take to become free again after its death."""
STOP_S = {"canary": 6.0, "dashboard": 1.5, "ingest": 5.0, "clickhouse": 4.0}
"""How long each part may take to stop before it is killed; together about ten seconds, and the canary's."""


@dataclass(frozen=True, slots=True)
class Part:
    """What to run and how to see that it serves."""

    name: str
    module: str
    arguments: tuple[str, ...]
    health_url: str
    ports: tuple[tuple[str, int], ...]
    """(flag that changes it, port)."""
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str | None = None
    """Where it runs; where the supervisor does, unless told."""


@dataclass(slots=True)
class _Running:
    part: Part
    process: subprocess.Popen[bytes] | None = None
    state: PartState = field(default_factory=PartState)
    backoff_s: float = BACKOFF_S[0]
    start_at: float = 0.0
    born_at: float = 0.0


class Supervisor:
    """Keeps parts running until it is told to stop.

    `say` gets one line for people at every event, `on_ready` is called once, when every part has answered.
    """

    def __init__(
        self,
        home: Home,
        state: UpState,
        parts: Sequence[Part],
        say: Callable[[str], None],
        on_ready: Callable[[], None],
    ) -> None:
        self._home, self._state, self._say, self._on_ready = home, state, say, on_ready
        self._running = [_Running(part) for part in parts]
        self._stop = threading.Event()

    def run(self) -> None:
        """Start everything and return after a clean stop. Blocks. Raises PortTaken, after stopping what ran."""
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self._told) for number in numbers}
        try:
            for running in self._running:
                self._check_ports(running.part, grace_s=0)
            while not self._stop.is_set():
                self._tick(time.monotonic())
                self._stop.wait(TICK_S)
        finally:
            self._stop_all()
            for number, handler in before.items():
                signal.signal(number, handler)

    def stop(self) -> None:
        """Make `run` return soon; may be called from anywhere."""
        self._stop.set()

    def _told(self, _number: int, _frame: FrameType | None) -> None:
        self._stop.set()

    def _tick(self, now: float) -> None:
        before = [(running.state.pid, running.state.ready) for running in self._running]
        for running in self._running:
            if running.process is None:
                if now >= running.start_at:
                    self._start(running, now)
            elif running.process.poll() is not None:
                self._died(running, running.process.returncode, now)
            elif not running.state.ready:
                running.state.ready = answers(running.part.health_url)
        if before != [(running.state.pid, running.state.ready) for running in self._running]:
            self._publish()

    def _publish(self) -> None:
        was_ready = self._state.ready
        self._state.parts = {running.part.name: running.state for running in self._running}
        self._state.ready = was_ready or all(running.state.ready for running in self._running)
        self._home.write(self._state)
        if self._state.ready and not was_ready:
            self._on_ready()

    def _start(self, running: _Running, now: float) -> None:
        part = running.part
        self._check_ports(part, grace_s=PORT_GRACE_S if running.state.restarts else 0)
        log = self._home.open_log(part.name)
        try:
            running.process = subprocess.Popen(
                child.command(part.module, *part.arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **part.environment},
                cwd=part.folder,
            )
        finally:
            os.close(log)
        running.born_at = now
        running.state.pid, running.state.started = running.process.pid, _created(running.process.pid)

    def _died(self, running: _Running, code: int, now: float) -> None:
        if now - running.born_at > STEADY_S:
            running.backoff_s = BACKOFF_S[0]
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._say(
            f"{running.part.name} {how}, starting it again in {running.backoff_s:.1f} s "
            f"(log: {self._home.log(running.part.name)})"
        )
        running.process, running.state.ready, running.state.pid = None, False, 0
        running.state.restarts += 1
        running.start_at = now + running.backoff_s
        running.backoff_s = min(2 * running.backoff_s, BACKOFF_S[1])

    def _check_ports(self, part: Part, grace_s: float) -> None:
        until = time.monotonic() + grace_s
        for flag, port in part.ports:
            while not is_free(port):
                if time.monotonic() >= until:
                    raise PortTaken(part.name, port, flag)
                time.sleep(TICK_S)

    def _stop_all(self) -> None:
        # In reverse: readers first, then those who write, the store last.
        for running in reversed(self._running):
            if running.process is not None:
                stop_group(running.process, STOP_S.get(running.part.name, 3.0))
        self._home.forget()


def stop_group(process: subprocess.Popen[bytes] | subprocess.Popen[str], grace_s: float) -> None:
    """End a child that leads its own process group: SIGTERM, then SIGKILL after `grace_s`."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    try:  # what the child itself may have left behind
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def answers(url: str, timeout_s: float = 0.5) -> bool:
    """Whether an HTTP GET gives 200."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as reply:  # noqa: S310  our own loopback address
            return bool(reply.status == 200)
    except (OSError, ValueError, HTTPException):  # the last: what answers is no HTTP server
        return False


def trouble_of(url: str, timeout_s: float = 0.5) -> str:
    """What a /readyz says is wrong; empty where nothing is, or where it does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s):  # noqa: S310  our own loopback address
            return ""
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode(errors="replace").strip() if error.code == HTTPStatus.SERVICE_UNAVAILABLE else ""
    except (OSError, ValueError, HTTPException):
        return ""


def _created(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return 0.0
