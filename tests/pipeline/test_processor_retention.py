"""What is derived outlives the raw rows that retention deletes; what has expired is told apart from what is lost."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
from runtide.processor.deriver import Deriver
from runtide.processor.rebuild import rebuild
from runtide.sink.arrived import read
from runtide.sink.store import Store
from runtide.testing.streams import MadeStream
from runtide.v1 import records_pb2 as v1
from runtide.warehouse.client import Client
from runtide.warehouse.ledger import LedgerReader
from runtide.warehouse.verify import verify_run
from runtide.warehouse.writer import Writer

DAY_US = 86_400_000_000
DAYS = 30
RAW = ("points", "samples", "log_lines", "figures", "events")


@dataclass
class Kept:
    """A run of one stream, of which the records before `cut` came 40 days ago, the others when `late` says."""

    client: Client
    run_id: str
    late_days: int = 0
    days: int = DAYS
    days_late: int | None = None
    """The retention when the others came, where it was another one."""

    def __post_init__(self) -> None:
        now = time.time_ns() // 1000
        self.made = MadeStream("s", run_id=self.run_id)
        opened = v1.StreamOpened(time_us=now - 40 * DAY_US, role=v1.ROLE_RANK, launch_id="launch", name="a name")
        self.made.add(stream_opened=opened).key_set(1, "loss").steps(1, range(10)).close()
        self.cut = self.made.edges[8]
        old = self.made.message(self.made.range(0, self.cut), now - 40 * DAY_US)
        late = self.made.message(self.made.range(self.cut), now - self.late_days * DAY_US)
        for table in RAW:
            self.client.command(f"SYSTEM STOP TTL MERGES runtide.{table}")
        for message, days in ((old, self.days), (late, self.days if self.days_late is None else self.days_late)):
            Store(self.client, Writer(self.client), days).flush([read(message)])
        Deriver(lambda: self.client).settle()

    def expire(self) -> None:
        """Do what the store does by itself within hours."""
        for table in RAW:
            self.client.command(f"SYSTEM START TTL MERGES runtide.{table}")
            self.client.command(f"OPTIMIZE TABLE runtide.{table} FINAL")

    def derived(self) -> tuple[int, str]:
        """Points in the summary, and the name of the run."""
        counts = self.client.query(
            f"SELECT count FROM runtide.metric_summary WHERE run_id = '{self.run_id}' AND rank = -1"
        ).result_rows
        names = self.client.query(f"SELECT name FROM runtide.runs WHERE run_id = '{self.run_id}'").result_rows
        return sum(count for (count,) in counts), str(names[0][0])


@pytest.mark.parametrize("late_days", [0, 35])
def test_rebuild_keeps_what_was_derived_of_expired_rows(client: Client, late_days: int) -> None:
    kept = Kept(client, f"rebuilt-{late_days}", late_days)
    kept.expire()
    assert kept.derived() == (10, "a name")
    done = rebuild(client, "p", kept.run_id)
    assert (done.made, [run.run_id for run in done.kept]) == (0, [kept.run_id])
    assert kept.derived() == (10, "a name")
    assert rebuild(client, "p", kept.run_id, force=True).made == 1
    assert kept.derived()[0] < 10


@pytest.mark.parametrize("days_late", [0, 365])
def test_an_earlier_shorter_retention_is_remembered(client: Client, days_late: int) -> None:
    kept = Kept(client, f"longer-{days_late}", days_late=days_late)
    kept.expire()
    found = verify_run(client, "p", kept.run_id)
    assert found.problems == []
    assert len(found.expired) == 1
    assert rebuild(client, "p", kept.run_id).made == 0
    assert kept.derived() == (10, "a name")


def test_rebuild_keeps_runs_whose_rows_have_gone_whatever_the_ledger_says(client: Client) -> None:
    kept = Kept(client, "untold")
    kept.expire()
    client.command(
        "ALTER TABLE runtide.ledger UPDATE days = 0 WHERE run_id = 'untold' SETTINGS mutations_sync = 2"
    )  # as it is where the stream is older than the column
    assert rebuild(client, "p", "untold").made == 0
    assert kept.derived() == (10, "a name")
    assert rebuild(client, "p", "untold", force=True).made == 1


def test_rebuild_makes_runs_anew_that_have_not_come_whole(client: Client) -> None:
    made = MadeStream("s", run_id="holes").open().key_set(1, "loss").steps(1, range(10)).close()
    first, second, third = made.edges[4:7]
    parts = [made.range(0, first), made.range(second, third), made.range(made.edges[8])]
    Store(client, Writer(client)).flush([read(made.message(part)) for part in parts])
    assert len(verify_run(client, "p", "holes").problems) == 2
    assert rebuild(client, "p", "holes").made == 1


@pytest.mark.parametrize("days", [0, 50])
def test_rebuild_makes_runs_anew_of_which_nothing_has_expired(client: Client, days: int) -> None:
    kept = Kept(client, f"whole-{days}", days=days)
    kept.expire()
    done = rebuild(client, "p", kept.run_id)
    assert (done.made, done.kept) == (1, [])
    assert kept.derived() == (10, "a name")


def test_verify_names_expired_ranges_and_stays_clean(client: Client) -> None:
    part, whole = Kept(client, "part"), Kept(client, "whole", late_days=35)
    assert verify_run(client, "p", "part").expired == []
    part.expire()
    found = verify_run(client, "p", "part")
    assert found.problems == []
    assert found.expired == [f"stream s (rank 0): bytes [0, {part.cut}) have expired, before step 6 in points"]
    found = verify_run(client, "p", "whole")
    assert found.problems == []
    assert found.expired == [f"stream s (rank 0): bytes [0, {len(whole.made.body)}) have expired"]


def test_verify_tells_a_lost_record_from_expired_ones(client: Client) -> None:
    kept = Kept(client, "lost")
    kept.expire()
    client.command("ALTER TABLE runtide.points DELETE WHERE run_id = 'lost' AND step = 8 SETTINGS mutations_sync = 2")
    found = verify_run(client, "p", "lost")
    assert len(found.expired) == 1
    start, end = kept.made.edges[10:12]
    assert found.problems == [
        f"stream s (rank 0): bytes [{start}, {end}) are in no table, between step 7 and step 9 in points"
    ]


def test_a_run_whose_openings_have_expired_goes_on_with_the_next_attempt(client: Client) -> None:
    kept = Kept(client, "resumed", late_days=35)
    kept.expire()
    facts = LedgerReader(kept.client).run_facts("p", "resumed", "another launch")
    assert (facts.exists, facts.attempt) == (True, 2)
