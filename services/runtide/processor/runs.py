"""The rows of runs and attempts: which runs are watched, what is known of them, when their rows are written.

Promises a row within about a second of what changes it, heartbeats alone every few seconds, and a state that changes by
silence alone within a second of its time. Facts are read from the store; what is kept in memory only saves reading, and
changes when what it says is stored. A run whose events are odd costs the others nothing: its row says less.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from runtide.processor import sql
from runtide.processor.dirty import Run
from runtide.processor.facts import (
    KINDS,
    SUMMARY_METRICS,
    Attempt,
    Event,
    Last,
    LedgerRow,
    Said,
    attempts,
    fold,
    run_facts,
    run_row,
)
from runtide.processor.states import SECOND, RunFacts, run_state
from runtide.processor.store import Store
from runtide.wire.states import ENDED

log = logging.getLogger("runtide.processor")

ROW_US = SECOND
"""Least time between two rows of a run."""
HEARTBEAT_ROW_US = 3 * SECOND
"""Least time between two rows that differ in the sign of life only."""
REREAD_US = 10 * SECOND
"""Events of a run that goes on are read again after this long: another processor may have been told of them."""
_AT_ONCE = 256
"""Runs that are refreshed in one go."""
_KEPT = 4096
"""Ended runs that are kept in memory."""

_TIME = pa.timestamp("us", "UTC")
_ROW_SCHEMA = pa.schema(
    [
        *[(name, pa.string()) for name in ("project", "run_id", "experiment", "name", "group", "job_type", "state")],
        *[(name, pa.string()) for name in ("reason", "user", "host")],
        ("world_size", pa.uint32()),
        ("attempt", pa.uint16()),
        ("started_at", _TIME),
        ("finished_at", _TIME),
        ("heartbeat_at", _TIME),
        ("exit_code", pa.int32()),
        ("config", pa.string()),
        ("tags", pa.list_(pa.string())),
        *[(name, pa.string()) for name in ("notes", "git_commit", "summary")],
        ("last_step", pa.int64()),
        ("version", pa.uint64()),
    ]
)
_ATTEMPT_SCHEMA = pa.schema(
    [
        ("project", pa.string()),
        ("run_id", pa.string()),
        ("attempt", pa.uint16()),
        ("launch_id", pa.string()),
        ("opened_at", _TIME),
        ("resume_step", pa.int64()),
        ("world_size", pa.uint32()),
        ("version", pa.uint64()),
    ]
)


@dataclass(slots=True)
class Watched:
    """What is remembered of one run."""

    said: Said = field(default_factory=Said)
    facts: RunFacts = field(default_factory=RunFacts)
    attempts: list[Attempt] = field(default_factory=list)
    points: dict[str, int] = field(default_factory=dict)
    stepped: dict[str, int] = field(default_factory=dict)
    """When each stream was last seen to log steps, by our clock."""
    noticed: dict[str, int] = field(default_factory=dict)
    """When each stream was last heard of, by our clock: the gateway's may be another one, and may be set."""
    stored: dict[str, tuple[int, int]] = field(default_factory=dict)
    """What the ledger said of each stream then."""
    heartbeats: dict[str, int] = field(default_factory=dict)
    """The last one that names each stream, by the gateway's clock."""
    heard_from: dict[str, int] = field(default_factory=dict)
    """The offset of each agent's last heartbeat."""
    row: dict[str, Any] = field(default_factory=dict)
    looked_us: int = 0
    """When it was looked for last what has come."""
    written_us: int = 0
    stale: bool = True
    """Something came since the row was made."""
    unread: bool = True
    """Events came since they were read."""
    read_us: int = 0
    """When they were read."""

    def note(self, stream: str, at_us: int) -> None:
        """Note a sign of life."""
        self.noticed[stream] = max(at_us, self.noticed.get(stream, 0))

    @property
    def ended(self) -> bool:
        """Whether time alone can change nothing."""
        return self.row.get("state") in ENDED


