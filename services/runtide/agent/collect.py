"""What a run ran on, collected beside the job: host, devices, packages, and what git knows. Pure but for reading.

Promises: the packages are those that the job can import, whatever environment the agent runs in; what cannot be read
is left out and named in `notes`, and the rest is said. Of a job that began long ago only its own word is handed on: the
files may have changed since.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, TypeVar

import psutil

from runtide.agent.git import PATCH, Repository
from runtide.spool.capture import CaptureTask
from runtide.v1.records_pb2 import Environment, Fingerprint, Record, SourceFile
from runtide.wire.limits import RECORD_BYTES
from runtide.wire.secrets import without_user
from runtide.wire.source_files import kept

LATE_S = 300.0
"""After so long what lies on the disk may not be what ran."""
LOCK = "requirements.lock"
_NAME = re.compile(r"^Name:\s*(\S+)", re.MULTILINE)
_VERSION = re.compile(r"^Version:\s*(\S+)", re.MULTILINE)
Found = TypeVar("Found")
_CONTAINER_ID = re.compile(r"\b[0-9a-f]{64}\b")


def collect(task: CaptureTask) -> Iterator[Record]:
    """All that is to be said of a task, the environment first."""
    notes: list[str] = []
    now_us = time.time_ns() // 1000
    facts: dict[str, Any] = dict(task.facts)
    if now_us - task.time_us > LATE_S * 1e6:
        notes.append("collected too late: packages, devices and uncommitted changes are not known")
        yield _environment(facts, notes, task.time_us)
        return
    files: list[SourceFile] = []
    lines = _try(lambda: packages(task.search, notes), notes, "packages") or {}
    facts |= _try(_host, notes, "host") or {}
    facts |= _try(_devices, notes, "devices") or {}
    facts |= _try(_container, notes, "container") or {}
    facts["image"] = task.facts.get("image") or facts.get("image", "")
    facts["packages"] = {name: version for name, (version, _) in lines.items()}
    repository = _try(lambda: Repository.around(Path(task.folder)), notes, "git")
    if repository is not None:
        since = task.facts.get("git", {}).get("commit", "")  # what is committed since then ran as well
        files += _try(lambda: list(repository.patch(now_us, since)), notes, "patch") or []
        files += _try(lambda: list(repository.untracked(now_us, task.leave_out)), notes, "untracked files") or []
        facts["git"] = _git(task.facts.get("git", {}), repository, files)
    lock = "".join(f"{line}\n" for _, (_, line) in sorted(lines.items(), key=lambda item: item[0].lower()))
    files += kept(LOCK, "lock", lock.encode(), now_us)
    yield _environment(facts, notes, now_us)
    for file in files:
        yield Record(source_file=file)
    yield Record(
        fingerprint=Fingerprint(
            time_us=now_us,
            code=_code(facts.get("git", {}).get("commit", ""), task.entry, files),
            environment=_digest(*(json.dumps(facts.get(name), sort_keys=True) for name in _SAME)),
        )
    )


_SAME = ("implementation", "python", "machine", "packages", "gpus")
"""What has to be equal for two environments to be the same."""


def packages(search: Sequence[str], notes: list[str]) -> dict[str, tuple[str, str]]:
    """Name to version and line of a requirements file, of what is found first along a path; one broken costs no other.

    What is broken is named in `notes`.
    """
    found: dict[str, tuple[str, str]] = {}
    for each in distributions(path=list(search)):
        try:
            text = each.read_text("METADATA") or each.read_text("PKG-INFO") or ""
        except (OSError, ValueError) as error:
            notes.append(f"packages: {getattr(each, '_path', each)}: {error}"[:500])
            continue
        head = text.partition("\n\n")[0]
        if (name := _NAME.search(head)) and (version := _VERSION.search(head)):
            found.setdefault(name[1], (version[1], _line(name[1], version[1], each)))
    return found


def _line(name: str, version: str, of: Distribution) -> str:
    """How to install it again. One that was installed from elsewhere than an index says so in direct_url.json."""
    try:
        origin = json.loads(of.read_text("direct_url.json") or "{}")
        url, vcs = str(origin.get("url", "")), origin.get("vcs_info", {})
        if vcs:
            return f"{name} @ {vcs['vcs']}+{without_user(url)}@{vcs['commit_id']}"
        if url.startswith("file:"):
            return f"# {name}=={version} from {url}"
        return f"{name} @ {without_user(url)}" if url else f"{name}=={version}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{name}=={version}"


def _host() -> dict[str, Any]:
    found: dict[str, Any] = {
        "os": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cpus": os.cpu_count() or 0,
        "memory_bytes": psutil.virtual_memory().total,
    }
    try:
        found["distribution"] = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:  # macOS, and images without /etc/os-release
        found["distribution"] = ""
    return found


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor()


def _devices() -> dict[str, Any]:
    """Names of the NVIDIA devices, and the versions of driver and CUDA; empty where there is no driver."""
    import pynvml as nvml

    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return {"gpus": []}
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(at) for at in range(nvml.nvmlDeviceGetCount())]
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
        return {
            "gpus": [_text(nvml.nvmlDeviceGetName(handle)) for handle in handles],
            "driver": _text(nvml.nvmlSystemGetDriverVersion()),
            "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}",
        }
    finally:
        nvml.nvmlShutdown()


def _container() -> dict[str, Any]:
    """Which container this is, as far as it can be known from inside."""
    found: dict[str, Any] = {}
    if (podman := Path("/run/.containerenv")).exists():
        image = re.search(r'^image="(.+)"$', podman.read_text(), re.MULTILINE)
        found = {"container": "podman", "image": image[1] if image else ""}
    elif Path("/.dockerenv").exists():
        found = {"container": "docker"}
    try:
        told = Path("/proc/self/cgroup").read_text() + Path("/proc/self/mountinfo").read_text()
    except OSError:
        told = ""
    if found and (number := _CONTAINER_ID.search(told)):
        found["container_id"] = number[0]
    return found


def _git(told: Mapping[str, Any], found: Repository, files: Sequence[SourceFile]) -> dict[str, Any]:
    """The job's own word wins: it looked first."""
    commit = told.get("commit") or found.commit
    branch = told.get("branch") or found.branch
    remote = told.get("remote") or found.remote
    dirty = any(file.kind == "patch" for file in files)
    return {"commit": commit, "branch": branch, "remote": remote, "root": str(found.root), "dirty": dirty}


