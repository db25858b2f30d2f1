"""Files that a run makes or uses: models, checkpoints, data. They are copied here, and uploaded by the agent.

Promises: the job waits for the copy on the local disk and for nothing else, neither hashing nor the network; what is
uploaded is the file as it was at the call, whatever is written to it later, so it is never a hard link.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import stat
import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from runtide.sdk import values
from runtide.sdk.speaking import Speaker
from runtide.sdk.stream import Stream, as_step
from runtide.spool.artifacts import ARTIFACTS_DIR, DATA, ArtifactTask, Done, Sent, named
from runtide.v1.records_pb2 import ArtifactRef, Record
from runtide.wire import limits
from runtide.wire.errors import BadInput

KEPT_ALIASES = ("latest", "best", "last")
"""These move by themselves."""
METADATA_BYTES = 64 * limits.KIB
_FICLONE = 0x40049409
_POLL_SECONDS = 0.02


class LoggedArtifact:
    """What log_artifact() returns: where the upload is."""

    def __init__(self, name: str) -> None:
        """It is not taken yet."""
        self.name = name
        self._folder: Path | None = None
        self._refused = "it was refused, see the warnings of the job"

    def _taken(self, folder: Path | None = None) -> None:
        """It is kept; `folder` is where the copy waits, None where there is nothing to upload."""
        self._folder, self._refused = folder, ""

    @property
    def digest(self) -> str:
        """The content's sha256, once it is stored; of a folder that of its list of files."""
        done = Done.read(self._folder) if self._folder is not None else None
        return done.digest if done else ""

    @property
    def error(self) -> str:
        """Why it is not stored yet, or never will be; empty while all is well."""
        if self._folder is None:
            return self._refused
        done = Done.read(self._folder)
        return done.error if done else Sent.read(self._folder).error

    @property
    def done(self) -> bool:
        """Nothing more will become of it: it is stored, or refused (see `error`)."""
        return self._folder is None or Done.read(self._folder) is not None

    def wait(self, timeout: float = 60.0) -> bool:
        """Wait until it is stored. False: not in time, or refused."""
        deadline = time.monotonic() + timeout
        while not self.done and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return self.done and not self.error

    def __repr__(self) -> str:
        return f"<artifact {self.name}>"


