"""What an artifact's copy is made of: digests and a manifest. It blocks for reading, so call it from a thread.

A folder is its manifest, JSON of its files with their digests in the order of their names: so two folders with the
same files have the same digest, and of a folder of which one file has changed only that file is uploaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READ_BYTES = 1 << 20
LISTED_BYTES = 128 << 10
"""Of the list of files, as JSON, so much stands in the record; a longer one stands in the manifest alone."""


@dataclass(frozen=True, slots=True)
class Content:
    """One thing to upload: a file, or the text of a manifest."""

    digest: str
    size: int
    path: Path | None = None
    text: bytes = b""

    def read(self, offset: int) -> Iterator[bytes]:
        """The bytes from `offset` on, in pieces. Raises OSError."""
        if self.path is None:
            yield from (self.text[at : at + READ_BYTES] for at in range(offset, len(self.text), READ_BYTES))
            return
        with self.path.open("rb") as file:
            file.seek(offset)
            while piece := file.read(READ_BYTES):
                yield piece


@dataclass(frozen=True, slots=True)
class Contents:
    """All that an artifact is made of."""

    digest: str
    """The artifact's: that of its one file, or of its manifest."""
    size: int
    """Of its files."""
    parts: tuple[Content, ...]
    """In the order in which they are uploaded: the manifest last, so that it never tells of what is not there."""
    files: tuple[dict[str, Any], ...]
    folder: bool

    def listed(self) -> dict[str, Any]:
        """What stands of the files in the record."""
        files = list(self.files) if len(json.dumps(self.files)) <= LISTED_BYTES else []
        return {"folder": self.folder, "count": len(self.files), "files": files}


def contents(copy: Path, name: str) -> Contents:
    """Read a copy; `name` is what its file is called. Raises OSError."""
    if copy.is_file():
        one = _content(copy)
        files = ({"path": name, "digest": one.digest, "size": one.size},)
        return Contents(one.digest, one.size, (one,), files, folder=False)
    paths = sorted((path.relative_to(copy).as_posix(), path) for path in copy.rglob("*") if path.is_file())
    parts = {path: _content(file) for path, file in paths}
    listed = tuple({"path": path, "digest": part.digest, "size": part.size} for path, part in parts.items())
    text = json.dumps({"files": listed}, separators=(",", ":"), sort_keys=True).encode("utf-8", "surrogateescape")
    manifest = Content(hashlib.sha256(text).hexdigest(), len(text), text=text)
    size = sum(part.size for part in parts.values())
    once = {part.digest: part for part in parts.values()}
    return Contents(manifest.digest, size, (*once.values(), manifest), listed, folder=True)


def _content(path: Path) -> Content:
    with path.open("rb") as file:
        return Content(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size, path)
