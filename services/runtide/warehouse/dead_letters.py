"""Dead letters and what became of them, for the sink, which judges them again, and for those who only ask.

A letter's row stays as it came; its fates are rows of their own, and the one with the greatest revision holds. A letter
is open until it was replayed or discarded. `taken` is a replay on its way: see `runtide.sink.rulings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from runtide.v1.records_pb2 import KeySet
from runtide.warehouse.errors import classified
from runtide.wire import books

TAKEN, REPLAYED, REFUSED, DISCARDED = "taken", "replayed", "refused", "discarded"
PENDING = "pending"
UNREADABLE = f"{books.UNREADABLE}-"
"""How the stream of a letter begins that is a whole message of the bus, which could not be read."""
DONE = (REPLAYED, DISCARDED)
"""Fates after which nothing more becomes of a letter."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter and its last fate; `fate` is empty where there is none yet."""

    project: str
    run_id: str
    stream: str
    offset: int
    length: int
    kind: str
    reason: str
    """Why it could not be stored, the last time it was tried."""
    rank: int
    host: str
    attempt: int
    received_us: int
    fate: str
    revision: int
    said: str
    """Why it was discarded."""
    by: str
    at_us: int
    why: str
    """Why that was asked for."""
    token: str
    """The token that it was asked with."""
    bytes: bytes = b""

    @property
    def state(self) -> str:
        """pending, replayed or discarded."""
        return PENDING if self.open else self.fate

    @property
    def open(self) -> bool:
        """Whether something may still become of it."""
        return self.fate not in DONE

    @property
    def end(self) -> int:
        """Offset of the first byte after it."""
        return self.offset + self.length


_FATES = """
SELECT project, run_id, stream, offset, argMax(fate, revision) AS fate, max(dead_letter_fates.revision) AS last,
    argMax(reason, revision) AS said, argMax(by, revision) AS by, argMax(at, revision) AS at,
    argMax(why, revision) AS why, argMax(token, revision) AS token
FROM runtide.dead_letter_fates
WHERE {where}
GROUP BY project, run_id, stream, offset
"""

_REASON = "if(f.fate = 'refused', f.said, d.reason)"
_JOINED = """
FROM (SELECT * FROM runtide.dead_letters FINAL WHERE {where}) AS d
LEFT JOIN ({fates}) AS f
    ON f.project = d.project AND f.run_id = d.run_id AND f.stream = d.stream AND f.offset = d.offset
WHERE {having}
"""
_LETTERS = """
SELECT d.project, d.run_id, d.stream, d.offset, d.length, d.kind, {reason}, d.rank,
    d.host, d.attempt, toUnixTimestamp64Milli(d.received_at) * 1000, f.fate, f.last,
    if(f.fate = 'discarded', f.said, ''), f.by, toUnixTimestamp64Micro(f.at), f.why, f.token, {content}
{joined}
ORDER BY {order}
LIMIT {limit} OFFSET {skip}
"""
_COUNTS = """
SELECT if(f.fate IN ('replayed', 'discarded'), f.fate, 'pending') AS state, count()
{joined}
GROUP BY state
"""

_RULINGS = """
SELECT offset, fate, toUnixTimestamp64Micro(at), by, token, why, refusal FROM runtide.dead_letter_rulings
WHERE project = {project:String} AND run_id = {run_id:String} AND stream = {stream:String}
    AND offset IN {offsets:Array(UInt64)}
ORDER BY offset, revision
"""

_AT_OFFSETS = (
    "project = {project:String} AND run_id = {run_id:String} AND stream = {stream:String} "
    "AND offset IN {offsets:Array(UInt64)}"
)
_TEXT = f"concat({_REASON}, ' ', d.kind, ' ', d.stream, ' ', d.host, ' ', d.run_id)"
_WORDS = 8
"""Words that are looked for; more say nothing more."""

_KEY_SETS = """
SELECT offset, JSONExtractUInt(json, 'id'), JSONExtract(json, 'names', 'Array(String)') FROM runtide.events
WHERE project = {project:String} AND run_id = {run_id:String} AND stream = {stream:String} AND kind = 'key_set'
ORDER BY offset
"""

_STORED = """
SELECT DISTINCT offset FROM runtide.{table}
WHERE project = {{project:String}} AND run_id = {{run_id:String}} AND stream = {{stream:String}}
    AND offset IN {{offsets:Array(UInt64)}}
"""
RAW = ("points", "samples", "log_lines", "figures", "events")


def letters_of(
    client: Client, project: str, run_id: str, stream: str, offsets: Sequence[int], *, content: bool = True
) -> list[Letter]:
    """The letters of a stream at these offsets with their bytes, in order. Raises StoreError."""
    told = {"project": project, "run_id": run_id, "stream": stream, "offsets": list(offsets)}
    joined = _joined(_AT_OFFSETS, "1")
    return _letters(client, joined, "offset", len(offsets), told, content="d.bytes" if content else "''")


