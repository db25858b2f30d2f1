"""`runtide run -- CMD`: start a job as its parent, so that how it ended is known exactly.

Promises: the job sees the same terminal, input and signals as without it, and its exit code is passed on; all processes
of CMD join one run; how the direct child ended is written for the agent before this returns.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

import psutil

from runtide.agent.watch import Ended
from runtide.spool.layout import default_root, host_folder

PARENT_VARIABLE = "RUNTIDE_PARENT_PID"
"""Tells the job which process will say how it ended."""

LAUNCH_VARIABLE = "RUNTIDE_LAUNCH_ID"
"""Tells the job's processes that they were started together; a pid comes again, in a container each time."""

_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)
NOT_FOUND, NOT_RUNNABLE = 127, 126
"""Exit codes of a command that cannot be started, as shells give them."""


def run_job(argv: list[str]) -> int:
    """Run a command to its end; returns its exit code, or 128 and the signal's number, as a shell does."""
    with _signals() as forward:
        try:
            job = subprocess.Popen(argv, env=job_environment(os.environ))  # noqa: S603  what the user asked for
        except FileNotFoundError:
            sys.stderr.write(f"runtide run: {argv[0]}: command not found\n")
            return NOT_FOUND
        except OSError as error:
            sys.stderr.write(f"runtide run: {argv[0]}: {error.strerror}\n")
            return NOT_RUNNABLE
        started = _started(job.pid)
        forward.append(job)
        code = job.wait()
    _tell(job.pid, started, code)
    return code if code >= 0 else 128 - code


def job_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The job's environment: one run id for all of its processes, unless the user gave one."""
    told = dict(environment)
    told[PARENT_VARIABLE] = str(os.getpid())
    told[LAUNCH_VARIABLE] = secrets.token_hex(8)
    if not told.get("RUNTIDE_RUN_ID"):
        told["RUNTIDE_RUN_ID"] = time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(4)
    return told


def _tell(pid: int, started: float, code: int) -> None:
    ended = Ended(pid, started, code if code >= 0 else None, "" if code >= 0 else signal_name(-code))
    try:
        ended.write(host_folder(default_root()))
    except OSError as error:
        sys.stderr.write(f"runtide run: how the job ended is not recorded: {error}\n")


def signal_name(number: int) -> str:
    """SIGKILL and so on; the number where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _started(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return time.time()


@contextmanager
def _signals() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Pass signals on to the job. An interrupt from the terminal reaches it anyway, so it is ignored here."""
    jobs: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        for job in jobs:
            job.send_signal(number)

    def interrupted(number: int, frame: FrameType | None) -> None:
        if not sys.stdin.isatty():
            pass_on(number, frame)

    before = {number: signal.signal(number, pass_on) for number in _FORWARDED}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, interrupted)
    try:
        yield jobs
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(argv: list[str]) -> int:
    """Run `runtide run`."""
    parser = argparse.ArgumentParser(
        prog="runtide run",
        usage="runtide run -- CMD [ARG ...]",
        description="Run a job and record how it ended.",
        epilog="Example: runtide run -- python train.py --epochs 3",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER)
    command = parser.parse_args(argv).command
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        parser.error("no command given")
    return run_job(command)
