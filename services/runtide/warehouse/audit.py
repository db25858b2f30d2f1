"""The audit trail: one chain of rows for each project, each row with the SHA-256 of itself and of the row before it.

So whoever alters, removes or adds a row has to write every later hash anew, and then the chain has another head: who
keeps a head elsewhere can tell. `verify` recomputes the chain and names the first row that does not fit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from runtide.warehouse.errors import classified
from runtide.wire.books import CHANGES

PAGE = 10_000
"""Rows that are read at once."""
LISTED = 20
FIRST = "0" * 64
"""What the first row has as the hash of the row before it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the trail."""

    project: str
    seq: int
    """Its place, from 1."""
    time_us: int
    """When the gateway took it, by its clock."""
    actor: str
    subject: str
    kind: str
    reason: str
    before: str
    after: str
    stream: str
    offset: int
    previous: str = ""
    """Hash of the row before it."""
    hash: str = ""

    def digest(self) -> str:
        """What its hash has to be: of the previous hash and of the other fields as JSON, in hex."""
        content = asdict(self)
        previous = content.pop("previous")
        del content["hash"]
        text = json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()


@dataclass(slots=True)
class Verified:
    """What was found of one project's chain."""

    project: str
    rows: int = 0
    seq: int = 0
    """Of the last row that fits."""
    head: str = FIRST
    """Its hash."""
    asked: str = ""
    """The head that was to be looked for."""
    asked_seq: int | None = None
    """Where it is in the chain."""
    problems: list[str] = field(default_factory=list)


_ENTRY = (
    "project, seq, toUnixTimestamp64Micro(time), actor, subject, kind, reason, before, after, stream, offset, previous,"
    " hash"
)
_PAGE = f"""
SELECT {_ENTRY} FROM runtide.audit_rows WHERE project = {{project:String}} AND seq >= {{seq:UInt64}}
ORDER BY seq, hash LIMIT {PAGE} WITH TIES
"""  # noqa: S608  constants
_UNCHAINED = """
SELECT DISTINCT stream, offset FROM runtide.events
WHERE project = {project:String} AND run_id = {book:String} AND kind = 'change' AND (stream, offset) NOT IN
    (SELECT stream, offset FROM runtide.audit_rows WHERE project = {project:String})
ORDER BY stream, offset LIMIT 20
"""
_PROJECTS = f"""
SELECT project FROM runtide.audit_rows UNION DISTINCT
SELECT project FROM runtide.ledger WHERE run_id = '{CHANGES}'
"""  # noqa: S608  constants
_LANDED = f"""
SELECT {_ENTRY} FROM runtide.audit_rows WHERE project = {{project:String}} AND stream = {{stream:String}} ORDER BY seq
"""  # noqa: S608  constants


def projects(client: Client) -> list[str]:
    """Every project in which something was changed."""
    return sorted(str(row[0]) for row in _rows(client, _PROJECTS))


def entries(client: Client, project: str, seq: int = 0) -> Iterator[Entry]:
    """The chain of a project from a place on, in its order."""
    while True:
        page = [Entry(*row) for row in _rows(client, _PAGE, project=project, seq=seq)]
        yield from page
        if len(page) < PAGE:
            return
        seq = page[-1].seq + 1


def landed(client: Client, project: str, stream: str) -> list[Entry]:
    """What is in the chain of one command."""
    return [Entry(*row) for row in _rows(client, _LANDED, project=project, stream=stream)]


def verify(client: Client, project: str, head: str = "") -> Verified:
    """Recompute a chain up to the first row that does not fit; say where a head is in it that was kept elsewhere."""
    found = Verified(project, asked=head.lower())
    for entry in entries(client, project):
        found.rows += 1
        if found.problems:
            continue
        if problem := _misfit(entry, found):
            found.problems.append(f"project {project}: {problem}")
            continue
        found.seq, found.head = entry.seq, entry.hash
        if entry.hash == found.asked:
            found.asked_seq = entry.seq
    for stream, offset in _rows(client, _UNCHAINED, project=project, book=CHANGES):
        found.problems.append(f"project {project}: the change at {offset} of stream {stream} is not in the chain")
    return found


def _misfit(entry: Entry, so_far: Verified) -> str:
    """Why a row cannot stand behind what was read so far; empty where it can."""
    at = f"row seq {entry.seq} ({entry.kind} of {entry.subject}, stream {entry.stream})"
    if entry.seq != so_far.seq + 1:
        return f"{at}: its seq is {entry.seq}, but {so_far.seq + 1} should follow: a row was removed, added or moved"
    if entry.previous != so_far.head:
        return f"{at}: its previous is {entry.previous}, but the hash of the row before it is {so_far.head}"
    if entry.hash != entry.digest():
        return f"{at}: its hash is {entry.hash}, but what it says makes {entry.digest()}: the row was altered"
    return ""


def _rows(client: Client, sql: str, **told: Any) -> Sequence[Sequence[Any]]:
    try:
        return client.query(sql, parameters=told).result_rows
    except (ClickHouseError, OSError) as error:
        raise classified(error) from error
