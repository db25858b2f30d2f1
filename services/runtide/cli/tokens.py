"""Tokens as the command line keeps them, in the control store of the home or of Kafka."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runtide.bus.control import Control
from runtide.cli.parts import control_of, kafka_settings
from runtide.cli.settings import Settings, read_settings
from runtide.gateway.tokens import KEY, PREFIX, Token, new_token, revoked, tokens_of, when
from runtide.wire import limits
from runtide.wire.errors import BadInput, RuntideError
from runtide.wire.roles import Role

_UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class UnknownTokenId(RuntideError):
    """There is no token with this id."""

    code = "unknown_token_id"


def create(home: Path | None, project: str, role: Role, name: str, expires: str | None) -> tuple[Token, str]:
    """Make a token and keep its hash. Raises BadInput and Unavailable."""
    size = len(name.encode("utf-8", "replace"))
    if size > limits.IDENTITY_BYTES or not name.isprintable():
        raise BadInput("--name", f"{size} bytes long", f"it has at most {limits.IDENTITY_BYTES} printable bytes")
    ends = None if expires is None else read_expiry(expires, time.time())
    token, text = new_token(project, role, name, ends)
    settings = read_settings(home)
    control = _control(settings, home)
    asyncio.run(_put(control, settings, token, here=home is not None))
    return token, text


def listed(home: Path | None, project: str | None) -> list[Token]:
    """Tokens of one project, or of all, the newest first. Raises BadInput and Unavailable."""
    found = tokens_of(asyncio.run(_control(read_settings(home), home).read())).values()
    wanted = [token for token in found if project in (None, token.project)]
    return sorted(wanted, key=lambda token: (-token.created, token.id))


def revoke(home: Path | None, token_id: str) -> Token:
    """End a token. Raises UnknownTokenId, BadInput and Unavailable."""
    if token_id.startswith(f"{PREFIX}_"):
        # not shown: it may be the whole token
        raise BadInput("ID", "a whole token", "only its id is needed, the part between the underscores")
    control = _control(read_settings(home), home)
    known = tokens_of(asyncio.run(control.read())).get(token_id)
    if known is None:
        raise UnknownTokenId(f"there is no token {token_id}: `runtide token list` shows their ids")
    ended = revoked(known)
    asyncio.run(control.put(KEY + ended.id, ended.entry()))
    return ended


def row(token: Token) -> dict[str, Any]:
    """What people and programs see of a token."""
    return {
        "id": token.id,
        "project": token.project,
        "role": str(token.role),
        "name": token.name,
        "created": when(token.created),
        "expires": None if token.expires is None else when(token.expires),
        "revoked": None if token.revoked is None else when(token.revoked),
        "good": not token.why_not(time.time()),
    }


def read_expiry(text: str, now: float) -> int:
    """Read 30d, 12h, or an ISO date or time, as UTC where it says no zone. Raises BadInput."""
    allowed = "it is a time to come: 30d, 12h, 2030-01-31 or 2030-01-31T12:00Z"
    if found := re.fullmatch(r"(\d{1,6})([mhdw])", text):
        ends = now + int(found[1]) * _UNITS[found[2]]
    else:
        try:
            told = datetime.fromisoformat(text)
        except ValueError:
            raise BadInput("--expires", repr(text), allowed) from None
        ends = (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
    if ends <= now:
        raise BadInput("--expires", text, allowed)
    return int(ends)


def _control(settings: Settings, home: Path | None) -> Control:
    return control_of(settings, here=home is not None)


async def _put(control: Control, settings: Settings, token: Token, *, here: bool) -> None:
    if settings.kafka.bootstrap and not here:
        from runtide.bus.kafka import ensure_topics

        await ensure_topics(kafka_settings(settings), settings.kafka.send_timeout_s)
    await control.put(KEY + token.id, token.entry())