def _code(commit: str, entry: str, files: Sequence[SourceFile]) -> str:
    """Digest of the code: what is committed, what is changed, and untracked Python files, which may be imported."""
    patch = next((file.digest or file.note for file in files if file.path == PATCH), "")  # not known is not clean
    modules = {f"{file.path} {file.digest}" for file in files if file.kind == "untracked" and file.path.endswith(".py")}
    return _digest(commit, patch, entry, *sorted(modules)) if commit or patch or entry or modules else ""


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()


def _environment(facts: dict[str, Any], notes: list[str], time_us: int) -> Record:
    said = facts | {"notes": notes}
    text = json.dumps(said, ensure_ascii=False)
    for name in ("variables", "packages", "command"):  # what is too large for a record is also in the lock
        if len(text.encode("utf-8", "replace")) > RECORD_BYTES // 2:
            notes.append(f"{name} left out: too large")
            said[name] = [] if name == "command" else {}
            text = json.dumps(said, ensure_ascii=False)
    return Record(environment=Environment(time_us=time_us, json=text.encode("utf-8", "replace").decode()))


def _try(read: Callable[[], Found], notes: list[str], what: str) -> Found | None:
    try:
        return read()
    except Exception as error:  # whatever is broken there, the rest is worth saying
        notes.append(f"{what}: {type(error).__name__}: {error}"[:500])
        return None


def _text(told: str | bytes) -> str:
    return told.decode("utf-8", "replace") if isinstance(told, bytes) else told
