"""Clocks that a test sets: one for parts that take a clock, and one that a whole process is started with."""

from __future__ import annotations

import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

YEAR_S = 365 * 24 * 3600.0

_WALL = """
    import json, os, sys, time
    told, real_ns = os.environ["RUNTIDE_TEST_CLOCK"], time.time_ns
    seen = [0, 0.0, None]

    def now_ns(caller):
        if not caller.f_globals.get("__name__", "").startswith("runtide"):
            return real_ns()
        stat = os.stat(told)
        if stat.st_mtime_ns != seen[0]:
            with open(told) as file:
                seen[:] = [stat.st_mtime_ns, *json.load(file)]
        return int(seen[2] * 1e9) if seen[2] is not None else real_ns() + int(seen[1] * 1e9)

    time.time_ns = lambda: now_ns(sys._getframe(1))
    time.time = lambda: now_ns(sys._getframe(1)) / 1e9
"""
"""For runtide's own modules only: gRPC adds its deadlines to Python's clock, and compares them with the system's."""


@dataclass
class ManualClock:
    """Seconds since the epoch, and only what it is told. Called as `time.time` is; `us` as microseconds."""

    now: float = 1_790_000_000.0

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self.now

    def us(self) -> int:
        """Microseconds since the epoch."""
        return int(self.now * 1_000_000)

    def move(self, seconds: float) -> None:
        """Go on, or back."""
        self.now += seconds


class WallClock:
    """The wall clock of processes that are started with `variables`, and of those that they start.

    The clock of a machine is nobody's to set in a test: Python's `time.time` is replaced as the interpreter starts.
    """

    def __init__(self, folder: Path) -> None:
        """`folder` is the test's own."""
        self._told = folder / "clock.json"
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(textwrap.dedent(_WALL))
        path = os.pathsep.join([str(folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.variables = {"PYTHONPATH": path, "RUNTIDE_TEST_CLOCK": str(self._told)}
        self.off_by(0)

    def off_by(self, seconds: float) -> None:
        """Go on from so many seconds beside the right time."""
        self._tell(f"[{seconds}, null]")

    def freeze(self, at: float) -> None:
        """Stand still."""
        self._tell(f"[0, {at}]")

    def _tell(self, words: str) -> None:
        new = self._told.with_suffix(".new")
        new.write_text(words)
        new.replace(self._told)
