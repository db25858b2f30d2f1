"""The home of one `runtide up`: where its data, logs and state lie, and who runs it now.

HOME/clickhouse/   the engine's data           HOME/secret    the writer's password
HOME/logs/         one file for each part      HOME/spool/    what jobs of this machine have said and not shipped
HOME/up.json       pid, ports and parts        HOME/up.lock   held while `runtide up` runs
HOME/control.json  tokens, as hashes                  HOME/canary/   spool of the canary, where one runs
HOME/artifacts/    files of artifacts, by their digest
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from runtide.spool.layout import replace_file
from runtide.wire.errors import BadInput, RuntideError

LOG_BYTES = 16 * 1024 * 1024
"""A log file longer than this is set aside once, when its part starts."""


class AlreadyUp(RuntideError):
    """Another `runtide up` serves this home."""

    code = "already_up"


@dataclass(slots=True)
class Ports:
    """Where the parts listen."""

    gateway: int
    metrics: int
    clickhouse: int
    dashboard: int | None
    """None without a dashboard."""
    host: str = "127.0.0.1"
    canary: int | None = None
    """/metrics of the canary; None without one."""


@dataclass(slots=True)
class PartState:
    """One child process."""

    pid: int = 0
    started: float = 0.0
    """As psutil gives it: a pid alone may be reused."""
    restarts: int = 0
    ready: bool = False

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return is_alive(self.pid, self.started)


@dataclass(slots=True)
class UpState:
    """What up.json holds."""

    pid: int
    started: float
    version: str
    ports: Ports
    parts: dict[str, PartState] = field(default_factory=dict)
    ready: bool = False
    url: str = ""
    """The gateway's address, for jobs of this machine."""

    @property
    def alive(self) -> bool:
        """Whether the supervisor still runs."""
        return is_alive(self.pid, self.started)


def is_alive(pid: int, started: float) -> bool:
    """Whether the process with this pid and start time runs; a zombie does not."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@dataclass(frozen=True, slots=True)
class Home:
    """Paths of one home, and its state file."""

    folder: Path

    @property
    def spool(self) -> Path:
        """Spool root of jobs that take this home as theirs."""
        return self.folder / "spool"

    @property
    def canary(self) -> Path:
        """Spool root of the canary: no job waits behind it, and it behind none."""
        return self.folder / "canary"

    @property
    def control(self) -> Path:
        """Tokens; see `bus.control`."""
        return self.folder / "control.json"

    @property
    def artifacts(self) -> Path:
        """Files of artifacts, where no other place is told."""
        return self.folder / "artifacts"

    def log(self, part: str) -> Path:
        """Log file of a part."""
        return self.folder / "logs" / f"{part}.log"

    def open_log(self, part: str) -> int:
        """Open a part's log file for appending and return its descriptor; a long one is set aside first."""
        path = self.log(part)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def make(self) -> None:
        """Create the folder, for its owner only."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise BadInput("--home", self.folder, f"it cannot be made: {error.strerror}") from error

    def lock(self) -> int:
        """Take the home for this process until it ends. Raises AlreadyUp."""
        handle = os.open(self.folder / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            state = self.read()
            who = f" (pid {state.pid})" if state else ""
            raise AlreadyUp(
                f"runtide is already up in {self.folder}{who}: `runtide down --home {self.folder}` stops it, "
                "--home DIR starts another beside it"
            ) from error
        return handle

    def write(self, state: UpState) -> None:
        """Replace up.json."""
        replace_file(self.folder / "up.json", json.dumps(dataclasses.asdict(state), indent=1))

    def read(self) -> UpState | None:
        """Read up.json; None where there is none or it is of another version's shape."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "up.json").read_text())
            found["ports"] = Ports(**found["ports"])
            found["parts"] = {name: PartState(**part) for name, part in found["parts"].items()}
            return UpState(**found)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def forget(self) -> None:
        """Remove up.json: nothing runs here any more."""
        (self.folder / "up.json").unlink(missing_ok=True)
