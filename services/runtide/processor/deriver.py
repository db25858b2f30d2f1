"""Keeps derived rows true to raw rows: hints in, replaced rows out.

Everything is one way of working: a hint marks steps of a run as out of date, a statement derives them anew from raw
rows and replaces what was there. So hints may come twice, late, in any order or never: the sweep compares the ledger
with the coverage and finds what no hint announced. Blocks: `tick` and `sweep` talk to the store and belong in one
thread; `add` may be called from any.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from clickhouse_connect.driver.client import Client

from runtide.processor import sql
from runtide.processor.bounds import Bounds, Logged
from runtide.processor.coverage import Cursor, Stored, advanced, behind
from runtide.processor.dirty import Dirty, Run, Span, shard_of
from runtide.processor.facts import KINDS, LedgerRow
from runtide.processor.runs import RunBook
from runtide.processor.series import MOST_POINTS, Ledger, Series, several_attempts, versions_of
from runtide.processor.states import SECOND
from runtide.processor.store import Store, steady_clock
from runtide.wire.books import is_book
from runtide.wire.crash import crash_point
from runtide.wire.hints import Hint

log = logging.getLogger("runtide.processor")

SWEEP_US = 30 * SECOND
"""How often the ledger is compared with the coverage."""
COVERAGE_US = 2 * SECOND
"""Least time between two writings of the coverage; what was not written is derived again after a restart."""
SERIES_US = SECOND
"""Least time between two derivations of series, unless a process has opened or ended: each costs its statements."""
WINDOWS_US = 2 * SECOND
"""Least time between two derivations of sample windows."""
REPLAYED_US = 7 * 24 * 3600 * SECOND
"""Dead letters that were replayed this long before a processor starts are derived again; `rebuild` does it later."""
REPLAY_OVERLAP_US = 60 * SECOND
"""How much the clocks of sinks may differ."""
MOST_HINTS = 200_000
"""Hints kept while they wait for the sink. The oldest are dropped, the sweep finds what they said."""
MOST_CURSORS = 50_000
"""Streams of which is kept how far they are covered. Of one that was forgotten it is read again."""

_COVERAGE_SCHEMA = pa.schema(
    [
        *[(name, pa.string()) for name in ("project", "run_id", "stream")],
        *[(name, pa.uint64()) for name in ("mark", "hole_bytes", "revision")],
    ]
)

StreamOf = tuple[Run, str]


@dataclass(frozen=True, slots=True)
class _Found:
    """A hint, or what the sweep found in its place: then all of the stream is covered up to `swept`."""

    hint: Hint
    swept: Cursor | None = None

    @property
    def run(self) -> Run:
        return Run(self.hint.project, self.hint.run_id)

    @property
    def stream(self) -> StreamOf:
        return self.run, self.hint.stream


class Deriver:
    """Derives the rows of all runs that it is given hints of, and those that the sweep finds."""

    def __init__(
        self,
        client_factory: Callable[[], Client],
        clock: Callable[[], int] | None = None,
        most_points: int = MOST_POINTS,
        most_cursors: int = MOST_CURSORS,
    ) -> None:
        """`clock` gives microseconds since the epoch and never goes back; a statement derives `most_points` or so.

        Of more than `most_cursors` streams it is read again how far they are covered.
        """
        self._most_cursors = most_cursors
        self._clock = clock or steady_clock()
        self._store = Store(client_factory, self._clock)
        self._book = RunBook(self._store)
        self._bounds = Bounds(self._store)
        self._lock = threading.Lock()
        self._incoming: deque[Hint] = deque(maxlen=MOST_HINTS)
        self._pending: list[_Found] = []
        self._dirty = Dirty()
        self._series = Series(self._store, self._dirty, most_points)
        self._minutes: dict[Run, Span] = {}
        self._cursors: dict[StreamOf, Cursor] = {}
        self._revisions: dict[StreamOf, int] = {}
        self._unwritten: set[StreamOf] = set()
        self._suspects: dict[StreamOf, Cursor] = {}
        self._swept_us = self._covered_us = self._windowed_us = self._derived_us = 0
        self._replays: dict[StreamOf, int] = {}
        self._replays_us = self._clock() - REPLAYED_US
        self._started = False

    def add(self, hints: Iterable[Hint]) -> None:
        """Take hints; they are looked at by the next tick. Nothing is derived of books."""
        with self._lock:
            self._incoming.extend(hint for hint in hints if not is_book(hint.run_id))

    @property
    def idle(self) -> bool:
        """Whether every hint is derived, the rows of runs are up to date, and the coverage says so."""
        with self._lock:
            waiting = bool(self._incoming)
        return not (waiting or self._pending or self._dirty or self._minutes or self._unwritten or self._book.stale)

    @property
    def remembered(self) -> dict[str, int]:
        """How much of what can be read again is in memory."""
        return {"streams": len(self._cursors), "runs": len(self._book), "bounds": len(self._bounds)}

    def tick(self, now_us: int | None = None) -> bool:
        """Derive for about a second; says whether series are left to derive at once.

        Raises StoreError, after which it is as if the tick had not been: what was taken is taken up by the next.
        """
        now = self._clock() if now_us is None else now_us
        if not self._started:
            self._book.load()
            self.sweep(everything=True)
            self._started, self._swept_us = True, now
        elif now - self._swept_us >= SWEEP_US:
            self.sweep()
            self._swept_us = now
        self._gather()
        if not self._dirty and now - self._derived_us < SERIES_US and not self._urgent():
            self._book.refresh(now)
            return False
        self._derived_us = now
        ledger = self._store.ledger({found.run for found in self._pending} | {*self._dirty.runs(), *self._minutes})
        self._note(ledger)
        self._series.derive(ledger)
        crash_point("processor.derived")
        if self._minutes and now - self._windowed_us >= WINDOWS_US:
            self._derive_windows(ledger)
            self._windowed_us = now
        self._book.refresh(now, ledger)
        if now - self._covered_us >= COVERAGE_US:
            self._cover()
            self._covered_us = now
            crash_point("processor.covered")
        return bool(self._dirty)

    def settle(self, now_us: int | None = None) -> None:
        """Derive all that is known to be out of date, without regard to the time, and write all rows of runs.

        Hints of records that are not stored stay.
        """
        self._windowed_us = self._covered_us = self._derived_us = 0
        while self.tick(now_us):
            pass
        self._windowed_us = 0
        now = self._clock() if now_us is None else now_us
        self._derive_windows(self._store.ledger(self._minutes))
        self._book.flush(now)
        self._cover()

    def sweep(self, everything: bool = False) -> None:
        """Compare the ledger with the coverage, and take up what no hint has announced.

        A stream counts as forgotten if its coverage has stood still since the last sweep; with `everything` at once.
        """
        waiting = {found.stream for found in self._pending}
        suspects: dict[StreamOf, Cursor] = {}
        forgotten: dict[Run, list[tuple[Hint, Cursor, Cursor]]] = {}
        for project, run_id, stream, role, rank, attempt, mark, open_bytes, revision, low, low_open in self._store.rows(
            sql.uncovered()
        ):
            key = Run(project, run_id), stream
            cursor = self._cursors.get(key, Cursor(low, low_open))
            if not behind(cursor, Stored(mark, ((0, open_bytes),) if open_bytes else ())):
                continue
            if everything or (self._suspects.get(key) == cursor and key not in waiting):
                hint = Hint(project, run_id, stream, _ROLES.get(role, 0), rank, attempt, cursor.mark, mark)
                forgotten.setdefault(key[0], []).append((hint, cursor, Cursor(mark, open_bytes)))
                self._revisions[key] = revision
            else:
                suspects[key] = cursor
        for run, streams in forgotten.items():
            self._pending.extend(self._look_up(run, streams))
            self._book.reread(run)
        self._suspects = suspects
        if forgotten:
            log.info(
                "sweep found streams not covered runs=%d streams=%d", len(forgotten), sum(map(len, forgotten.values()))
            )
        self._sweep_replays()

    def _sweep_replays(self) -> None:
        """Take up the dead letters that were replayed: their bytes were covered when they were dead."""
        found = {
            (Run(project, run_id), stream): (offset, at)
            for project, run_id, stream, offset, at in self._store.rows(sql.replayed(self._replays_us))
            if self._replays.get((Run(project, run_id), stream), 0) < at
        }
        if not found:
            return
        self._load_cursors(found)
        ledger = self._store.ledger({run for run, _ in found})
        for run, rows in ledger.items():
            streams = []
            for row in rows:
                if (key := (run, row.stream)) in found:
                    hint = Hint(
                        *run, row.stream, _ROLES.get(row.role, 0), row.rank, row.attempt, found[key][0], row.mark
                    )
                    streams.append((hint, Cursor(found[key][0]), self._cursors[key]))
            self._pending.extend(self._look_up(run, streams) if streams else ())
            self._book.reread(run)
        latest = max(at for _, at in found.values())
        self._replays_us = max(self._replays_us, latest - REPLAY_OVERLAP_US)
        self._replays = {key: at for key, at in self._replays.items() if at >= self._replays_us}
        self._replays.update({key: at for key, (_, at) in found.items()})

    def rebuild(self, run: Run) -> None:
        """Throw away what is derived of a run and derive it anew. Readers may see a run without series meanwhile."""
        ledger = self._store.ledger([run])
        self._book.reread(run)
        attempts = self._book.read_events([run])[run]
        if several_attempts(ledger[run]):
            self._bounds.remake(run, attempts)
        for statement in sql.emptied(run, versions_of(ledger)[run]):
            self._store.run(statement)
        self._mark_all(run)
        for found in self._look_up(run, [_from_start(row) for row in ledger[run]]):
            if found.hint.sampled is not None:
                self._add_minutes(run, found.hint.sampled)
            if found.swept is not None:
                self._move(found.stream, found.swept)
        self._revisions.update({(run, row.stream): row.revision for row in ledger[run]})
        self.settle()

    # What came.

    def _gather(self) -> None:
        with self._lock:
            hints = list(self._incoming)
            self._incoming.clear()
        self._pending.extend(_Found(hint) for hint in hints)
        if len(self._pending) > MOST_HINTS:
            log.warning("hints dropped count=%d", len(self._pending) - MOST_HINTS)
            del self._pending[:-MOST_HINTS]

    def _urgent(self) -> bool:
        """Whether a hint tells of processes that opened or ended."""
        return any(not found.hint.kinds.isdisjoint(KINDS) for found in self._pending)

    def _note(self, ledger: Ledger) -> None:
        """Turn the hints whose records are stored into what is out of date."""
        rows = {(run, row.stream): row for run, streams in ledger.items() for row in streams}
        ready: list[_Found] = []
        waiting: list[_Found] = []
        for found in self._pending:
            row = rows.get(found.stream)
            stored = row is not None and (found.swept is not None or row.stored.has(found.hint.start, found.hint.end))
            (ready if stored else waiting).append(found)
        if not ready:
            return
        self._load_cursors({found.stream for found in ready})
        by_run: dict[Run, list[_Found]] = {}
        for found in ready:
            by_run.setdefault(found.run, []).append(found)
        for run, of_run in by_run.items():
            self._book.touch(run, {kind for found in of_run for kind in found.hint.kinds})
        self._note_attempts(ledger, by_run)
        # From here on nothing can fail: the hints are taken.
        self._pending = waiting
        for found in ready:
            self._note_one(found)
        for key, of_stream in _by_stream(ready).items():
            row = rows[key]
            self._move(key, _cursor_after(self._cursors[key], row.stored, of_stream))
            self._revisions[key] = row.revision

    def _note_one(self, found: _Found) -> None:
        hint = found.hint
        shard = shard_of(hint.rank)
        for metric, span in hint.metrics.items():
            self._dirty.add(found.run, shard, metric, span)
        if hint.sampled is not None:
            self._add_minutes(found.run, hint.sampled)

    def _note_attempts(self, ledger: Ledger, by_run: Mapping[Run, Sequence[_Found]]) -> None:
        """Bring the bounds of runs with several attempts up to date."""
        multiple = [run for run in by_run if several_attempts(ledger[run])]
        for run, attempts in self._book.read_events(multiple).items():
            if self._bounds.new_resume(run, attempts):
                self._mark_all(run)
                self._bounds.remake(run, attempts)
            logged = [
                Logged(found.hint.attempt, metric, span[0], found.swept is not None)
                for found in by_run[run]
                for metric, span in found.hint.metrics.items()
            ]
            tails = self._bounds.update(run, attempts, logged)
            shards = {shard_of(row.rank) for row in ledger[run]}
            for metric, spans in tails.items():
                for span in spans:
                    for shard in shards:
                        self._dirty.add(run, shard, metric, span)

    def _mark_all(self, run: Run) -> None:
        for metric, shard, low, high in self._store.rows(sql.everything(run)):
            self._dirty.add(run, shard, metric, (low, high))

    def _add_minutes(self, run: Run, sampled: Span) -> None:
        low, high = self._minutes.get(run, sampled)
        self._minutes[run] = min(low, sampled[0]), max(high, sampled[1])

    def _look_up(self, run: Run, streams: Sequence[tuple[Hint, Cursor, Cursor]]) -> list[_Found]:
        """What streams have said since they were covered; from their start where late data fell into a hole."""
        since = {hint.stream: 0 if now.hole_bytes < then.hole_bytes else then.mark for hint, then, now in streams}
        metrics: dict[str, dict[str, Span]] = {}
        for stream, metric, low, high in self._store.rows(sql.spoken_since(run, since)):
            metrics.setdefault(stream, {})[metric] = (low, high)
        sampled = {stream: (low, high) for stream, low, high in self._store.rows(sql.sampled_since(run, since))}
        return [
            _Found(replace(hint, metrics=metrics.get(hint.stream, {}), sampled=sampled.get(hint.stream)), now)
            for hint, _, now in streams
        ]

    # Samples.

    def _derive_windows(self, ledger: Ledger) -> None:
        minutes = {run: span for run, span in self._minutes.items() if run in ledger}
        if not minutes:
            return
        self._store.run(sql.sample_windows(minutes, versions_of(ledger)))
        for run in minutes:
            del self._minutes[run]

    # Up to where it was made.

    def _load_cursors(self, streams: Iterable[StreamOf]) -> None:
        unknown = [stream for stream in streams if stream not in self._cursors]
        for at in range(0, len(unknown), 1000):
            some = unknown[at : at + 1000]
            found = {key: Cursor() for key in some}
            for project, run_id, stream, mark, hole_bytes in self._store.rows(sql.coverage(some)):
                found[Run(project, run_id), stream] = Cursor(mark, hole_bytes)
            self._cursors.update(found)

    def _move(self, stream: StreamOf, cursor: Cursor) -> None:
        if self._cursors.get(stream) != cursor:
            self._cursors[stream] = cursor
            self._unwritten.add(stream)

    def _cover(self) -> None:
        """Write the coverage of streams whose runs have nothing left to derive."""
        done = [
            key
            for key in self._unwritten
            if not self._dirty.holds(key[0]) and key[0] not in self._minutes and self._book.settled(key[0])
        ]
        if not done:
            return
        rows = [
            {
                "project": run.project,
                "run_id": run.run_id,
                "stream": stream,
                "mark": self._cursors[run, stream].mark,
                "hole_bytes": self._cursors[run, stream].hole_bytes,
                "revision": self._revisions.get((run, stream), 0),
            }
            for run, stream in done
        ]
        self._store.insert("coverage", pa.Table.from_pylist(rows, schema=_COVERAGE_SCHEMA))
        self._unwritten.difference_update(done)
        self._forget()

    def _forget(self) -> None:
        """Keep the memory bounded: cursors can be read again."""
        over = len(self._cursors) - self._most_cursors
        if over > 0:
            for key in [key for key in self._cursors if key not in self._unwritten][:over]:
                del self._cursors[key]
                self._revisions.pop(key, None)


_ROLES = {"rank": 1, "child": 2, "agent": 3, "user": 4}


def _by_stream(ready: Sequence[_Found]) -> dict[StreamOf, list[_Found]]:
    out: dict[StreamOf, list[_Found]] = {}
    for found in ready:
        out.setdefault(found.stream, []).append(found)
    return out


def _cursor_after(cursor: Cursor, stored: Stored, of_stream: Sequence[_Found]) -> Cursor:
    for found in of_stream:
        if found.swept is not None:
            cursor = found.swept
    return advanced(cursor, stored, [(found.hint.start, found.hint.end) for found in of_stream if found.swept is None])


def _from_start(row: LedgerRow) -> tuple[Hint, Cursor, Cursor]:
    hint = Hint(row.project, row.run_id, row.stream, 0, row.rank, row.attempt, 0, row.mark)
    return hint, Cursor(), Cursor(row.mark, row.stored.hole_bytes)
