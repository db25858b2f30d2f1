"""The sink against a real engine: stored exactly once, wherever a flush breaks off.

Measured on the base tables without FINAL, so that no merge hides a copy.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import nullcontext

import pyarrow as pa
import pytest
from runtide.bus import Message
from runtide.sink.arrived import read
from runtide.sink.store import Store, TakenAway
from runtide.testing.streams import NOW_US, MadeStream, varied_stream
from runtide.v1 import records_pb2 as v1
from runtide.warehouse.client import Client
from runtide.warehouse.errors import RowsRefused, StoreBusy, StoreMisconfigured
from runtide.warehouse.verify import Verification, verify_run
from runtide.warehouse.writer import Writer
from runtide.wire.decode import decode

TABLES = ("dead_letters", "points", "samples", "log_lines", "figures", "events", "ledger")


class Faulty:
    """A writer that breaks off once, at a chosen insert."""

    def __init__(self, client: Client, at: int, *, stored: bool, error: Exception) -> None:
        self._writer = Writer(client)
        self._left, self._stored, self._error = at, stored, error

    def insert(self, table: str, batch: pa.RecordBatch) -> None:
        self._left -= 1
        if self._left != 0:
            return self._writer.insert(table, batch)
        if self._stored:
            self._writer.insert(table, batch)
        raise self._error

    def settle(self, others: bool = False) -> None:
        self._writer.settle(others)


class Killed(BaseException):
    """The process is gone: nothing after this line of the sink runs."""


def messages(made: MadeStream, dice: random.Random, pieces: int = 5) -> list[Message]:
    return [made.message(range_) for range_ in made.cut(dice, pieces)]


def flush(store: Store, batch: Sequence[Message]) -> None:
    store.flush([read(message) for message in batch])


def assert_exact(client: Client, made: MadeStream) -> Verification:
    """Every record of the stream is stored once, and the ledger says so."""
    found = verify_run(client, made.project, made.run_id)
    assert found.problems == []
    (stream,) = [stream for stream in found.streams if stream.stream == made.stream]
    said = decode(made.range(), bytes(made.body))
    assert stream.declared_end == len(made.body) == stream.ledger_mark
    assert (stream.stored_points, stream.dead) == (len(said.steps.values), len(said.dead))
    assert (stream.ledger_records, stream.ledger_points) == (said.records, len(said.steps.values))
    assert stream.duplicates == 0
    row = client.query(
        "SELECT last_step, dead, gaps, holes, opened_at IS NULL, closed_at IS NULL FROM runtide.streams "
        "WHERE project = {p:String} AND run_id = {r:String} AND stream = {s:String}",
        parameters={"p": made.project, "r": made.run_id, "s": made.stream},
    ).result_rows
    assert row == [(max(said.steps.step), len(said.dead), 0, [], 0, 0)]
    return found


@pytest.mark.fault(6)
def test_a_stream_with_every_kind_is_stored_and_verifies(client: Client) -> None:
    made = varied_stream("kinds", run_id="kinds")
    hints = Store(client, Writer(client)).flush([read(made.message(made.range()))])
    assert_exact(client, made)
    (hint,) = hints
    assert hint.metrics == {"loss": (0, 39), "acc": (0, 39), "lr": (0, 39)}
    assert (hint.start, hint.end) == (0, len(made.body))
    assert hint.kinds == {"stream_opened", "key_set", "stream_closed", "figure"}
    assert hint.sampled == (NOW_US, NOW_US + 35)


@pytest.mark.fault(16)
@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("at", range(1, len(TABLES) + 1))
@pytest.mark.parametrize("error", [Killed(), StoreBusy("the connection was cut")], ids=["killed", "unknown"])
def test_wherever_a_flush_breaks_off_the_next_one_mends_it(
    client: Client, at: int, stored: bool, error: Exception
) -> None:
    """Killed: a new sink reads all again, at other edges, copies among it. Unknown: the same sink finds out itself."""
    run = f"broken-{type(error).__name__}-{at}-{stored}"
    made = varied_stream("s", run_id=run)
    dice = random.Random(run)
    first = messages(made, dice)
    store = Store(client, Faulty(client, at, stored=stored, error=error), backoff_s=(0.001, 0.01))
    if isinstance(error, Killed):
        with pytest.raises(Killed):
            flush(store, first[:4])
        again = messages(made, dice, 9)
        store = Store(client, Writer(client))
        flush(store, again[:5])
        flush(store, again[3:])
        assert store.counters.retries == 0
    else:
        flush(store, first[:4])
        flush(store, first[2:])
        assert store.counters.retries == 1
    assert_exact(client, made)


@pytest.mark.fault(6)
@pytest.mark.parametrize("seed", range(6))
def test_late_copied_and_recut_ranges_with_deaths_in_between(client: Client, seed: int) -> None:
    dice = random.Random(seed)
    streams = [varied_stream(f"s{rank}", 60, run_id=f"shuffled-{seed}", rank=rank) for rank in range(3)]
    sent = [message for made in streams for _ in range(2) for message in messages(made, dice, 7)]
    dice.shuffle(sent)
    store = Store(client, Writer(client))
    while sent:
        count = dice.randint(1, 6)
        if dice.random() < 0.4:
            fault = Faulty(client, dice.randint(1, 7), stored=dice.random() < 0.5, error=Killed())
            try:
                flush(Store(client, fault), sent[:count])
            except Killed:
                store = Store(client, Writer(client))
                continue
            store = Store(client, Writer(client))
        else:
            flush(store, sent[:count])
        sent = sent[count:]
    for made in streams:
        assert_exact(client, made)


@pytest.mark.fault(17)
def test_two_sinks_that_take_over_from_each_other(client: Client) -> None:
    """A start past the mark makes a sink look again by itself; otherwise the change of partitions makes it forget."""
    made = varied_stream("s", run_id="handover")
    parts = messages(made, random.Random(3), 6)
    one, other = Store(client, Writer(client)), Store(client, Writer(client))
    flush(one, parts[:2])
    flush(other, parts[:4])
    flush(one, parts[3:])
    other.forget()
    flush(other, parts[4:])
    assert_exact(client, made)


@pytest.mark.fault(17)
@pytest.mark.parametrize("inserts", range(1, 7))
def test_a_flush_whose_streams_are_taken_away_stops_before_its_next_insert(client: Client, inserts: int) -> None:
    made = varied_stream("s", run_id=f"taken-{inserts}")
    parts = messages(made, random.Random(inserts), 4)
    left = iter([True] * (1 + inserts))  # it asks once more, before it begins
    one, other = Store(client, Writer(client)), Store(client, Writer(client))
    with pytest.raises(TakenAway):
        one.flush([read(message) for message in parts], lambda: nullcontext(next(left, False)))
    other.forget(others=True)
    flush(other, parts)
    assert_exact(client, made)


@pytest.mark.fault(25)
def test_a_late_range_fills_its_hole(client: Client) -> None:
    made = varied_stream("s", run_id="late")
    edges = made.edges
    middle, late = made.range(edges[10], edges[30]), made.range(edges[3], edges[10])
    store = Store(client, Writer(client))
    flush(store, [made.message(made.range(0, edges[3])), made.message(middle)])
    found = verify_run(client, "p", "late").streams[0]
    assert [(gone.start, gone.end, gone.is_hole) for gone in found.missing] == [(edges[3], edges[10], True)]
    flush(store, [made.message(late)])
    flush(store, [made.message(made.range(edges[30]))])
    assert_exact(client, made)


@pytest.mark.fault(25)
def test_a_declared_gap_moves_the_mark_and_is_told(client: Client) -> None:
    made = varied_stream("s", run_id="gap")
    edges = made.edges
    store = Store(client, Writer(client))
    flush(store, [made.message(made.range(0, edges[10]))])
    flush(store, [made.message(made.gap(edges[10], edges[15], records=5))])
    flush(store, [made.message(made.gap(edges[10], edges[15], records=5)), made.message(made.range(edges[15]))])
    fresh = Store(client, Writer(client))
    flush(fresh, [made.message(made.gap(edges[10], edges[15], records=5)), made.message(made.range(edges[15]))])
    found = verify_run(client, "p", "gap")
    assert found.clean, found.problems
    assert (found.gaps, found.streams[0].lost_records) == (5, 5)
    assert client.query("SELECT stored_offset, gaps, holes FROM runtide.streams WHERE run_id = 'gap'").result_rows == [
        (len(made.body), 5, [])
    ]


@pytest.mark.fault(25)
def test_what_the_stream_itself_gave_up_counts_as_a_gap(client: Client) -> None:
    made = MadeStream("s", run_id="dropped").open().key_set(1, "a").steps(1, [1])
    made.add(gap=v1.Gap(time_us=NOW_US, reason="spool_full", records=12, points=12)).steps(1, [9]).close()
    flush(Store(client, Writer(client)), [made.message(made.range())])
    found = verify_run(client, "p", "dropped")
    assert found.clean, found.problems
    assert found.gaps == 12
    assert client.query("SELECT gaps, records FROM runtide.streams WHERE run_id = 'dropped'").result_rows == [(12, 6)]


@pytest.mark.fault(19)
def test_a_row_that_the_store_refuses_becomes_a_dead_letter_and_its_neighbours_are_stored(client: Client) -> None:
    class Picky(Writer):
        """Refuses step 13, as a server would that cannot convert a value."""

        def insert(self, table: str, batch: pa.RecordBatch) -> None:
            if table == "points" and 13 in batch["step"].to_pylist():
                raise RowsRefused("Code: 131. too large", 131)
            super().insert(table, batch)

    made = MadeStream("s", run_id="refused").open().key_set(1, "a", "b").steps(1, range(40)).close()
    store = Store(client, Picky(client))
    flush(store, messages(made, random.Random(1), 3))
    found = verify_run(client, "p", "refused")
    assert found.clean, found.problems
    assert (found.stored_points, found.dead, store.counters.dead) == (78, 1, 1)
    (row,) = client.query(
        "SELECT kind, reason, bytes = unhex({raw:String}) FROM runtide.dead_letters WHERE run_id = 'refused'",
        parameters={"raw": bytes(made.body[made.edges[15] : made.edges[16]]).hex()},
    ).result_rows
    assert row == ("points", "the store refuses it for points: Code: 131. too large", 1)
    flush(Store(client, Writer(client)), messages(made, random.Random(2), 4))
    assert verify_run(client, "p", "refused").clean


@pytest.mark.fault(13)
def test_a_message_that_cannot_be_read_is_one_dead_letter(client: Client) -> None:
    message = Message("unreadable", b"k", b"\xff\xff\xff", NOW_US)
    for _ in range(2):
        flush(Store(client, Writer(client)), [message])
    rows = client.query("SELECT hex(bytes), reason FROM runtide.dead_letters WHERE project = 'unreadable'").result_rows
    assert len(rows) == 1
    assert rows[0][0] == "FFFFFF"
    assert "not a range of this wire" in rows[0][1]


@pytest.mark.fault(20)
def test_ranges_of_two_months_are_stored_in_two_blocks(client: Client) -> None:
    made = varied_stream("s", run_id="months")
    edges = made.edges
    later = NOW_US + 40 * 86_400 * 1_000_000
    flush(
        Store(client, Writer(client)),
        [made.message(made.range(0, edges[20])), made.message(made.range(edges[20]), later)],
    )
    assert_exact(client, made)
    months = client.query("SELECT uniqExact(toYYYYMM(received_at)) FROM runtide.points WHERE run_id = 'months'")
    assert months.result_rows == [(2,)]


@pytest.mark.fault(25)
def test_the_agents_finding_closes_a_stream_that_had_no_last_word(client: Client) -> None:
    made = MadeStream("s", run_id="ended").open().key_set(1, "a").steps(1, range(3))
    agent = MadeStream("agent", run_id="ended", rank=-1, role=v1.ROLE_AGENT).open()
    agent.add(stream_ended=v1.StreamEnded(time_us=NOW_US + 5, stream="s", offset=len(made.body), signal="SIGKILL"))
    store = Store(client, Writer(client))
    flush(store, [made.message(made.range())])
    flush(store, [agent.message(agent.range())])
    found = client.query("SELECT closed_at FROM runtide.streams WHERE run_id = 'ended' AND stream = 's'").result_rows
    assert found[0][0] is not None
    verified = verify_run(client, "p", "ended")
    assert verified.clean, verified.problems
    assert verified.streams[0].declared_end == len(made.body)


@pytest.mark.fault(19)
def test_a_missing_table_stops_the_sink_and_says_so(client: Client) -> None:
    class Renamed(Writer):
        """Writes to a table that is not there."""

        def insert(self, table: str, batch: pa.RecordBatch) -> None:
            super().insert(f"{table}_gone", batch)

    made = varied_stream("s", run_id="misconfigured")
    with pytest.raises(StoreMisconfigured, match="dead_letters_gone"):
        flush(Store(client, Renamed(client)), [made.message(made.range())])


@pytest.mark.fault(20)
def test_one_block_is_one_part(client: Client) -> None:
    """What `all or nothing` rests on: the engine must not split a block of the size that the sink makes."""
    made = MadeStream("s", run_id="large").key_set(1, *(f"m{n}" for n in range(200))).steps(1, range(1000))
    made.names.clear()
    store = Store(client, Writer(client))
    client.command("SYSTEM STOP MERGES runtide.points")
    try:
        before = client.query("SELECT count() FROM system.parts WHERE table = 'points' AND active").result_rows[0][0]
        flush(store, [made.message(made.range())])
        after = client.query("SELECT count() FROM system.parts WHERE table = 'points' AND active").result_rows[0][0]
    finally:
        client.command("SYSTEM START MERGES runtide.points")
    assert client.query("SELECT count() FROM runtide.points WHERE run_id = 'large'").result_rows == [(200_000,)]
    assert after - before == 1


@pytest.mark.fault(13)
def test_a_gap_that_claims_more_than_can_be_is_a_dead_letter_and_stops_nobody(client: Client) -> None:
    made = MadeStream("s", run_id="huge gap").open().key_set(1, "a").steps(1, range(3))
    for _ in range(2):
        made.add(gap=v1.Gap(time_us=NOW_US, reason="spool_full", records=2**64 - 1))
    made.steps(1, range(3, 6))
    flush(Store(client, Writer(client)), [made.message(made.range())])
    found = verify_run(client, "p", "huge gap")
    assert (found.stored_points, found.dead, found.gaps) == (6, 2, 0)
