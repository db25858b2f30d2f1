"""Talking to the host's agent, and starting one where none answers. Every call has a deadline; none raises.

One request and one reply a connection, each a line of JSON, over a unix socket in the host-local runtime folder.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import runtide
from runtide.sdk.notice import say
from runtide.spool import layout

SOCKET = "agent.sock"
LOG = "agent.log"
START_SECONDS = 2.5
"""All the time that init may take for the agent to come up and answer."""
PREFLIGHT_SECONDS = 2.4
_POLL_SECONDS = 0.02
_MAX_REPLY_BYTES = 1 << 20
# sh puts the agent in the background and ends: so the agent is nobody's child that somebody would have to reap
_DETACH = '"$@" &'


@dataclass(frozen=True, slots=True)
class Preflight:
    """What the gateway says of a run before it starts."""

    reachable: bool = False
    project: str = ""
    run_exists: bool = False
    run_state: str = ""
    attempt: int = 0
    """The attempt that this launch is; 0 where the store could not be asked."""
    last_step: int | None = None
    """Where the attempts before that one have come to; None where they logged nothing."""
    error: str = ""
    """Why there is no answer, where the agent knows."""


class AgentLink:
    """The way to the agent of one spool root."""

    def __init__(self, root: Path, *, start: bool = True) -> None:
        """`start` allows to start an agent where none answers."""
        self._root = root
        self._may_start = start
        self._started_at = 0.0
        self._socket = layout.runtime_folder(root) / SOCKET

    def ask(self, request: Mapping[str, object], timeout_s: float = 1.0) -> dict[str, Any] | None:
        """Send one request. None: nobody answers, or not in time."""
        deadline = time.monotonic() + timeout_s
        try:
            # a request may hold a token: never to a socket that another user of the host has put there
            layout.check_private(self._socket.parent)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
                peer.settimeout(max(timeout_s, 0.01))
                peer.connect(str(self._socket))
                peer.sendall(json.dumps(request).encode() + b"\n")
                found = json.loads(_line(peer, deadline))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def ensure(self) -> bool:
        """See to it that an agent runs or is starting, without waiting for it. True: one answers."""
        if self.ask({"op": "ping"}, 0.5) is not None:
            return True
        if not self._may_start or (time.monotonic() - self._started_at < START_SECONDS and self._started_at):
            return False
        self._started_at = time.monotonic()
        try:
            _start(self._root)
        except OSError as error:
            say(f"the agent could not be started ({error}); what is logged stays in {self._root}")
        return False

    def wait(self, deadline: float) -> bool:
        """Wait until the agent answers, at most until `deadline` (monotonic)."""
        while True:
            if self.ask({"op": "ping"}, min(0.3, deadline - time.monotonic())) is not None:
                return True
            if not self._may_start or time.monotonic() + _POLL_SECONDS >= deadline:
                return False
            time.sleep(_POLL_SECONDS)

    def preflight(
        self,
        *,
        project: str,
        run_id: str,
        launch_id: str,
        url: str,
        token: str,
        tls: Mapping[str, str],
        deadline: float,
    ) -> Preflight:
        """Ask the gateway, through the agent, what it knows of a run."""
        left = min(deadline - time.monotonic(), PREFLIGHT_SECONDS)
        if left <= 0:
            return Preflight()
        request = {
            "op": "preflight",
            "project": project,
            "run_id": run_id,
            "launch_id": launch_id,
            "url": url,
            "token": token,
            **tls,
        }
        found = self.ask(request, left)
        error = str((found or {}).get("error", ""))
        if found is None or error or not found.get("reachable"):
            return Preflight(error=error)  # a gateway that refuses the token says nothing of the run either
        return Preflight(
            reachable=True,
            project=str(found.get("project", "")),
            run_exists=bool(found.get("run_exists")),
            run_state=str(found.get("run_state", "")),
            attempt=int(found.get("attempt") or 0),
            last_step=None if (last := found.get("last_step")) is None else int(last),
        )


def _line(peer: socket.socket, deadline: float) -> bytes:
    got = bytearray()
    while not got.endswith(b"\n"):
        peer.settimeout(max(deadline - time.monotonic(), 0.001))
        part = peer.recv(65536)
        if not part or len(got) > _MAX_REPLY_BYTES:
            break
        got += part
    return bytes(got)


def start_collector(root: Path, stream: str) -> None:
    """Start what collects beside a job that has no agent on its host: it reads the stream's capture.json, and ends."""
    try:
        _detached(root, "runtide.agent.collector", str(layout.host_folder(root) / stream))
    except OSError as error:
        say(f"code and environment of the run are not kept: {error}")


def _start(root: Path) -> None:
    _detached(root, "runtide.agent", "--root", str(root))


def _detached(root: Path, *module: str) -> None:
    """Start a module of ours in the background, with what it says in agent.log."""
    folder = layout.host_folder(root)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    argv = ["/bin/sh", "-c", _DETACH, "runtide-agent", sys.executable, "-m", *module]
    log = os.open(folder / LOG, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        subprocess.run(  # noqa: S603  our own interpreter
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=_environment(),
            start_new_session=True,
            check=False,
        )
    finally:
        os.close(log)


def _environment() -> dict[str, str]:
    """The job's environment, with this package to be found from any folder."""
    env = dict(os.environ)
    here = str(Path(runtide.__file__ or "").absolute().parent.parent)
    paths = [str(Path(entry).absolute()) for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if here not in paths and "site-packages" not in here:
        paths.append(here)
    if paths:
        env["PYTHONPATH"] = os.pathsep.join(paths)
    return env
