"""Names and small files of the spool: where things lie, who speaks, how far it is shipped."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import socket
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtide.wire.errors import BadInput

STREAM_FILE = "stream.json"
POSITION_FILE = "position.json"
REJECTED_DIR = "rejected"
SEGMENT_SUFFIX = ".seg"
ENDED_PREFIX = "ended-"
"""Files in the host folder by which the sdk remembers runs that have ended here, until the store knows it."""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Who speaks in a stream, and where it goes: stream.json."""

    stream: str
    """Sorts by opening time: 12 hex digits of milliseconds since the epoch, then 20 random ones."""
    project: str
    """As asked for; empty leaves it to the token."""
    run_id: str
    rank: int
    attempt: int
    host: str
    role: int
    """A value of `runtide.v1.Role`."""
    pid: int
    """Of the process that writes the stream, in the pid namespace of the host key."""
    started: float
    """The process's start time as psutil gives it (`Process.create_time()`): a pid alone may be reused."""
    url: str
    token: str = ""
    parent_reports: bool = False
    """True under `runtide run`: the parent says how the process ended, so the agent need not guess."""
    launch_id: str = ""
    ca_file: str = ""
    """PEM of the authority that signed the gateway's certificate, for grpcs:// with a private one."""
    cert_file: str = ""
    key_file: str = ""
    """PEM of the certificate that a gateway may ask for, and of its key."""

    @property
    def tenant(self) -> str:
        """See `tenant`."""
        return tenant(self.project, self.token)

    def write(self, folder: Path) -> None:
        """Write stream.json, readable by its owner only."""
        replace_file(folder / STREAM_FILE, json.dumps(dataclasses.asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> StreamInfo:
        """Read stream.json; fields that this version does not know are ignored. Raises OSError and ValueError."""
        found = json.loads((folder / STREAM_FILE).read_text())
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in found.items() if name in known})


@dataclass(slots=True)
class Position:
    """How far a stream has come: position.json. Written by the agent, read by the job."""

    acknowledged: int = 0
    """Everything below is beyond any process death."""
    stored: int = 0
    """Everything below is in ClickHouse; may lag behind `acknowledged` in Kafka mode."""
    gap_records: int = 0
    """Records that the agent had to declare lost: damaged or refused."""
    error: str = ""
    """Why nothing moves now; empty when all is well."""

    def write(self, folder: Path) -> None:
        """Replace position.json."""
        replace_file(folder / POSITION_FILE, json.dumps(dataclasses.asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Position:
        """Read position.json; a missing or torn one is the beginning."""
        try:
            found: dict[str, Any] = json.loads((folder / POSITION_FILE).read_text())
        except (OSError, ValueError):
            return cls()
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in found.items() if name in known})


def tenant(project: str, token: str) -> str:
    """What tells projects apart on this disk: the project where it is named, else the token that decides it."""
    import hashlib

    return project or (f"token {hashlib.sha256(token.encode()).hexdigest()[:16]}" if token else "")


def replace_file(path: Path, text: str) -> None:
    """Write a file with mode 0600 so that a reader sees the old or the new, never half. Raises OSError."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        name = Path(file.name)
        try:
            file.write(text)
            file.close()
            name.replace(path)
        except OSError:  # on a full disk nothing must pile up
            name.unlink(missing_ok=True)
            raise


def segment_name(offset: int) -> str:
    """File name of the segment that begins at `offset`."""
    return f"{offset:020d}{SEGMENT_SUFFIX}"


def segments(folder: Path) -> list[tuple[int, Path]]:
    """The stream's segments as (first offset, path), in order."""
    found = [path for path in folder.iterdir() if path.suffix == SEGMENT_SUFFIX and path.stem.isdigit()]
    return sorted((int(path.stem), path) for path in found)


def default_root() -> Path:
    """Where spools are kept unless init(dir=...) or RUNTIDE_DIR says otherwise."""
    if told := os.environ.get("RUNTIDE_DIR"):
        return Path(told).expanduser().absolute()
    home = os.environ.get("RUNTIDE_HOME") or "~/.runtide"
    return Path(home).expanduser().absolute() / "spool"


def tls_files(env: Mapping[str, str]) -> tuple[str, str, str]:
    """What RUNTIDE_CA_FILE, RUNTIDE_CERT_FILE and RUNTIDE_KEY_FILE say, empty where nothing is needed.

    Raises BadInput for a certificate without its key, or a key without its certificate.
    """
    pair = ("RUNTIDE_CERT_FILE", "RUNTIDE_KEY_FILE")
    for given, missing in (pair, pair[::-1]):
        if env.get(given) and not env.get(missing):
            raise BadInput(given, repr(env[given]), f"it needs the other one of the pair too: set {missing}")
    ca_file, cert_file, key_file = (
        str(Path(file).absolute()) if (file := env.get(name)) else "" for name in ("RUNTIDE_CA_FILE", *pair)
    )
    return ca_file, cert_file, key_file


def host_key() -> str:
    """Name of this host, boot and pid namespace: pids and locks mean something only within one."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()) or "host"
    return f"{host}-{_boot_id()[:8]}-{_pid_namespace()}"


def host_folder(root: Path) -> Path:
    """The folder of this host's streams within a spool root, which may be shared between hosts."""
    return root / host_key()


def host_folders(root: Path) -> list[Path]:
    """The folders of all hosts that have streams within a spool root."""
    return sorted({path.parent.parent for path in root.glob(f"*/*/{STREAM_FILE}")})


def runtime_folder(root: Path) -> Path:
    """Where the agent of a spool root has its lock and socket: local to the host, since flock on NFS acts across hosts.

    Short, because a unix socket's path may have no more than about 100 characters. Not by XDG_RUNTIME_DIR or TMPDIR:
    these differ between a login, a batch job and a cron job of one user, whose processes must find the same agent.
    """
    import hashlib

    base = Path("/tmp")  # noqa: S108  the folder below it is private, and its owner is checked
    name = hashlib.sha256(str(host_folder(root)).encode()).hexdigest()[:16]
    return base / f"runtide-{os.getuid()}" / name


def private_folder(folder: Path) -> None:
    """Make a folder, and its parent, that only its owner may enter.

    Raises PermissionError where it is not so: see `check_private`.
    """
    for each in (folder.parent, folder):
        with contextlib.suppress(FileExistsError):  # no folder, or a link to nowhere
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
    check_private(folder)


def check_private(folder: Path) -> None:
    """See that a folder and its parent are this user's alone: what is said there may hold a token.

    Raises PermissionError where one is another user's, open to others, or a link; FileNotFoundError where none is.
    """
    for each in (folder.parent, folder):
        found = each.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise PermissionError(f"{each} is no folder that only this user may enter")


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    except OSError:  # macOS: the time of boot does as well
        import psutil

        return f"{int(psutil.boot_time()):08x}"


def _pid_namespace() -> str:
    try:
        return re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))  # noqa: PTH115  not a path to follow
    except OSError:
        return "0"
