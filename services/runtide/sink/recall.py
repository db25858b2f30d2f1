"""Reads back what is stored of streams: the ledger, and beyond it the raw tables themselves.

The ledger is written after the tables, so after a crash or an unknown result it may say too little, never too much.
Whatever it does not vouch for is asked of the tables, record by record: that is what was on its way when it broke off,
one flush at the most, so the answer is short. Promise: a state that is read here is exact if no other sink inserts
rows of the same streams meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import Any

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from runtide.sink.columns import ROLES
from runtide.sink.streams import StreamKey, StreamState
from runtide.warehouse.errors import classified

BATCH = 200
"""Streams asked for in one query."""

_ROLE_NUMBERS = {name: int(number) for number, name in ROLES.items()}

_LEDGER = """
SELECT project, run_id, stream, role, rank, host, attempt, mark, holes, records, points, gaps, dead,
    toUnixTimestamp64Micro(opened_at), toUnixTimestamp64Micro(closed_at), last_step,
    toUnixTimestamp64Micro(last_step_at), toUnixTimestamp64Milli(received_at) * 1000, days, revision,
    clock_ahead_us, clock_least_us, clock_most_us, toUnixTimestamp64Milli(stepped_received_at) * 1000
FROM runtide.ledger FINAL
WHERE (project, run_id, stream) IN %(keys)s
"""

_BEYOND = """
SELECT project, run_id, stream, offset, '{table}' AS source, any(length) AS bytes, count() AS found, {of} AS made,
    {step} AS said_step, {time} AS said_time,
    toInt64(any(toUnixTimestamp64Milli(received_at))) * 1000 AS received, {kind} AS said_kind, {json} AS said_json,
    {clock} AS said_clock
