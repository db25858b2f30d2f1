"""What a gateway remembers of runs has a bound, whatever they send."""

from __future__ import annotations

from runtide.gateway import runs
from runtide.gateway.limits import Limits, Rates
from runtide.v1.ingest_pb2 import Range
from runtide.v1.records_pb2 import KeySet
from runtide.wire.framing import Checked


def test_runs_that_wait_for_their_names_are_forgotten_too() -> None:
    """They bring no name, so the bound of names alone would let them grow for ever."""
    now = [0.0]
    limits = Limits(project_new_names_per_h=1)
    known = runs.Runs(limits, Rates(limits, lambda: now[0]), lambda: now[0])
    later = 0
    for number in range(runs.RUNS + 100):
        now[0] += 0.02
        told = Range(project="p", run_id=f"run{number}", key_sets=[KeySet(id=1, names=["a"])])
        later += known.judge(told, Checked()) is not None
    assert later > runs.RUNS // 2
    assert len(known._names) <= runs.RUNS
