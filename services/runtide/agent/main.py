"""The agent's life: one per spool root and host, quiet, ends itself when there is nothing left to do."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import json
import logging
import logging.handlers
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from runtide.agent.link import Link
from runtide.agent.serve import Agent, AgentSettings
from runtide.agent.watch import forget_ends
from runtide.spool.layout import STREAM_FILE, default_root, host_folder, private_folder, runtime_folder

log = logging.getLogger(__name__)

LOCK_FILE = "agent.lock"
SOCKET_FILE = "agent.sock"
LOG_FILE = "agent.log"
LOG_BYTES = 1 << 20
ANSWER_S = 1.0
LOCK_PATIENCE_S = 10.0
"""How long a new agent waits for one that holds the lock but no longer answers: it is about to end."""


@contextlib.contextmanager
def only_agent(root: Path) -> Iterator[bool]:
    """Hold the lock of a spool root on this host; False where another agent serves it."""
    folder = runtime_folder(root)
    file = _locked(folder)
    try:
        yield file is not None
    finally:
        if file is not None:
            (folder / LOCK_FILE).unlink(missing_ok=True)  # while it is locked, so that it is ours
            os.close(file)
            with contextlib.suppress(OSError):  # not empty: the next agent is there already
                folder.rmdir()


def _locked(folder: Path) -> int | None:
    """Open and lock the lock file; None where another agent holds it, and answers or goes on holding it."""
    until = time.monotonic() + LOCK_PATIENCE_S
    while True:
        with contextlib.suppress(FileNotFoundError):  # the agent before has just taken the folder away
            private_folder(folder)
            file = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if _lock(file, folder / LOCK_FILE):
                return file
            os.close(file)
        if answers(folder / SOCKET_FILE) or time.monotonic() > until:
            return None
        time.sleep(0.05)


def _lock(file: int, path: Path) -> bool:
    """Lock an open file; False where another process has it, or has taken its name away meanwhile."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(file).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def answers(socket_path: Path, op: str = "ping") -> bool:
    """Say whether an agent answers on this socket, and does what it is asked for."""
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(ANSWER_S)
            link.connect(str(socket_path))
            link.sendall(json.dumps({"op": op}).encode() + b"\n")
            return bool(json.loads(link.makefile().readline() or "{}").get("ok"))
    except (OSError, ValueError):
        return False


def run_agent(
    root: Path,
    settings: AgentSettings | None = None,
    *,
    host_folders: list[Path] | None = None,
    watch: Callable[[Agent], None] | None = None,
) -> bool:
    """Serve a spool root until there is nothing left to do; False where another agent does.

    `host_folders` adds folders of other hosts; `watch` is called with the agent once it serves.
    """
    own = host_folder(root)
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    with only_agent(root) as alone:
        if alone:
            folders = [own, *(folder for folder in host_folders or () if folder != own)]
            asyncio.run(_serve(root, folders, settings or AgentSettings(), watch))
            if not any(own.glob(f"*/{STREAM_FILE}")):
                forget_ends(own)
        return alone


async def _serve(
    root: Path, folders: list[Path], settings: AgentSettings, watch: Callable[[Agent], None] | None
) -> None:
    agent = Agent(folders, settings)
    link = Link(runtime_folder(root) / SOCKET_FILE, agent.answer)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    log.info("agent pid=%d serves %s", os.getpid(), folders[0])
    if watch is not None:
        watch(agent)
    try:
        await agent.run(link.listen)
    finally:
        await link.stop()
    log.info("agent pid=%d ends", os.getpid())


def settings_from_environment() -> AgentSettings:
    """Read what the environment says about the agent; what is no number there counts as not said."""
    return AgentSettings(
        sample_seconds=_seconds("RUNTIDE_SAMPLE_SECONDS", 5.0),
        linger_seconds=_seconds("RUNTIDE_AGENT_LINGER_S", 3.0),
    )


def _seconds(name: str, default: float) -> float:
    told = os.environ.get(name, "").strip()
    try:
        found = float(told) if told else default
    except ValueError:
        found = float("nan")
    if not 0 <= found < 1e6:  # neither may keep what was logged from being shipped
        log.warning("%s is %r, which is no number of seconds: %g is used", name, told, default)
        return default
    return found


def log_to(folder: Path) -> None:
    """Log to stderr; where that is the folder's agent.log, keep it and one older file, each of at most 1 MiB."""
    path = folder / LOG_FILE
    handler: logging.Handler = logging.StreamHandler()
    try:
        if path.exists() and os.path.sameopenfile(sys.stderr.fileno(), fd := os.open(path, os.O_RDONLY)):
            os.close(fd)
            handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1)
    except (OSError, ValueError) as error:
        log.debug("stderr is no file: %s", error)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.raiseExceptions = False  # a full disk must not turn log lines into tracebacks


def main(argv: list[str]) -> int:
    """Run `runtide agent`."""
    parser = argparse.ArgumentParser(
        prog="runtide agent",
        description="Ship the streams of a spool folder until all have ended and arrived.",
        epilog="Example: runtide agent --root /scratch/spool",
    )
    parser.add_argument(
        "--root", type=Path, default=None, help="spool folder (default: RUNTIDE_DIR, else ~/.runtide/spool)"
    )
    asked = parser.parse_args(argv)
    root = (asked.root or default_root()).expanduser().absolute()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    host_folder(root).mkdir(mode=0o700, parents=True, exist_ok=True)
    log_to(host_folder(root))
    run_agent(root, settings_from_environment())
    return 0
