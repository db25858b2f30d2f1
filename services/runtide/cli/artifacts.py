"""What `runtide artifact` does: find versions in SQL, fetch their files from the gateway, and check them.

Promises: a file stands in the folder under its name only when all of it is there and its sha256 is right; a fetch that
was cut off goes on where it was; a name in a manifest never leads out of the folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from runtide.agent.gateway import Failure, GatewayClient, Verdict
from runtide.cli.pushing import connected, gateway_url
from runtide.cli.store import rows
from runtide.cli.tables import print_table
from runtide.v1.artifacts_pb2 import DownloadRequest
from runtide.warehouse.client import Client
from runtide.wire.errors import BadInput, NotAllowed, RuntideError, Unavailable

TRIES = 5
RETRY_S = 1.0
PART = ".part"

Row = dict[str, Any]

_LIST = """
SELECT project, name, version, aliases, kind, run_id, time, digest, size, files, uri, step, metric, value, metadata
FROM runtide.artifacts
WHERE ({project:String} = '' OR project = {project:String}) AND ({name:String} = '' OR name = {name:String})
ORDER BY project, name, version
"""
_FILES = """
SELECT path, digest, size FROM runtide.artifact_files
WHERE project = {project:String} AND name = {name:String} AND version = {version:UInt32} ORDER BY path
"""
SHOWN = ("project", "name", "version", "aliases", "kind", "size", "files", "step", "value", "run_id", "time", "digest")


class UnknownArtifact(RuntideError):
    """No artifact, or more than one, is meant."""

    code = "unknown_artifact"


class DamagedArtifact(RuntideError):
    """What is stored is not what was logged, or is not there."""

    code = "damaged_artifact"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file to fetch."""

    path: str
    digest: str


def versions(client: Client, project: str | None, name: str = "") -> list[Row]:
    """All versions, or those of one name."""
    return rows(client, _LIST, project=project or "", name=name)


def print_versions(found: Sequence[Row]) -> None:
    """Show `versions` to people."""
    print_table([{name: row[name] for name in SHOWN} for row in found], empty="no artifacts")


def find(client: Client, which: str, project: str | None) -> Row:
    """The version that NAME, NAME:VERSION or NAME:ALIAS means. Raises UnknownArtifact."""
    name, _, version = which.partition(":")
    found = versions(client, project, name)
    if not found:
        raise UnknownArtifact(f"there is no artifact {name}; see `runtide artifact list`")
    if len({row["project"] for row in found}) > 1:
        raise UnknownArtifact(f"{name} is in several projects: give --project")
    number = version.removeprefix("v")
    wanted = [row for row in found if row["version"] == int(number)] if number.isdigit() else []
    wanted = wanted or [row for row in found if (version or "latest") in row["aliases"]]
    if not wanted:
        known = ", ".join(f"v{row['version']}" for row in found[-10:])
        raise UnknownArtifact(f"{name} has no version or alias {version}; it has {known}")
    return wanted[0]


class Store:
    """The gateway that keeps the contents."""

    def __init__(self, runner: asyncio.Runner, client: GatewayClient) -> None:
        self._runner, self._client = runner, client

    def fetch(self, project: str, digest: str, target: Path) -> int:
        """Write a content to a file, checked; returns its bytes. Raises DamagedArtifact, Unavailable, NotAllowed."""
        part = target.with_name(f".{digest[:16]}{PART}")
        part.parent.mkdir(parents=True, exist_ok=True)
        for left in reversed(range(TRIES)):
            try:
                size = self._runner.run(self._append(project, digest, part))
                break
            except Failure as failure:
                _judge(failure, last=not left)
                self._runner.run(asyncio.sleep(failure.delay_s or RETRY_S))
        with part.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            part.unlink()
            raise DamagedArtifact(f"what came for {digest} has sha256 {found}: it is thrown away")
        part.replace(target)
        return size

    async def _append(self, project: str, digest: str, part: Path) -> int:
        with part.open("ab") as file:
            request = DownloadRequest(project=project, digest=digest, offset=file.tell())
            async for each in self._client.download(request):
                file.write(each.data)
            return file.tell()

    def check(self, project: str, digest: str) -> int:
        """Read a content and throw it away; returns its bytes. Raises as `fetch`."""

        async def read() -> tuple[str, int]:
            found, size = hashlib.sha256(), 0
            async for each in self._client.download(DownloadRequest(project=project, digest=digest)):
                found.update(each.data)
                size += len(each.data)
            return found.hexdigest(), size

        try:
            found, size = self._runner.run(read())
        except Failure as failure:
            _judge(failure, last=True)
            raise
        if found != digest:
            raise DamagedArtifact(f"what came for {digest} has sha256 {found}")
        return size