class Artifacts(Speaker):
    """The part of a run that says artifacts. What is abstract is the run's."""

    _uploads: list[LoggedArtifact]

    def log_artifact(
        self,
        path: str | os.PathLike[str] | None = None,
        name: str | None = None,
        kind: str = "file",
        metadata: Mapping[str, Any] | None = None,
        aliases: Iterable[str] = (),
        step: int | None = None,
        *,
        uri: str = "",
        digest: str = "",
        size: int = 0,
    ) -> LoggedArtifact:
        """Keep a file or a folder as a version of artifact `name`; returns when it is copied into the spool.

        The agent uploads the copy, and the same content never twice. With `uri` instead of a path nothing is uploaded:
        what lies there is registered, with `digest` (its sha256) where that is known.
        """
        logged = LoggedArtifact(name or "")
        self._guard(self._artifact, logged, path, uri, digest, size, _Said(name, kind, metadata, aliases, step))
        return logged

    def log_checkpoint(
        self,
        path: str | os.PathLike[str],
        step: int | None = None,
        metric: str = "",
        value: float | None = None,
        goal: Literal["min", "max"] = "min",
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> LoggedArtifact:
        """Keep a checkpoint; without a step it is that of the last log(), without a name checkpoint-RUN.

        Those of one name are a series: `last` has the highest step, `best` the best `value` of `metric`.
        """
        named = name or f"checkpoint-{self.run_id}"
        logged = LoggedArtifact(named)
        at = self._last_step() if step is None else step
        said = _Said(named, "checkpoint", metadata, (), at, metric, value, goal)
        self._guard(self._artifact, logged, path, "", "", 0, said)
        return logged

    def use_artifact(self, name: str, digest: str = "") -> None:
        """Say that this run uses an artifact: NAME, NAME:VERSION such as model:v3, or NAME:ALIAS.

        Without `digest` a name without a version means the latest one at this moment, as the store knows it.
        """
        self._guard(self._use, name, digest)

    @property
    @abstractmethod
    def run_id(self) -> str:
        """The run's id."""

    @abstractmethod
    def _out(self) -> Stream | None:
        """This process's stream."""

    def _artifact(
        self, logged: LoggedArtifact, path: str | os.PathLike[str] | None, uri: str, digest: str, size: int, said: _Said
    ) -> None:
        if (path is None) == (not uri):
            raise BadInput("path and uri", "both or neither given", "an artifact has one of them")
        source = None if path is None else Path(path)
        logged.name = said.name = said.name or (
            source.absolute().name if source else uri.rstrip("/").rpartition("/")[2]
        )
        said.check()
        if self._disabled:
            logged._taken()
        elif source is None:
            ref = ArtifactRef(time_us=_now_us(), name=said.name, kind=said.kind, digest=digest, size=size, uri=uri)
            ref.json = json.dumps(said.facts())
            self._say(Record(artifact_ref=ref))
            logged._taken()
        elif (stream := self._out()) is not None:
            folder = _keep(stream.writer.folder, source, said)
            logged._taken(folder)
            self._uploads.append(logged)
            pending = json.dumps({"of": named(folder), "pending": True})
            ref = ArtifactRef(time_us=_now_us(), name=said.name, kind=said.kind, json=pending)
            self._say(Record(artifact_ref=ref))  # so that nobody thinks that this is all, before it is there

    def _use(self, name: str, digest: str) -> None:
        if self._disabled:
            return
        known, _, which = name.partition(":")
        if problem := values.name_problem("an artifact", known):
            raise problem
        ref = ArtifactRef(time_us=_now_us(), name=known, digest=digest, used=True)
        ref.json = json.dumps({"which": which or "latest"})
        self._say(Record(artifact_ref=ref))

    def _wait_for_uploads(self, deadline: float) -> int:
        """Wait for what is being uploaded; returns how many are left."""
        for each in self._uploads:
            each.wait(max(0.0, deadline - time.monotonic()))
        return sum(not each.done for each in self._uploads)


class _Said:
    """What is said of an artifact, checked."""

    def __init__(
        self,
        name: str | None,
        kind: str,
        metadata: Mapping[str, Any] | None,
        aliases: Iterable[str],
        step: int | None,
        metric: str = "",
        value: float | None = None,
        goal: str = "",
    ) -> None:
        self.name, self.kind, self.metadata = name or "", kind, metadata
        self.aliases = (aliases,) if isinstance(aliases, str) else tuple(aliases)
        self.step, self.metric, self.value, self.goal = step, metric, value, goal

    def check(self) -> None:
        """Raise BadInput for what cannot be."""
        for what, text in (("an artifact", self.name), ("a kind", self.kind)):
            if problem := values.name_problem(what, text):
                raise problem
        if ":" in self.name:
            raise BadInput("name", repr(self.name)[:80], "it has no ':', which stands before a version")
        for alias in self.aliases:
            if problem := values.name_problem("an alias", alias):
                raise problem
            if alias in KEPT_ALIASES or alias.removeprefix("v").isdigit():
                raise BadInput("alias", repr(alias)[:80], f"{', '.join(KEPT_ALIASES)} and versions move by themselves")
        self.step = None if self.step is None else as_step(self.step)
        if self.value is not None:
            number = values.number(self.value)
            self.value = number if math.isfinite(number) else None
        if self.goal not in ("", "min", "max"):
            raise BadInput("goal", repr(self.goal)[:80], "it is min or max")
        size = len(self._metadata())
        if size > METADATA_BYTES:
            raise BadInput("metadata", f"{size} bytes long", f"as JSON it has at most {METADATA_BYTES} bytes")

    def _metadata(self) -> str:
        return values.to_json(dict(self.metadata or {}))

    def facts(self) -> dict[str, Any]:
        """As it stands in the record."""
        return {
            "aliases": list(self.aliases),
            "metadata": json.loads(self._metadata()),
            "step": self.step,
            "metric": self.metric,
            "value": self.value,
            "goal": self.goal,
        }


def _keep(stream_folder: Path, source: Path, said: _Said) -> Path:
    """Copy a file or folder into the spool and leave the task. Raises OSError and BadInput; then nothing is left."""
    if not source.exists():
        raise BadInput("path", source, "there is no such file or folder")
    home = stream_folder / ARTIFACTS_DIR
    home.mkdir(mode=0o700, exist_ok=True)
    folder = _next(home)
    try:
        copy = folder / DATA
        size = _copy_folder(source, copy) if source.is_dir() else _copy_file(source, copy)
        task = ArtifactTask(said.name, said.kind, _now_us(), source.absolute().name, size, **said.facts())
        task.write(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _next(home: Path) -> Path:
    number = len(list(home.iterdir()))
    while True:
        with contextlib.suppress(FileExistsError):
            (home / str(number)).mkdir(mode=0o700)
            return home / str(number)
        number += 1


def _copy_folder(source: Path, target: Path) -> int:
    """Copy the files of a folder, links followed; returns their bytes."""
    target.mkdir()
    size = 0
    for base, _, files in os.walk(source, followlinks=False):
        for name in files:
            path = Path(base) / name
            if stat.S_ISREG(path.stat().st_mode):  # no sockets and pipes
                copy = target / path.relative_to(source)
                copy.parent.mkdir(parents=True, exist_ok=True)
                size += _copy_file(path, copy)
    return size


def _copy_file(source: Path, target: Path) -> int:
    """Copy a file, sharing its blocks where the file system can do that; returns its bytes."""
    import fcntl

    with source.open("rb") as old, target.open("xb") as new:
        try:
            fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())  # XFS, btrfs: blocks are shared until written to
        except OSError:
            shutil.copyfileobj(old, new, limits.MIB)
    return target.stat().st_size


def _now_us() -> int:
    return time.time_ns() // 1000
