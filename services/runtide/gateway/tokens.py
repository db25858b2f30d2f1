"""Who may speak, and for which project.

Tokens are kept as SHA-256 only, compared in constant time, and never logged. Without tokens everybody is let in: that
is for loopback, and `gateway.settings` refuses it elsewhere.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from runtide.wire.errors import BadInput, NotAllowed

DEFAULT_PROJECT = "default"
"""The project of who names none, where there are no tokens."""


class UnknownToken(NotAllowed):
    """The token is missing or not known: gRPC's UNAUTHENTICATED."""

    code = "unknown_token"


class OtherProject(NotAllowed):
    """The token is good, but for another project: gRPC's PERMISSION_DENIED."""

    code = "other_project"


class Tokens(Protocol):
    """Knows tokens."""

    def check(self, token: str) -> str | None:
        """Return the project that the token belongs to, None if it is not known."""


def hash_token(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class TokenMap:
    """Tokens given as a mapping of SHA-256 (hex) to project."""

    def __init__(self, projects: Mapping[str, str]) -> None:
        self._known = tuple((bytes.fromhex(hashed), project) for hashed, project in projects.items())

    def check(self, token: str) -> str | None:
        """Return the token's project. All entries are compared, whichever fits, so that time tells nothing."""
        asked = hashlib.sha256(token.encode()).digest()
        found = None
        for hashed, project in self._known:
            if hmac.compare_digest(hashed, asked):
                found = project
        return found


class TokenFile(TokenMap):
    """Tokens of a file: one a line, SHA-256 in hex, then the project; # begins a comment. Read once, at the start."""

    def __init__(self, path: Path) -> None:
        """Raises BadInput naming the line that cannot be read, and OSError."""
        super().__init__(_read(path, path.read_text().splitlines()))


def _read(path: Path, lines: Iterable[str]) -> dict[str, str]:
    found = {}
    for number, line in enumerate(lines, start=1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        if len(words) != 2 or not re.fullmatch(r"[0-9a-fA-F]{64}", words[0]):
            # the line itself is not shown: somebody may have put the token there instead of its hash
            raise BadInput(f"{path}:{number}", "unreadable", "a line is the SHA-256 of a token in hex and a project")
        found[words[0].lower()] = words[1]
    return found


def bearer(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the token of a call's metadata, "" where there is none."""
    for key, value in metadata:
        if key == "authorization" and isinstance(value, str):
            kind, _, token = value.partition(" ")
            if kind.lower() == "bearer":
                return token.strip()
    return ""


def project_of(tokens: Tokens | None, token: str, asked: Iterable[str]) -> str | None:
    """Judge one call: the token's project, or None where there are no tokens and each range says its own.

    Raises UnknownToken, and OtherProject where something in `asked` is neither empty nor the token's.
    """
    if tokens is None:
        return None
    project = tokens.check(token)
    if project is None:
        why = "the token is not known" if token else "a token is needed: metadata authorization: Bearer ..."
        raise UnknownToken(f"{why} (in the job: RUNTIDE_TOKEN or init(token=...))")
    for other in asked:
        if other and other != project:
            raise OtherProject(f"the token is for project {project!r}, but project {other!r} was asked for")
    return project
