"""Files that say what ran, as records: masked, cut to what may be kept, in parts that fit a record each.

Pure. `digest` and `size` are of the file as it is, so that equal files are known as equal; what was left out of the
content stands in `note`. Content of files that are made to hold secrets is never taken.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from runtide.v1.records_pb2 import SourceFile
from runtide.wire import limits
from runtide.wire.secrets import holds_secrets, mask_source

PART_BYTES = 192 * limits.KIB
"""Content of one record."""
CONTENT_BYTES = limits.MIB
"""Content of one file, all its parts together."""
PATH_CHARS = 4096
MAY_HOLD_SECRETS = "named only, it may hold secrets"
MASKED = "secrets masked"

_FILES_OF_A_PATCH = re.compile(r"^(?=diff --git )", re.MULTILINE)
_PATCHED = re.compile(r'^diff --git (?:"?a/.*?"? )?"?b/(.*?)"?$', re.MULTILINE)
_BINARY = "\nGIT binary patch\n"


def kept(
    path: str,
    kind: str,
    content: bytes,
    time_us: int,
    *,
    most: int = CONTENT_BYTES,
    note: str = "",
    safe: bytes | None = None,
) -> Iterator[SourceFile]:
    """Say a whole file. `safe` is the content with its secrets masked, where that was done already."""
    if holds_secrets(path):
        yield named(path, kind, time_us, size=len(content), note=MAY_HOLD_SECRETS)  # a digest of few bytes tells them
        return
    digest = hashlib.sha256(content).hexdigest()
    notes = [note] if note else []
    body = content if safe is None else safe
    if truncated := len(body) > most:
        body = body[: body.rfind(b"\n", 0, most) + 1 or most]
        notes.append(f"cut at {len(body)} of {len(content)} bytes")
    text = masked(path, kind, body) if safe is None else body
    if text != body or safe not in (None, content):
        notes.append(MASKED)
    places = range(0, max(1, len(text)), PART_BYTES)
    for part, start in enumerate(places):
        yield SourceFile(
            time_us=time_us,
            path=_utf8(path),
            kind=kind,
            digest=digest,
            size=len(content),
            content=text[start : start + PART_BYTES],
            truncated=truncated,
            note="; ".join(notes),
            part=part,
            parts=len(places),
        )


def named(path: str, kind: str, time_us: int, *, size: int = 0, digest: str = "", note: str) -> SourceFile:
    """Say that a file is there, and why its content was not taken."""
    return SourceFile(
        time_us=time_us, path=_utf8(path), kind=kind, digest=digest, size=size, truncated=True, note=note, parts=1
    )


def masked(path: str, kind: str, content: bytes) -> bytes:
    """Hide what looks like a secret; bytes that are no text stay as they are."""
    text = content.decode("utf-8", "surrogateescape")
    safe = _masked_patch(text) if kind == "patch" else mask_source(path, text)
    return content if safe == text else safe.encode("utf-8", "surrogateescape")


def _masked_patch(text: str) -> str:
    return "".join(_masked_change(change) for change in _FILES_OF_A_PATCH.split(text))


def _masked_change(change: str) -> str:
    """What a patch does to one file. A binary change is no text, though it looks like one."""
    if _BINARY in change:
        return change
    found = _PATCHED.search(change)
    return mask_source(found[1] if found else "", change)


def _utf8(path: str) -> str:
    return path[:PATH_CHARS].encode("utf-8", "replace").decode()
