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

TAKEN, REPLAYED, REFUSED, DISCARDED = "taken", "replayed", "refused", "discarded"
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
    bytes: bytes = b""

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
    argMax(reason, revision) AS said, argMax(by, revision) AS by, argMax(at, revision) AS at
FROM runtide.dead_letter_fates
WHERE {where}
GROUP BY project, run_id, stream, offset
"""

_LETTERS = """
SELECT d.project, d.run_id, d.stream, d.offset, d.length, d.kind, if(f.fate = 'refused', f.said, d.reason), d.rank,
    d.host, d.attempt, toUnixTimestamp64Milli(d.received_at) * 1000, f.fate, f.last,
    if(f.fate = 'discarded', f.said, ''), f.by, toUnixTimestamp64Micro(f.at), {content}
FROM (SELECT * FROM runtide.dead_letters FINAL WHERE {where}) AS d
LEFT JOIN ({fates}) AS f
    ON f.project = d.project AND f.run_id = d.run_id AND f.stream = d.stream AND f.offset = d.offset
WHERE {of_fate}
ORDER BY {order}
LIMIT {limit}
"""

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
    where = (
        "project = {project:String} AND run_id = {run_id:String} AND stream = {stream:String} "
        "AND offset IN {offsets:Array(UInt64)}"
    )
    told = {"project": project, "run_id": run_id, "stream": stream, "offsets": list(offsets)}
    return _letters(client, where, "1", "offset", len(offsets), told, "d.bytes" if content else "''")


def list_letters(
    client: Client, project: str | None = None, run_id: str | None = None, *, limit: int = 100, done: bool = False
) -> list[Letter]:
    """The newest letters, without their bytes; `done` gives those too that were replayed or discarded."""
    told = {"project": project or "", "run_id": run_id or ""}
    where = (
        "({project:String} = '' OR project = {project:String}) AND ({run_id:String} = '' OR run_id = {run_id:String})"
    )
    of_fate = "1" if done else "f.fate NOT IN ('replayed', 'discarded')"
    return _letters(client, where, of_fate, "d.received_at DESC, d.stream, d.offset", limit, told)


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


def _letters(
    client: Client, where: str, of_fate: str, order: str, limit: int, told: dict[str, Any], content: str = "''"
) -> list[Letter]:
    sql = _LETTERS.format(
        where=where, fates=_FATES.format(where=where), of_fate=of_fate, order=order, limit=limit, content=content
    )
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
