"""What is a flood of refusals, and what is only a job that writes bad records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set

import pytest
from runtide.bus import Message
from runtide.sink.arrived import Arrived, read
from runtide.sink.flood import Flood, Flooded, RunKey, Understood
from runtide.testing.streams import NOW_US, MadeStream


def nobody(kind: str, runs: Set[RunKey]) -> Set[RunKey]:
    return set()


def everybody(kind: str, runs: Set[RunKey]) -> Set[RunKey]:
    return runs


def said(run: str, bad: int = 0, good: int = 0, rank: int = 0, project: str = "p") -> Arrived:
    """Steps of a run, the bad ones of a key set that nobody has defined."""
    made = MadeStream(f"{run}-{rank}", project, run, rank).key_set(1, "loss").steps(1, range(good))
    for step in range(bad):
        made.step(9, step, 1.0)
    return read(made.message(made.range()))


def note(flood: Flood, part: Arrived, understood: Understood = everybody, *, shared: bool = False) -> None:
    flood.refused(part, part.said.dead, understood, lambda part: shared)
    flood.stored(part, Counter())


def test_two_runs_that_were_understood_before_are_a_flood() -> None:
    flood = Flood(100)
    note(flood, said("a", 60))
    with pytest.raises(Flooded, match=r"partition 0: 100 step records of 2 runs are refused.*unknown key set"):
        note(flood, said("b", 60))


def test_no_project_stops_the_others() -> None:
    flood = Flood(100)
    for run in ("a", "b", "c"):
        note(flood, said(run, 100), shared=True)
    with pytest.raises(Flooded):
        note(flood, said("d", 1, project="q"), shared=True)


def test_one_job_is_one_vote_however_many_ranks_it_has() -> None:
    flood = Flood(100)
    for rank in range(200):
        note(flood, said("a", 50, rank=rank))


def test_new_jobs_that_never_wrote_a_good_record_stop_nobody() -> None:
    flood = Flood(100)
    for run in range(200):
        note(flood, said(f"r{run}", 50), nobody)


def test_two_bad_jobs_among_good_ones_stop_nobody() -> None:
    flood = Flood(100)
    for _ in range(100):
        for run in ("good1", "good2"):
            note(flood, said(run, good=1))
        for run in ("bad1", "bad2"):
            note(flood, said(run, 20))


def test_records_that_are_half_good_are_no_flood() -> None:
    flood = Flood(100)
    for _ in range(100):
        parts = [said(run, 60, good=10) for run in ("a", "b")]
        for part in parts:  # of one flush: all are judged before anything is stored
            flood.refused(part, part.said.dead, everybody, lambda part: False)
        for part in parts:
            flood.stored(part, Counter())


def test_what_is_stored_makes_up_for_what_was_refused() -> None:
    flood = Flood(100)
    for _ in range(10):
        for run in ("a", "b"):
            note(flood, said(run, 40))
            note(flood, said(run, good=40))


def test_what_another_run_stores_makes_up_for_as_many() -> None:
    flood = Flood(100)
    for _ in range(6):  # of each turn ten are left
        note(flood, said("a", 20))
        note(flood, said("b", 20))
        note(flood, said("c", good=30))
    note(flood, said("a", 20))
    with pytest.raises(Flooded):
        note(flood, said("b", 20))


def test_what_was_made_up_for_is_forgotten_and_so_is_what_was_stored() -> None:
    flood = Flood(100)
    note(flood, said("a", 40))
    note(flood, said("b", 40))
    note(flood, said("c", good=1000))
    note(flood, said("a", 50))
    with pytest.raises(Flooded):
        note(flood, said("b", 50))


def test_other_kinds_do_not_vouch_for_a_kind() -> None:
    flood = Flood(100)
    sound = MadeStream("s", run_id="a").open()
    for _ in range(9):
        note(flood, read(sound.message(sound.range())))
        note(flood, said("a", 5))
        note(flood, said("b", 5))
    with pytest.raises(Flooded):
        note(flood, said("a", 10))


def test_messages_that_are_no_ranges_are_a_flood_by_themselves() -> None:
    flood = Flood(100)
    for number in range(99):
        note(flood, read(Message("p", b"k", b"\xff\xff", NOW_US + number)), nobody)
    with pytest.raises(Flooded):
        note(flood, read(Message("p", b"k", b"\xff\xff", NOW_US)), nobody)


def test_zero_lets_everything_pass() -> None:
    flood = Flood(0)
    for run in ("a", "b", "c"):
        note(flood, said(run, 1000))


def test_a_flush_that_did_not_hold_has_not_counted() -> None:
    flood = Flood(100)
    note(flood, said("a", 10))
    for _ in range(10):
        tried = flood.copy()
        note(tried, said("a", 30))
        note(tried, said("b", 30))
    note(flood, said("a", 30))
