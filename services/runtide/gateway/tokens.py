"""Tokens: what is known of them, and which one a caller holds.

Kept as SHA-256 only, compared in constant time, never logged. A token is `runtide_ID_SECRET`: the id, which is no
secret, finds the record, so that judging one call does not depend on how many tokens there are.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from runtide.wire import limits
from runtide.wire.errors import BadInput, NotAllowed
from runtide.wire.roles import Role

log = logging.getLogger(__name__)

DEFAULT_PROJECT = "default"
"""The project of who names none, where there are no tokens."""
PREFIX = "runtide"
"""What every token begins with, so that scanners for leaked secrets know it."""
KEY = "token/"
"""Of a token's entry in the control store; its id follows."""

_NOBODY = hashlib.sha256(secrets.token_bytes(32)).hexdigest()
"""What an unknown id is compared with, so that it takes as long as a known one."""


class UnknownToken(NotAllowed):
    """The token is missing, not known, expired or revoked: gRPC's UNAUTHENTICATED."""

    code = "unknown_token"


@dataclass(frozen=True, slots=True)
class Token:
    """What is kept of a token. Times are seconds since the epoch."""

    id: str
    project: str
    role: Role
    sha256: str
    created: int
    name: str = ""
    expires: int | None = None
    revoked: int | None = None

    def why_not(self, now: float) -> str:
        """Return "" while the token is good, else why it is not."""
        if self.revoked is not None:
            return f"was revoked at {when(self.revoked)}"
        if self.expires is not None and now >= self.expires:
            return f"has expired at {when(self.expires)}"
        return ""

    @property
    def signature(self) -> str:
        """Who has it, for what is kept of a decision: id, role and name if any, cut to the size of an actor."""
        whole = f"{self.id} {self.role} {self.name}".rstrip()
        return whole.encode("utf-8", "replace")[: limits.IDENTITY_BYTES].decode("utf-8", "ignore")

    def entry(self) -> dict[str, Any]:
        """The token for the control store."""
        return asdict(self)

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Token:
        """Read an entry. Raises ValueError, KeyError and TypeError."""
        return cls(
            id=str(entry["id"]),
            project=check_project(str(entry["project"])),
            role=Role(entry["role"]),
            sha256=bytes.fromhex(entry["sha256"]).hex(),
            created=int(entry["created"]),
            name=str(entry.get("name") or ""),
            expires=None if entry.get("expires") is None else int(entry["expires"]),
            revoked=None if entry.get("revoked") is None else int(entry["revoked"]),
        )


def when(seconds: int) -> str:
    """A time for people and programs."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def new_token(
    project: str, role: Role, name: str = "", expires: int | None = None, now: float | None = None
) -> tuple[Token, str]:
    """Make a token; its text is returned beside it and kept nowhere. Raises BadInput."""
    number = secrets.token_hex(6)
    text = f"{PREFIX}_{number}_{secrets.token_urlsafe(32)}"
    created = int(time.time() if now is None else now)
    return Token(number, check_project(project), role, hash_token(text), created, name, expires), text


def revoked(token: Token, now: float | None = None) -> Token:
    """The token as it is from now on; a revocation keeps its first time."""
    return token if token.revoked is not None else replace(token, revoked=int(time.time() if now is None else now))


def check_project(project: str) -> str:
    """Return a name that can be a project's. Raises BadInput."""
    size = len(project.encode("utf-8", "replace"))
    if not 0 < size <= limits.IDENTITY_BYTES:
        raise BadInput("project", f"{size} bytes long", f"it has 1 to {limits.IDENTITY_BYTES} bytes")
    if project != project.strip() or not project.isprintable() or "/" in project:
        raise BadInput("project", repr(project), "it has printable characters without '/', and no space at its ends")
    return project


def hash_token(token: str) -> str:
    """What is kept of a token's text."""
    return hashlib.sha256(token.encode()).hexdigest()


def tokens_of(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Token]:
    """The tokens among the entries of a control store, by id; one that cannot be read lets nobody in."""
    found = {}
    for key, entry in entries.items():
        if not key.startswith(KEY):
            continue
        try:
            token = Token.of(entry)
        except (ValueError, KeyError, TypeError, BadInput):
            log.warning("token_entry_not_understood key=%s", ascii(key[:64]))
            continue
        found[token.id] = token
    return found


class TokenBook:
    """All tokens, in memory: whatever becomes of the store, who was let in stays in. For one event loop."""

    def __init__(self, tokens: Iterable[Token] = (), clock: Callable[[], float] = time.time) -> None:
        self._tokens = {token.id: token for token in tokens}
        self._clock = clock
        self.used = bool(self._tokens)
        """Whether there has ever been a token, revoked and expired ones among them. Never becomes false again."""

    def learn(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over what the control store holds now."""
        self._tokens = tokens_of(entries)
        self.used = self.used or any(key.startswith(KEY) for key in entries)

    def find(self, text: str) -> Token:
        """Return the token with this text. Raises UnknownToken."""
        hint = "(in the job: RUNTIDE_TOKEN or init(token=...))"
        if not text:
            raise UnknownToken(f"a token is needed: metadata authorization: Bearer ... {hint}")
        token = self._tokens.get(_id_of(text))
        fits = hmac.compare_digest(hash_token(text), token.sha256 if token else _NOBODY)
        if token is None or not fits:
            raise UnknownToken(f"the token is not known {hint}")
        if why := token.why_not(self._clock()):
            raise UnknownToken(f"the token {why}: `runtide token create` makes another {hint}")
        return token


def _id_of(text: str) -> str:
    parts = text.split("_", 2)
    return parts[1] if len(parts) == 3 and parts[0] == PREFIX else ""


def bearer(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the token of a call's metadata, "" where there is none."""
    for key, value in metadata:
        if key == "authorization" and isinstance(value, str):
            kind, _, token = value.partition(" ")
            if kind.lower() == "bearer":
                return token.strip()
    return ""
