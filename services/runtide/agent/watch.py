"""Which processes live, and how the others ended.

Promises: a zombie counts as dead, another process with the same pid too; a process that lives is never called dead
because the system's clock was set.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from runtide.spool.layout import replace_file

ENDED_DIR = "ended"
"""Folder in the host folder where `runtide run` says how processes ended."""

SEEN_LEAST = 64
"""Processes that are remembered whether they live or not."""

REMEMBERED_S = 60.0
"""How long an end is remembered though it has arrived: a process of the same job may come late."""

START_TOLERANCE_S = 5.0
"""Start times come from the boot time, which moves a little when the clock is set; a pid is not reused this fast."""


class Processes:
    """Answers whether a process still lives."""

    def __init__(self, least: int = SEEN_LEAST) -> None:
        """Nothing is known yet; so many are remembered before it is looked who has ended unnoticed."""
        self._seen: dict[tuple[int, float], str] = {}
        self._least = self._sweep_at = least

    def __len__(self) -> int:
        return len(self._seen)

    def alive(self, pid: int, started: float) -> bool:
        """Say whether the process with this pid and start time (as psutil gives it) lives."""
        now = _incarnation(pid)
        if now is None:
            return False
        known = self._seen.get((pid, started))
        if known is None:
            if not _started_at(pid, started):
                return False
            self._seen[pid, started] = known = now
            self._sweep()
        return known == now

    def _sweep(self) -> None:
        """Drop who has ended after its streams were all told of, each time that they are twice as many."""
        if len(self._seen) > self._sweep_at:
            self._seen = {process: seen for process, seen in self._seen.items() if _incarnation(process[0]) == seen}
            self._sweep_at = max(self._least, 2 * len(self._seen))

    def forget(self, pid: int, started: float) -> None:
        """Drop what is remembered of a process that has ended."""
        self._seen.pop((pid, started), None)


def _incarnation(pid: int) -> str | None:
    """What tells this process from an earlier one with the same pid; None for a dead one or a zombie."""
    if sys.platform.startswith("linux"):
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            return None
        fields = stat[stat.rfind(")") + 2 :].split()
        return None if fields[0] in "ZXx" else fields[19]  # state, and start time in ticks since boot
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.Error:
        return None


def _started_at(pid: int, started: float) -> bool:
    try:
        return abs(psutil.Process(pid).create_time() - started) < START_TOLERANCE_S
    except psutil.Error:
        return False


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended, as its parent saw it."""

    pid: int
    started: float
    exit_code: int | None
    signal: str

    def write(self, host_folder: Path) -> None:
        """Leave word for the agent."""
        folder = host_folder / ENDED_DIR
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(folder / f"{self.pid}.json", json.dumps(asdict(self)))

    @classmethod
    def read(cls, host_folder: Path, pid: int, started: float) -> Ended | None:
        """Read the parent's word; None where there is none for this very process."""
        try:
            found = json.loads((host_folder / ENDED_DIR / f"{pid}.json").read_text())
            code = found["exit_code"]
            ended = cls(
                int(found["pid"]), float(found["started"]), None if code is None else int(code), found["signal"]
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return ended if abs(ended.started - started) < START_TOLERANCE_S else None


def forget_ends(host_folder: Path) -> None:
    """Delete what parents said of ends, but for the latest: for a host folder whose streams have all arrived.

    The jobs' own notes of ended runs stay: they tell the next job of the same shell from this one.
    """
    for file in (host_folder / ENDED_DIR).glob("*.json"):
        with contextlib.suppress(OSError):  # another process forgets it too
            if time.time() - file.stat().st_mtime > REMEMBERED_S:
                file.unlink()