def _judge(failure: Failure, *, last: bool) -> None:
    """Raise what a failed call is for people; return where it may be tried again."""
    if failure.damaged or failure.missing:
        raise DamagedArtifact(failure.text) from failure
    if failure.verdict is Verdict.NOT_ALLOWED:
        raise NotAllowed(f"{failure.text}: set RUNTIDE_TOKEN to a token of this project") from failure
    if failure.verdict is Verdict.REFUSED:
        raise BadInput("the request", "refused", failure.text) from failure
    if last:
        raise Unavailable(failure.text) from failure


@contextlib.contextmanager
def store(home: Path | None, url: str | None) -> Iterator[Store]:
    """The gateway, with the token and the TLS files that the environment names."""
    with connected(url or gateway_url(home)) as (runner, client):
        yield Store(runner, client)


def get(client: Client, gateway: Store, row: Row, folder: Path) -> list[Row]:
    """Fetch all files of a version into a folder; returns them. Raises BadInput, DamagedArtifact and Unavailable."""
    if row["uri"]:
        raise BadInput(f"artifact {row['name']}", "registered only", f"the gateway does not keep it: get {row['uri']}")
    project = row["project"]
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for wanted in _files(client, gateway, row, folder):
        target = folder / inside(wanted.path)
        found.append(
            {"path": str(target), "digest": wanted.digest, "size": gateway.fetch(project, wanted.digest, target)}
        )
    return found


def _files(client: Client, gateway: Store, row: Row, folder: Path) -> list[Wanted]:
    """What a version is made of: its one file, or what its manifest says."""
    told = {"project": row["project"], "name": row["name"], "version": row["version"]}
    listed = [Wanted(each["path"], each["digest"]) for each in rows(client, _FILES, **told)]
    if len(listed) == 1 and listed[0].digest == row["digest"]:
        return listed
    manifest = folder / f".manifest-{row['digest'][:16]}"
    gateway.fetch(row["project"], row["digest"], manifest)
    try:
        return [Wanted(each["path"], each["digest"]) for each in json.loads(manifest.read_text())["files"]]
    finally:
        manifest.unlink()


def inside(path: str) -> PurePosixPath:
    """A path of a manifest. Raises DamagedArtifact where it leads elsewhere: who wrote it may mean harm."""
    found = PurePosixPath(path)
    if found.is_absolute() or not found.parts or ".." in found.parts or "\0" in path:
        raise DamagedArtifact(f"the manifest names {path!r}, which is no place below the folder")
    return found


def check(client: Client, gateway: Store, found: Sequence[Row]) -> list[Row]:
    """Read all contents of versions and say of each whether it is there and right."""
    known: dict[tuple[str, str], str] = {}
    judged = []
    for row in found:
        digests = {each["digest"] for each in rows(client, _FILES, **{name: row[name] for name in _KEY})}
        problems = []
        for digest in () if row["uri"] else sorted(digests | {row["digest"]}):
            key = (row["project"], digest)
            if key not in known:
                known[key] = ""
                try:
                    gateway.check(*key)
                except DamagedArtifact as error:
                    known[key] = str(error)
            if known[key]:
                problems.append(known[key])
        state = "elsewhere" if row["uri"] else "damaged" if problems else "ok"
        judged.append({name: row[name] for name in (*_KEY, "digest", "size")} | {"state": state, "problems": problems})
    return judged


_KEY = ("project", "name", "version")
