"""Contents by their digest, in any folder or bucket that fsspec knows. Everything here blocks: call it from threads.

    FOLDER/sha256/ab/DIGEST         a content, all of it, its digest checked
    FOLDER/uploads/DIGEST/OFFSET    what an upload has brought so far, in parts of `PART_BYTES`

FOLDER is the project's own, so nobody can learn of another project's contents, or read them, by a digest.

Promises: a content is seen under its digest only when all of it is there and its sha256 is right; a part is whole or
not there, so an upload that was cut off goes on after its last part; nothing needs a lock, since two that bring the
same content write the same parts. Memory: one part a call.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

from runtide.wire import limits
from runtide.wire.errors import BadInput, RuntideError

PART_BYTES = 8 * limits.MIB
"""What an interrupted upload has to send again, at most. S3 counts requests, so not smaller."""
READ_BYTES = limits.MIB
"""One piece of a download."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


class NoContent(RuntideError):
    """The project has no content of this digest: gRPC's NOT_FOUND."""

    code = "no_content"


class Damaged(RuntideError):
    """The bytes are not those that the digest stands for: gRPC's DATA_LOSS."""

    code = "damaged"


class Blobs:
    """The contents of all projects."""

    def __init__(self, url: str, **options: Any) -> None:
        """`url` is a folder, s3://BUCKET/PREFIX or what else fsspec knows; `options` are handed on to that.

        Raises BadInput where that cannot be: another scheme, or a package that it needs is missing.
        """
        local = "://" not in url or url.startswith("file://")
        try:
            fs, root = url_to_fs(url, use_listings_cache=False, **({"auto_mkdir": True} if local else {}), **options)
        except (ImportError, ValueError) as error:
            raise BadInput(
                "RUNTIDE_ARTIFACTS", url, f"it is a folder or a URL that fsspec can open: {error}"
            ) from error
        self._fs: Any = fs
        self._root, self._local = str(root).rstrip("/"), local

    def size(self, project: str, digest: str) -> int | None:
        """How large a stored content is; None where there is none."""
        return self._size(self._whole(project, digest))

    def arrived(self, project: str, digest: str) -> int:
        """How many bytes an unfinished upload has brought, up to the first that is missing."""
        return sum(size for _, size in self._parts(project, digest))

    def put(self, project: str, digest: str, offset: int, data: bytes) -> None:
        """Keep a part; it is there as a whole or not at all."""
        path = self._part(project, digest, offset)
        if self._local:
            self._write_locally(path, data)
        else:
            self._fs.pipe_file(path, data)

    def _write_locally(self, path: str, data: bytes) -> None:
        made = Path(f"{path}.{secrets.token_hex(4)}.new")
        made.parent.mkdir(parents=True, exist_ok=True)
        try:
            made.write_bytes(data)
            made.replace(path)
        except OSError:
            made.unlink(missing_ok=True)
            raise

    def finish(self, project: str, digest: str, size: int) -> None:
        """Put the parts together. Raises Damaged, and forgets them, where they are not what the digest stands for."""
        folder = self._uploads(project, digest)
        made = f"{folder}/whole-{secrets.token_hex(8)}"
        found, length = hashlib.sha256(), 0
        with self._fs.open(made, "wb", block_size=PART_BYTES) as whole:
            for path, _ in self._parts(project, digest):
                data = self._fs.cat_file(path)
                found.update(data)
                length += len(data)
                whole.write(data)
        if length != size or found.hexdigest() != digest:
            self.drop(project, digest)
            raise Damaged(
                f"{length} bytes with sha256 {found.hexdigest()} have come for {digest}, which has {size}; "
                "they are dropped, send it again from its beginning"
            )
        target = self._whole(project, digest)
        if self._local:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
        self._fs.mv(made, target)
        self.drop(project, digest)

    def drop(self, project: str, digest: str) -> None:
        """Forget an unfinished upload."""
        folder = self._uploads(project, digest)
        try:
            self._fs.rm(folder, recursive=True)
        except FileNotFoundError:
            return

    def read(self, project: str, digest: str, offset: int = 0) -> Iterator[bytes]:
        """The content from `offset` on, in pieces; one that is read from its beginning is checked on the way.

        Raises NoContent, and Damaged after the last piece, which is held back then.
        """
        found = hashlib.sha256()
        try:
            file = self._fs.open(self._whole(project, digest), "rb", block_size=PART_BYTES, cache_type="readahead")
        except FileNotFoundError as error:
            raise NoContent(f"the project has no content {digest}") from error
        with file:
            file.seek(offset)
            held = b""
            while piece := file.read(READ_BYTES):
                found.update(piece)
                if held:
                    yield held
                held = piece
        if not offset and found.hexdigest() != digest:
            raise Damaged(f"what is stored as {digest} has sha256 {found.hexdigest()} now: the stored file is damaged")
        if held:
            yield held

    def _size(self, path: str) -> int | None:
        try:
            return int(self._fs.info(path)["size"])
        except FileNotFoundError:
            return None

    def _parts(self, project: str, digest: str) -> list[tuple[str, int]]:
        """Path and size of the parts that follow one another from the beginning."""
        try:
            listed = self._fs.ls(self._uploads(project, digest), detail=True)
        except FileNotFoundError:
            return []
        sizes = {name: int(each["size"]) for each in listed if (name := each["name"].rpartition("/")[2]).isdigit()}
        found: list[tuple[str, int]] = []
        at = 0
        while size := sizes.get(f"{at:020d}", 0):
            found.append((self._part(project, digest, at), size))
            at += size
        return found

    def _whole(self, project: str, digest: str) -> str:
        return f"{self._project(project)}/sha256/{check_digest(digest)[:2]}/{digest}"

    def _uploads(self, project: str, digest: str) -> str:
        return f"{self._project(project)}/uploads/{check_digest(digest)}"

    def _part(self, project: str, digest: str, offset: int) -> str:
        return f"{self._uploads(project, digest)}/{offset:020d}"

    def _project(self, project: str) -> str:
        """A folder that no other project can have, on disks that do not tell A from a either."""
        shown = re.sub(r"[^A-Za-z0-9_-]", "_", project)[:64]
        return f"{self._root}/{shown}-{hashlib.sha256(project.encode()).hexdigest()[:16]}"


def check_digest(digest: str) -> str:
    """Return a digest that can be one. Raises BadInput: it becomes part of a path."""
    if not _DIGEST.fullmatch(digest):
        raise BadInput("digest", repr(digest)[:80], "it is a sha256 in hex: 64 of 0-9 and a-f")
    return digest
