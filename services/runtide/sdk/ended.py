"""What this host remembers of runs that ended here: the store learns of it a moment later.

Without it a second job started at once with the id of one that has just ended would take it for a living run, and one
of several processes started together that comes late would take its own run for somebody else's.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from runtide.sdk import ranks
from runtide.spool.layout import ENDED_PREFIX, replace_file

_TICK_SECONDS = 0.02
KEEP_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class EndedHere:
    """The last end of one of a run's processes on this host."""

    launch_id: str
    at: float
    """Seconds since the epoch."""
    alone: bool
    """Whether that process was the whole job."""

    @classmethod
    def read(cls, host_folder: Path, tenant: str, run_id: str) -> EndedHere | None:
        """Look a run up; None where nothing is remembered."""
        try:
            found = json.loads(_file(host_folder, tenant, run_id).read_text())
            return cls(str(found["launch_id"]), float(found["at"]), bool(found["alone"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, host_folder: Path, tenant: str, run_id: str) -> None:
        """Remember, and forget what is old. Raises OSError."""
        replace_file(_file(host_folder, tenant, run_id), json.dumps(dataclasses.asdict(self)))
        for old in host_folder.glob(f"{ENDED_PREFIX}*"):
            if time.time() - old.stat().st_mtime > KEEP_SECONDS:
                old.unlink(missing_ok=True)


def began() -> float:
    """When this process began, in seconds since the epoch; at the latest then, to a hundredth.

    Not psutil's create_time: it adds a time of boot that is known in whole seconds only.
    """
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):  # no Linux
        import psutil

        return float(psutil.Process().create_time())
    return time.time() - age + _TICK_SECONDS


def _file(host_folder: Path, tenant: str, run_id: str) -> Path:
    return host_folder / f"{ENDED_PREFIX}{ranks.derive(tenant, run_id)}"