@dataclass(frozen=True, slots=True)
class Which:
    """Which letters are meant; what is empty leaves none out."""

    project: str = ""
    run_id: str = ""
    no_run: bool = False
    """Those of no run alone, because their message could not be read at all."""
    states: Sequence[str] = ()
    text: str = ""
    """Words that stand anywhere in the reason, kind, stream, host or run."""

    @property
    def joined(self) -> str:
        """The letters with their last fates, as SQL."""
        where = ["1"]
        if self.project:
            where.append("project = {project:String}")
        if self.run_id or self.no_run:
            where.append("run_id = {run_id:String}")
        having = ["1"]
        if self.states:
            having.append("if(f.fate IN ('replayed', 'discarded'), f.fate, 'pending') IN {states:Array(String)}")
        numbered = range(len(self.words))
        having += [f"positionCaseInsensitiveUTF8({_TEXT}, {{word{at}:String}}) > 0" for at in numbered]
        return _joined(" AND ".join(where), " AND ".join(having))

    @property
    def words(self) -> list[str]:
        """The words of `text`."""
        return self.text.split()[:_WORDS]

    @property
    def told(self) -> dict[str, Any]:
        """Parameters of that SQL."""
        words = {f"word{at}": word for at, word in enumerate(self.words)}
        return {"project": self.project, "run_id": self.run_id, "states": list(self.states), **words}


def list_letters(
    client: Client,
    project: str | None = None,
    run_id: str | None = None,
    *,
    limit: int = 100,
    done: bool = False,
) -> list[Letter]:
    """The newest letters, without their bytes; `done` gives those too that were replayed or discarded."""
    return found_letters(client, Which(project or "", run_id or "", states=() if done else (PENDING,)), limit=limit)


def found_letters(client: Client, which: Which, *, limit: int, skip: int = 0) -> list[Letter]:
    """Some letters, the newest first, without their bytes. Raises StoreError."""
    return _letters(client, which.joined, "d.received_at DESC, d.stream, d.offset", limit, which.told, skip=skip)


def count_letters(client: Client, which: Which) -> dict[str, int]:
    """How many letters there are in each state that any is in. Raises StoreError."""
    found = _rows(client, _COUNTS.format(joined=which.joined), which.told)
    return {str(state): int(number) for state, number in found}


@dataclass(frozen=True, slots=True)
class Ruled:
    """One step of what became of a letter: a row of the view dead_letter_rulings."""

    offset: int
    fate: str
    at_us: int
    by: str
    token: str
    why: str
    refusal: str


def rulings_of(client: Client, project: str, run_id: str, stream: str, offsets: Sequence[int]) -> list[Ruled]:
    """What became of letters of a stream, by whose word and why, in order. Raises StoreError."""
    told = {"project": project, "run_id": run_id, "stream": stream, "offsets": list(offsets)}
    return [Ruled(*row) for row in _rows(client, _RULINGS, told)]


def key_sets_of(client: Client, project: str, run_id: str, stream: str) -> list[tuple[int, KeySet]]:
    """The key sets that a stream has stored, with the offset of each, in order. Raises StoreError."""
    found = _rows(client, _KEY_SETS, {"project": project, "run_id": run_id, "stream": stream})
    return [(int(offset), KeySet(id=number, names=names)) for offset, number, names in found]


def stored_among(client: Client, letters: Sequence[Letter]) -> set[int]:
    """Offsets of those letters, all of one stream, whose record stands in a raw table. Raises StoreError."""
    if not letters:
        return set()
    first = letters[0]
    told = {"project": first.project, "run_id": first.run_id, "stream": first.stream}
    sql = " UNION ALL ".join(_STORED.format(table=table) for table in RAW)
    return {int(row[0]) for row in _rows(client, sql, {**told, "offsets": [letter.offset for letter in letters]})}


def _joined(where: str, having: str) -> str:
    return _JOINED.format(where=where, fates=_FATES.format(where=where), having=having)


def _letters(
    client: Client, joined: str, order: str, limit: int, told: dict[str, Any], *, content: str = "''", skip: int = 0
) -> list[Letter]:
    sql = _LETTERS.format(joined=joined, reason=_REASON, order=order, limit=limit, skip=skip, content=content)
    try:
        found = client.query(sql, parameters=told, query_formats={"String": "bytes"}).result_rows
    except (ClickHouseError, OSError) as error:
        raise classified(error) from error
    return [_letter(row) for row in found]


def _letter(row: Sequence[Any]) -> Letter:
    values: list[Any] = [value.decode(errors="replace") if isinstance(value, bytes) else value for value in row[:-1]]
    values.append(row[-1])
    return Letter(*values)


def _rows(client: Client, sql: str, told: dict[str, Any]) -> Sequence[Sequence[Any]]:
    try:
        return client.query(sql, parameters=told).result_rows
    except (ClickHouseError, OSError) as error:
        raise classified(error) from error