class RunBook:
    """The watched runs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._runs: dict[Run, Watched] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def touch(self, run: Run, kinds: Iterable[str] = ()) -> None:
        """Say that something came for a run."""
        watched = self._runs.setdefault(run, Watched())
        watched.stale = True
        watched.unread = watched.unread or any(kind in KINDS for kind in kinds)

    def reread(self, run: Run) -> None:
        """Say that it is not known what came for a run."""
        before = self._runs.get(run, Watched())
        self._runs[run] = Watched(row=before.row, noticed=before.noticed, stored=before.stored)

    def settled(self, run: Run) -> bool:
        """Say whether the row of a run tells all that is known."""
        watched = self._runs.get(run)
        return watched is None or not watched.stale

    @property
    def stale(self) -> bool:
        """Whether any row does not tell all that is known."""
        return any(watched.stale for watched in self._runs.values())

    def load(self) -> None:
        """Watch the runs that had not ended when the last processor stopped."""
        for project, run_id in self._store.rows(sql.unended(str(state) for state in ENDED)):
            self.touch(Run(project, run_id))

    def read_events(self, runs: Iterable[Run]) -> dict[Run, list[Attempt]]:
        """The attempts of these runs, read anew where events have come; writes rows of those that changed."""
        wanted = [run for run in runs if self._runs.setdefault(run, Watched()).unread]
        for at in range(0, len(wanted), _AT_ONCE):
            self._read_events(wanted[at : at + _AT_ONCE])
        return {run: self._runs[run].attempts for run in runs}

    def refresh(self, now_us: int, ledger: Mapping[Run, Sequence[LedgerRow]] | None = None) -> None:
        """Write the rows that are due. `ledger` saves reading what the caller has just read."""
        due = []
        for run, watched in self._runs.items():
            waited = now_us - watched.written_us
            if waited < ROW_US:
                continue
            if not watched.stale and (watched.ended or not _differs(watched, now_us)):
                continue
            if not watched.stale:
                watched.unread = True  # not silent, perhaps: another processor may be told of the run now
            due.append(run)
        for at in range(0, len(due), _AT_ONCE):
            self._refresh(due[at : at + _AT_ONCE], now_us, ledger or {})
        self._forget()

    def flush(self, now_us: int) -> None:
        """Write all rows that are not up to date, due or not."""
        for watched in self._runs.values():
            watched.written_us = 0
        self.refresh(now_us)

    def _read_events(self, runs: Sequence[Run]) -> None:
        found: dict[Run, list[Event]] = {run: [] for run in runs}
        for values in self._store.rows(sql.events(runs, KINDS)):
            event = Event(*values)
            found[Run(event.project, event.run_id)].append(event)
        read = {run: _folded(run, events) for run, events in found.items()}
        self._write_attempts(
            [(run, each) for run, (_, known) in read.items() for each in known if each not in self._runs[run].attempts]
        )
        for run, (said, known) in read.items():
            watched = self._runs[run]
            watched.said, watched.attempts, watched.unread = said, known, False
            watched.read_us = self._store.now_us()

    def _versions(self, runs: Iterable[Run]) -> dict[Run, int]:
        """The next version of the rows of each run: the time, unless the clock that wrote last was ahead of ours."""
        found = {run: self._store.now_us() for run in runs}
        for project, run_id, version in self._store.rows(sql.versions(found)):
            run = Run(project, run_id)
            found[run] = max(found[run], version + 1)
        return found

    def _write_attempts(self, changed: Sequence[tuple[Run, Attempt]]) -> None:
        if not changed:
            return
        versions = self._versions(run for run, _ in changed)
        rows = [
            {
                "project": run.project,
                "run_id": run.run_id,
                "attempt": attempt.attempt,
                "launch_id": attempt.launch_id,
                "opened_at": attempt.opened_us,
                "resume_step": attempt.resume_step,
                "world_size": attempt.world_size,
                "version": versions[run],
            }
            for run, attempt in changed
        ]
        self._store.insert("attempt_rows", pa.Table.from_pylist(rows, schema=_ATTEMPT_SCHEMA))

    def _refresh(self, runs: Sequence[Run], now_us: int, known: Mapping[Run, Sequence[LedgerRow]]) -> None:
        for watched in map(self._runs.__getitem__, runs):
            watched.unread = watched.unread or now_us - watched.read_us >= REREAD_US
        self.read_events(runs)
        ledger = {**known, **self._store.ledger([run for run in runs if run not in known])}
        self._hear(runs, now_us)
        lasts = self._lasts(runs)
        rows: list[tuple[Watched, dict[str, Any]]] = []
        tables: list[pa.Table] = []
        versions = self._versions(runs)
        for run in runs:
            watched = self._runs[run]
            if not ledger.get(run):
                continue
            _notice(watched, ledger[run], now_us)
            watched.looked_us = now_us
            watched.facts = run_facts(watched.said, ledger[run], watched.heartbeats, watched.stepped, watched.noticed)
            made = _made(run, watched, lasts.get(run, ([], None)), now_us, versions[run])
            if made is not None and _worth_writing(watched, made[0], now_us):
                rows.append((watched, made[0]))
                tables.append(made[1])
        if tables:
            self._store.insert("run_rows", pa.concat_tables(tables).combine_chunks())
        for run in runs:
            self._runs[run].stale = False
        for watched, row_now in rows:
            watched.row, watched.written_us = row_now, now_us

    def _hear(self, runs: Sequence[Run], now_us: int) -> None:
        """Read heartbeats: all of a run at first, later the new ones."""
        fresh = [run for run in runs if not self._runs[run].heard_from]
        known = [run for run in runs if self._runs[run].heard_from]
        for group, are_new in ((fresh, False), (known, True)):
            if not group:
                continue
            after = {(run, agent): at for run in group for agent, at in self._runs[run].heard_from.items()}
            for project, run_id, agent, offset, stream, heard in self._store.rows(sql.heartbeats(group, after)):
                watched = self._runs[Run(project, run_id)]
                watched.note(stream, _came(heard, watched, now_us))
                watched.heard_from[agent] = max(offset, watched.heard_from.get(agent, 0))
                watched.heartbeats[stream] = heard if are_new else max(heard, watched.heartbeats.get(stream, 0))

    def _lasts(self, runs: Sequence[Run]) -> dict[Run, tuple[list[Last], int | None]]:
        """Last values over all ranks, as the view metric_summary has them, and the highest step."""
        out: dict[Run, tuple[list[Last], int | None]] = {}
        for project, run_id, metric, last, top in self._store.rows(sql.lasts(runs, SUMMARY_METRICS)):
            out.setdefault(Run(project, run_id), ([], top))[0].append(Last(metric, last))
        return out

    def _forget(self) -> None:
        over = len(self._runs) - _KEPT
        if over > 0:
            settled = [run for run, watched in self._runs.items() if watched.ended and not watched.stale]
            for run in settled[:over]:
                del self._runs[run]


def _folded(run: Run, events: Sequence[Event]) -> tuple[Said, list[Attempt]]:
    """What the events of a run say; nothing where they cannot be read."""
    try:
        said = fold(events)
        return said, attempts(said)
    except Exception:
        log.exception("events not understood, run shown without them project=%s run=%s", *run)
        return Said(), []


def _made(
    run: Run, watched: Watched, last: tuple[Sequence[Last], int | None], now_us: int, version: int
) -> tuple[dict[str, Any], pa.Table] | None:
    """The row of a run, also as the store takes it; where that fails, one that says less, or none."""
    for said in (watched.said, replace(watched.said, config={}, summary={}), Said()):
        try:
            row = run_row(run, said, watched.facts, run_state(watched.facts, now_us), *last)
            return row, pa.Table.from_pylist([{**row, "version": version}], schema=_ROW_SCHEMA)
        except Exception:
            log.exception("row of a run not made, made with less project=%s run=%s", *run)
    return None


def _notice(watched: Watched, ledger: Sequence[LedgerRow], now_us: int) -> None:
    """See in the ledger when streams spoke, and in the number of points when steps came."""
    for row in ledger:
        stored = row.mark, row.received_us
        if watched.stored.get(row.stream) != stored:
            watched.stored[row.stream] = stored
            watched.note(row.stream, _came(row.received_us, watched, now_us))
        if row.points and watched.points.get(row.stream) != row.points:
            watched.points[row.stream] = row.points
            watched.stepped[row.stream] = _came(row.stepped_received_us or row.received_us, watched, now_us)


def _came(received_us: int, watched: Watched, now_us: int) -> int:
    """When something new came, by our clock: as the gateway says where that can be, else now.

    It can be between the last look, or a second before, and this one; before the first look, at any time until now.
    """
    return received_us if watched.looked_us - SECOND <= received_us <= now_us else now_us


def _differs(watched: Watched, now_us: int) -> bool:
    """Say whether the time alone has changed the state."""
    return bool(watched.row) and str(run_state(watched.facts, now_us).state) != watched.row["state"]


def _worth_writing(watched: Watched, row: dict[str, Any], now_us: int) -> bool:
    old = watched.row
    if not old or any(row[name] != old[name] for name in row if name != "heartbeat_at"):
        return True
    return row["heartbeat_at"] != old["heartbeat_at"] and now_us - watched.written_us >= HEARTBEAT_ROW_US
