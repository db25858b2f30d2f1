"""What a run was given: each dataset with its role, its version and the digest of its content.

Promises: the content is read through in the job, in the thread that says it, before use_dataset() returns; what is only
named, by a URI, is said to be so and has no digest unless a version is told.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from runtide.sdk import values
from runtide.sdk.digests import Content, content
from runtide.sdk.speaking import Speaker
from runtide.v1.records_pb2 import DatasetUse, Record
from runtide.wire import limits
from runtide.wire.errors import BadInput
from runtide.wire.secrets import without_user

ROLES = ("train", "validation", "test")
VERSION_CHARS = 12
"""Of the digest, where no version is told."""
_SCHEMA_BYTES = limits.RECORD_BYTES // 2
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Datasets(Speaker):
    """The part of a run that says which data it uses."""

    _datasets: set[tuple[str, ...]]

    def use_dataset(
        self,
        name: str,
        data: Any,
        role: Literal["train", "validation", "test"] = "train",
        version: str | None = None,
    ) -> None:
        """Say which data the run uses: a file or folder, an array, a frame or table, several of them, or a URI.

        The content is read through once to know its SHA-256, which takes 1 to 2 s for 1 GB (texts, and frames of
        polars, 10 s); without `version` the beginning of that is the version. What a URI names is not fetched: give its
        version, or it has no digest. The same data in the same role is recorded once. In a job of many ranks it is
        enough that one says it.
        """
        self._guard(self._use_dataset, name, data, role, version)

    def _use_dataset(self, name: str, data: Any, role: str, version: object) -> None:
        if self._disabled:
            return
        if problem := values.name_problem("a dataset", name):
            raise problem
        if role not in ROLES:
            raise BadInput("role", repr(role)[:80], f"it is one of {', '.join(ROLES)}")
        if version is not None and (problem := values.name_problem("a version", str(version))):
            raise problem
        told = "" if version is None else str(version)
        said = dataset_use(name, data, role, told)
        known = name, role, said.version, said.digest, said.uri if not said.digest else ""
        if known not in self._datasets:
            self._say(Record(dataset_use=said))
            self._datasets.add(known)


def dataset_use(name: str, data: Any, role: str, version: str) -> DatasetUse:
    """Read data through and say what it is. Raises BadInput and OSError."""
    found = _content(data, version)
    said: dict[str, object] = {"kind": found.kind, "schema": found.schema}
    if found.rows is not None:
        said["rows_known"] = True
    if found.note:
        said["note"] = found.note
    text = values.to_json(said)
    if len(text.encode()) > _SCHEMA_BYTES:
        said["schema"], said["note"] = {}, f"a schema of {len(found.schema)} columns is too large to keep"
        text = values.to_json(said)
    return DatasetUse(
        time_us=time.time_ns() // 1000,
        name=name,
        version=version or found.digest[:VERSION_CHARS],
        role=role,
        digest=found.digest,
        rows=found.rows or 0,
        size=found.size,
        uri=found.uri.encode("utf-8", "replace").decode(),
        json=text,
    )


def _content(data: Any, version: str) -> Content:
    if isinstance(data, str):
        if data.startswith("file://"):
            return content(Path(unquote(urlsplit(data).path)))
        return _reference(without_user(data), version) if _SCHEME.match(data) else content(Path(data))
    try:
        return content(data)
    except BadInput:
        if not version or isinstance(data, os.PathLike):
            raise
        kind = type(data)
        return _reference(f"python:{kind.__module__}.{kind.__qualname__}", version)


def _reference(uri: str, version: str) -> Content:
    """What is named and not read: two of them are the same where place and version are."""
    if not version:
        return Content("reference", uri=uri, note="not read, and no version was told: it has no digest")
    digest = hashlib.sha256(f"reference {uri}\n{version}".encode("utf-8", "replace")).hexdigest()
    return Content("reference", digest, uri=uri, note="not read: the digest is of address and version")