FROM runtide.{table}
WHERE (project, run_id) IN %(runs)s AND stream IN %(streams)s AND ({beyond}){also}
GROUP BY project, run_id, stream, offset
"""

_HELD = """ AND (project, run_id, stream, offset) NOT IN
(
    SELECT project, run_id, stream, offset FROM runtide.dead_letter_fates
    WHERE (project, run_id) IN %(runs)s AND stream IN %(streams)s
    GROUP BY project, run_id, stream, offset
    HAVING argMax(fate, revision) IN ('taken', 'replayed')
)"""
"""A dead letter that is being replayed does not fill its place any more: see `rulings`."""

_TIME = "toInt64(any(toUnixTimestamp64Micro(time)))"
_PLAIN = {
    "of": "any(of)",
    "step": "toInt64(0)",
    "time": "toInt64(0)",
    "kind": "''",
    "json": "''",
    "clock": "CAST(NULL AS Nullable(Int64))",
    "also": "",
}
_TABLES: dict[str, dict[str, str]] = {
    "dead_letters": {**_PLAIN, "of": "1", "also": _HELD},
    "points": {**_PLAIN, "step": "any(step)", "time": _TIME},
    "samples": _PLAIN,
    "log_lines": _PLAIN,
    "figures": _PLAIN,
    "events": {
        **_PLAIN,
        "time": _TIME,
        "kind": "toString(any(kind))",
        "json": "if(any(kind) = 'gap', any(json), '')",
        "clock": "any(clock_ahead_us)",
    },
}


@dataclass(frozen=True, slots=True)
class _Found:
    """A record that a table holds and the ledger does not vouch for."""

    key: StreamKey
    offset: int
    table: str
    length: int
    rows: int
    of: int
    step: int
    time_us: int
    received_us: int
    kind: str
    json: str
    clock_us: int | None


def recall(client: Client, keys: Iterable[StreamKey]) -> dict[StreamKey, StreamState]:
    """Read the exact state of each stream; one that nothing is stored of has an empty state. Raises StoreError."""
    states: dict[StreamKey, StreamState] = {}
    for batch in _batches(sorted(set(keys))):
        found = {state.key: state for state in _ledger_states(client, batch)}
        states.update({key: found.get(key) or StreamState(*key) for key in batch})
        for record in _beyond(client, [states[key] for key in batch]):
            if record.key in states and record.rows >= record.of:
                _fold(states[record.key], record)
    return states


def _batches(keys: Sequence[StreamKey]) -> Iterable[list[StreamKey]]:
    """Batches in which no stream id stands twice: two projects may claim the same one."""
    batch: dict[str, StreamKey] = {}
    for key in keys:
        if len(batch) == BATCH or key[2] in batch:
            yield list(batch.values())
            batch = {}
        batch[key[2]] = key
    if batch:
        yield list(batch.values())


def _ledger_states(client: Client, keys: list[StreamKey]) -> Iterable[StreamState]:
    for row in _rows(client, _LEDGER, {"keys": keys}):
        state = StreamState(row[0], row[1], row[2], _ROLE_NUMBERS.get(row[3], 0), row[4], row[5], row[6])
        state.extent.mark = row[7]
        state.extent.holes = [(start, end) for start, end in row[8]]
        state.records, state.points, state.gaps, state.dead = row[9:13]
        state.opened_at, state.closed_at, state.last_step, state.last_step_at = row[13:17]
        state.received_us, state.days, state.revision = row[17:20]
        state.clock_us, state.clock_least_us, state.clock_most_us, state.stepped_us = row[20:24]
        yield state


def _beyond(client: Client, states: list[StreamState]) -> list[_Found]:
    """The records that tables hold in holes and past the marks, in the order of the streams."""
    parameters: dict[str, Any] = {
        "runs": sorted({(state.project, state.run_id) for state in states}),
        "streams": [state.stream for state in states],
    }
    condition = _condition(states, parameters)
    sql = "\nUNION ALL\n".join(_BEYOND.format(table=table, beyond=condition, **of) for table, of in _TABLES.items())
    rows = _rows(client, sql, parameters)
    found = [_Found((row[0], row[1], row[2]), row[3], *row[4:14]) for row in rows]
    return sorted(found, key=lambda record: (record.key, record.offset))


def _condition(states: list[StreamState], parameters: dict[str, Any]) -> str:
    """SQL for "the ledger does not vouch for this offset of this stream"."""
    if not any(state.extent.mark for state in states):
        return "1"
    parameters["marks"] = [state.extent.mark for state in states]
    parts = ["offset >= transform(stream, %(streams)s, CAST(%(marks)s AS Array(UInt64)), toUInt64(0))"]
    for number, state in enumerate(state for state in states if state.extent.holes):
        parameters[f"stream{number}"] = state.stream
        within = " OR ".join(f"(offset >= {start} AND offset < {end})" for start, end in state.extent.holes)
        parts.append(f"(stream = %(stream{number})s AND ({within}))")
    return " OR ".join(parts)


def _fold(state: StreamState, record: _Found) -> None:
    """Count a record as stored that the ledger did not know of."""
    state.ahead = True
    state.note_clock(record.clock_us)
    if record.table == "points":
        state.points += record.rows
        state.note_step(record.step, record.time_us, record.offset, record.received_us)
    elif record.table == "events":
        state.note_event(record.kind, record.time_us)
        if record.kind == "gap":
            state.gaps += lost_in(json.loads(record.json))
    if record.table == "dead_letters":
        state.dead += 1
    elif not (record.kind == "gap" and "length" in json.loads(record.json)):
        state.records += 1
    state.extent.add(record.offset, record.offset + record.length)


def lost_in(gap: dict[str, Any]) -> int:
    """Records that a gap declares lost; bytes that nobody could count are one loss."""
    return max(int(gap.get("records", 0)), 1)


def _rows(client: Client, sql: str, parameters: dict[str, Any]) -> Sequence[Any]:
    try:
        return client.query(sql, parameters=parameters).result_rows
    except (ClickHouseError, OSError) as error:
        raise classified(error) from error


def others_write(client: Client, project: str, around_us: int) -> bool:
    """Whether another project has written within a week of a time. Raises StoreError."""
    sql = """SELECT 1 FROM runtide.ledger WHERE project != %(project)s
        AND abs(dateDiff('hour', received_at, fromUnixTimestamp64Micro(%(around)s))) < 7 * 24 LIMIT 1"""
    return bool(_rows(client, sql, {"project": project, "around": around_us}))


_UNDERSTOOD = {"step": "points", "sample": "samples", "log_line": "log_lines", "figure": "figures"}
ASKED = 50
"""Runs that are asked about at most: a few are enough."""


def understood(client: Client, kind: str, runs: Set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of the runs of which records of a kind are stored; any records for the kind "". Raises StoreError."""
    told: dict[str, Any] = {"kind": kind}
    parts = []
    for number, run in enumerate(sorted(runs)[:ASKED]):
        told[f"project{number}"], told[f"run{number}"] = run
        where = f"project = %(project{number})s AND run_id = %(run{number})s"
        if kind:
            table = _UNDERSTOOD.get(kind, "events")
            where += " AND kind = %(kind)s" if table == "events" else ""
        else:
            table, where = "ledger", where + " AND records > 0"
        parts.append(f"(SELECT project, run_id FROM runtide.{table} WHERE {where} LIMIT 1)")  # noqa: S608  own words
    found = _rows(client, " UNION ALL ".join(parts), told) if parts else ()
    return {(str(project), str(run_id)) for project, run_id in found}
