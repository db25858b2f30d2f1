"""How many runs a project has open and how many metric names a run has, as far as this gateway has seen.

Promises: one run over a limit stops no other one. A range that has to wait comes back as Later, one that would give its
run too many names as a Refusal that names the key sets with such names. Memory: `RUNS` runs, `NAMES` names;
what was silent longest is forgotten first, and then has all its names again, so forgetting never refuses anything.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator

from google.protobuf.message import DecodeError

from runtide.gateway.limits import Limits, Rates, over
from runtide.v1 import ingest_pb2 as pb
from runtide.v1.records_pb2 import KeySet, Record
from runtide.wire import framing
from runtide.wire.books import is_book

OPEN_S = 60.0
"""A run is open while something of it comes at least this often; its agents say more than once in it that it lives."""
RETRY_S = 10.0
"""When a run that found no place tries again."""
RUNS = 100_000
NAMES = 1_000_000

RunKey = tuple[str, str]
"""Project and run id."""


class Runs:
    """What is remembered of runs."""

    def __init__(self, limits: Limits, rates: Rates, clock: Callable[[], float]) -> None:
        self._limits, self._rates, self._clock = limits, rates, clock
        self._open: OrderedDict[RunKey, float] = OrderedDict()
        """When something of a run was taken last; the most silent one stands first."""
        self._open_of: Counter[str] = Counter()
        """How many of them a project has."""
        self._names: OrderedDict[RunKey, set[int]] = OrderedDict()
        self._count = 0

    def judge(self, range_: pb.Range, checked: framing.Checked) -> pb.Refusal | pb.Later | None:
        """Say whether a sound range may be taken, and note what it brings if so."""
        if range_.HasField("ruling") or is_book(range_.run_id):
            return None
        return self._place(range_.project, range_.run_id) or self._judge_names(range_, checked)

    def _place(self, project: str, run_id: str) -> pb.Later | None:
        now, most, run = self._clock(), self._limits.project_open_runs, (project, run_id)
        while self._open and (len(self._open) > RUNS or now - next(iter(self._open.values())) > OPEN_S):
            (other, _), _ = self._open.popitem(last=False)
            self._open_of[other] -= 1
            if not self._open_of[other]:
                del self._open_of[other]
        if run not in self._open:
            if (count := self._open_of[project]) >= most:
                return _later("project_open_runs", most, project, f"run {run_id!r} beside {count} open runs", RETRY_S)
            self._open_of[project] += 1
        self._open[run] = now
        self._open.move_to_end(run)
        return None

    def _judge_names(self, range_: pb.Range, checked: framing.Checked) -> pb.Refusal | pb.Later | None:
        if not range_.key_sets and not checked.key_sets:
            return None
        project, most = range_.project, self._limits.run_metric_names
        known = self._names.setdefault((project, range_.run_id), set())
        self._names.move_to_end((project, range_.run_id))
        if len(self._names) > RUNS:  # those that had to wait for their names count nothing in NAMES
            self._count -= len(self._names.popitem(last=False)[1])
        over: list[int] = []
        too_many: set[int] = set()
        for key_set in _key_sets(range_, checked):
            new = {hash(name) for name in key_set.names} - known
            if not new:
                continue
            if len(known) + len(new) > most:
                over.append(key_set.id)
                too_many |= new
                continue
            if wait := self._rates.names(project, len(new)):
                limit = self._limits.project_new_names_per_h
                value = f"{len(new)} new metric names of run {range_.run_id!r}"
                return _later("project_new_names_per_h", limit, project, value, wait)
            known |= new
            self._count += len(new)
        while self._count > NAMES:
            self._count -= len(self._names.popitem(last=False)[1])
        return _too_many(range_, over, len(too_many), len(known), most) if over else None


def _too_many(range_: pb.Range, over: list[int], more: int, known: int, most: int) -> pb.Refusal:
    return pb.Refusal(
        code="metric_names",
        field="key_sets.names",
        value=f"{more} more beside {known} names of run {range_.run_id!r} of project {range_.project!r}",
        limit=f"at most {most} (run_metric_names): log under fewer names, or raise it with RUNTIDE_GATEWAY_LIMITS",
        offset=_first_use(range_, over[0]),
        key_sets=over,
    )


def _later(limit: str, most: int, project: str, value: str, wait_s: float) -> pb.Later:
    text = over(limit, most, project, value, wait_s)
    return pb.Later(limit=limit, text=text, retry_after_ms=math.ceil(min(wait_s, 3600) * 1000))


def _key_sets(range_: pb.Range, checked: framing.Checked) -> Iterator[KeySet]:
    yield from range_.key_sets
    for element in checked.key_sets:
        try:
            yield Record.FromString(range_.body[element.record : element.end]).key_set
        except DecodeError:
            continue  # the sink judges records


def _first_use(range_: pb.Range, key_set: int) -> int:
    """Offset of the first record that says or uses a key set; the range's own where none does."""
    body = range_.body
    for element in framing.elements(body):
        if framing.key_set_of(body, element) == key_set:
            return range_.offset + element.start
    return range_.offset
