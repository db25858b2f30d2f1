"""Dead letters that are judged again, against a real engine: stored once, wherever it breaks off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest
from runtide.bus import Message
from runtide.cli.letters import NO_RUN, Choice, find
from runtide.processor.deriver import Deriver
from runtide.sink.arrived import read
from runtide.sink.store import Store
from runtide.testing.embedded import EmbeddedClickHouse
from runtide.testing.streams import NOW_US, MadeStream
from runtide.v1 import records_pb2 as v1
from runtide.v1.ingest_pb2 import Range, Ruling
from runtide.warehouse.client import ClickHouseSettings, Client, connect
from runtide.warehouse.dead_letters import Letter, Which, count_letters, found_letters, list_letters, rulings_of
from runtide.warehouse.errors import RowsRefused, StoreBusy
from runtide.warehouse.verify import Verification, verify_run
from runtide.warehouse.writer import Inserts, Writer
from runtide.wire.hints import Hint

pytestmark = pytest.mark.fault(14)


class Breaking:
    """A writer that breaks off once, at a chosen insert."""

    def __init__(self, client: Client, at: int, *, stored: bool) -> None:
        self._writer = Writer(client)
        self._left, self._stored = at, stored

    def insert(self, table: str, batch: pa.RecordBatch) -> None:
        self._left -= 1
        if self._left != 0:
            return self._writer.insert(table, batch)
        if self._stored:
            self._writer.insert(table, batch)
        raise Killed

    def settle(self, others: bool = False) -> None:
        self._writer.settle(others)


class Picky:
    """A store that will not take points of one metric, as long as it is picky."""

    def __init__(self, client: Client, metric: str) -> None:
        self._writer = Writer(client)
        self._metric = metric
        self.picky = True

    def insert(self, table: str, batch: pa.RecordBatch) -> None:
        if self.picky and table == "points" and self._metric in batch.column("metric").to_pylist():
            raise RowsRefused(f"no {self._metric} here", 117)
        self._writer.insert(table, batch)

    def settle(self, others: bool = False) -> None:
        self._writer.settle(others)


class Killed(BaseException):
    """The process is gone: nothing after this line of the sink runs."""


def flush(store: Store, *batch: Message) -> list[Hint]:
    return store.flush([read(message) for message in batch])


def ruling(made: MadeStream, offsets: Sequence[int], discard: str = "") -> Message:
    range_ = Range(stream=made.stream, run_id=made.run_id, rank=made.rank, offset=min(offsets))
    range_.ruling.CopyFrom(Ruling(offsets=offsets, by="ann", discard=discard))
    return made.message(range_)


def unnamed_stream(run: str) -> tuple[MadeStream, Message]:
    """A stream whose steps come before the key set that they use, as a sink with a fault would see it."""
    made = MadeStream("s", run_id=run).open().key_set(1, "loss", "acc").steps(1, range(10)).close()
    whole = made.range()
    del whole.key_sets[:]
    body = bytearray(whole.body)
    at = made.edges[1]
    body[at + 4] ^= 0xFF  # in the key set: its crc does not fit, and no step is understood
    whole.body = bytes(body)
    return made, made.message(whole)


def spoiled(client: Client, run: str) -> MadeStream:
    """Stored with one dead record in each table's kind, all of which the same decoder takes when asked again.

    The letters' bytes are put right behind the sink's back: for the sink that is a release that understands them.
    """
    made = MadeStream("s", run_id=run).open().key_set(1, "loss", "acc").steps(1, range(4))
    made.add(log_line=v1.LogLine(time_us=NOW_US, console=v1.CONSOLE_STDOUT, line="said"))
    made.add(sample=v1.Sample(time_us=NOW_US, readings=[v1.Reading(name="cpu_percent", value=1)]))
    made.steps(1, [4]).close()
    whole = made.range()
    edges = made.edges
    body = bytearray(whole.body)
    dead = [edges[1], edges[3], edges[6], edges[7]]
    for at in dead:
        end = edges[edges.index(at) + 1]
        body[end - 1] ^= 0xFF
    whole.body = bytes(body)
    whole.ClearField("key_sets")
    flush(Store(client, Writer(client)), made.message(whole))
    for at in edges[:-1]:
        end = edges[edges.index(at) + 1]
        client.command(
            f"INSERT INTO runtide.dead_letters SELECT * REPLACE(unhex('{bytes(made.body[at:end]).hex()}') AS bytes) "
            f"FROM runtide.dead_letters FINAL WHERE run_id = '{run}' AND offset = {at}"
        )
    client.command("OPTIMIZE TABLE runtide.dead_letters FINAL")
    return made


def letters(client: Client, run: str, *, done: bool = False) -> list[Letter]:
    return sorted(list_letters(client, "p", run, limit=1000, done=done), key=lambda letter: letter.offset)


def assert_whole(client: Client, made: MadeStream) -> Verification:
    found = verify_run(client, made.project, made.run_id)
    assert found.problems == []
    assert (found.dead, found.duplicates, found.stored_points) == (0, 0, made.points)
    assert found.stored_records == found.declared_records
    rows = client.query(
        "SELECT records, points, dead, holes, stored_offset FROM runtide.streams WHERE run_id = {run:String}",
        parameters={"run": made.run_id},
    ).result_rows
    assert rows == [(len(made.edges) - 1, made.points, 0, [], len(made.body))]
    return found


def test_replayed_letters_fall_into_their_places(client: Client) -> None:
    made = spoiled(client, "replay")
    dead = letters(client, "replay")
    assert len(dead) >= 4
    before = verify_run(client, "p", "replay")
    assert before.clean
    assert before.dead == len(dead)
    store = Store(client, Writer(client))
    hints = flush(store, ruling(made, [letter.offset for letter in dead]))
    assert_whole(client, made)
    assert len(hints) == len(dead)
    assert any(hint.metrics for hint in hints)
    assert letters(client, "replay") == []
    assert {letter.fate for letter in letters(client, "replay", done=True)} == {"replayed"}
    rows = client.query("SELECT count() FROM runtide.points").result_rows
    assert flush(store, ruling(made, [letter.offset for letter in dead])) == []
    assert flush(Store(client, Writer(client)), ruling(made, [letter.offset for letter in dead])) == []
    assert client.query("SELECT count() FROM runtide.points").result_rows == rows
    assert_whole(client, made)


@pytest.mark.parametrize("stored", [True, False], ids=["stored", "not stored"])
@pytest.mark.parametrize("at", range(1, 9))
def test_wherever_a_replay_breaks_off_the_next_one_goes_on(client: Client, at: int, stored: bool) -> None:
    run = f"cut-{at}-{stored}"
    made = spoiled(client, run)
    word = ruling(made, [letter.offset for letter in letters(client, run)])
    with pytest.raises(Killed):
        flush(Store(client, Breaking(client, at, stored=stored)), word)
    assert verify_run(client, "p", run).missing_ranges == 0
    flush(Store(client, Writer(client)), word)
    assert letters(client, run) == []
    assert_whole(client, made)


@pytest.mark.parametrize("at", range(1, 9))
def test_a_letter_may_be_given_up_after_a_replay_that_broke_off(client: Client, at: int) -> None:
    run = f"given-up-{at}"
    made = spoiled(client, run)
    offsets = [letter.offset for letter in letters(client, run)]
    with pytest.raises(Killed):
        flush(Store(client, Breaking(client, at, stored=True)), ruling(made, offsets))
    flush(Store(client, Writer(client)), ruling(made, offsets, discard="enough"))
    assert letters(client, run) == []
    found = verify_run(client, "p", run)
    assert found.problems == []
    assert found.dead == found.discarded
    rows = client.query(f"SELECT dead, holes, records + dead FROM runtide.streams WHERE run_id = '{run}'").result_rows
    assert rows == [(found.dead, [], len(made.edges) - 1)]


def test_what_fails_again_stays_with_the_new_reason(client: Client) -> None:
    made, message = unnamed_stream("again")
    flush(Store(client, Writer(client)), message)
    dead = letters(client, "again")
    assert len(dead) == 11
    before = client.query("SELECT * FROM runtide.streams WHERE run_id = 'again'").result_rows
    flush(Store(client, Writer(client)), ruling(made, [letter.offset for letter in dead]))
    after = letters(client, "again")
    assert [letter.reason for letter in after] == ["crc does not fit"] + 10 * ["unknown key set"]
    assert {(letter.fate, letter.by, letter.revision) for letter in after} == {("refused", "ann", 1)}
    assert client.query("SELECT * FROM runtide.streams WHERE run_id = 'again'").result_rows == before
    assert verify_run(client, "p", "again").clean


def test_what_the_store_refuses_again_stays_until_it_takes_it(client: Client) -> None:
    made = MadeStream("s", run_id="picky").open().key_set(1, "loss").key_set(2, "odd").steps(1, range(5))
    made.steps(2, [1, 2]).steps(1, [5, 6]).close()
    picky: Inserts = Picky(client, "odd")
    store = Store(client, picky)
    flush(store, made.message(made.range()))
    offsets = [letter.offset for letter in letters(client, "picky")]
    assert len(offsets) == 2
    flush(store, ruling(made, offsets))
    again = letters(client, "picky")
    assert [(letter.fate, letter.revision) for letter in again] == [("refused", 2)] * 2
    assert all("no odd here" in letter.reason for letter in again)
    assert verify_run(client, "p", "picky").clean
    picky.picky = False  # type: ignore[attr-defined]
    flush(store, ruling(made, offsets))
    assert_whole(client, made)


def test_a_discarded_letter_is_a_declared_loss(client: Client) -> None:
    made = spoiled(client, "discard")
    first, *rest = (letter.offset for letter in letters(client, "discard"))
    store = Store(client, Writer(client))
    flush(store, ruling(made, [first], discard="a test that went wrong"))
    flush(store, ruling(made, [first]))  # given up is given up
    found = verify_run(client, "p", "discard")
    assert found.clean
    assert (found.discarded, found.dead) == (1, 1 + len(rest))
    (said,) = found.streams[0].discards
    assert said.startswith(f"dead letter at {first} discarded by ann on ")
    assert said.endswith(": a test that went wrong")
    assert [letter.offset for letter in letters(client, "discard")] == rest


def test_rulings_are_kept_with_who_with_which_token_when_and_why(client: Client) -> None:
    made, message = unnamed_stream("audited")
    flush(Store(client, Writer(client)), message)
    first, second, *_ = (letter.offset for letter in letters(client, "audited"))

    def say(offset: int, **said: str) -> None:
        range_ = Range(stream=made.stream, run_id=made.run_id, offset=offset)
        range_.ruling.CopyFrom(Ruling(offsets=[offset], **said))
        flush(Store(client, Writer(client)), made.message(range_))

    say(second, by="ann@desk", why="fixed in 1.4", token="4f1c admin ann")
    say(second, by="bob@desk", discard="not worth it", token="77d2 admin bob")
    say(first, by="eve@desk", discard="by hand")
    rows = client.query(
        "SELECT offset, revision, fate, by, token, why, refusal, at > now() - 60 FROM runtide.dead_letter_rulings "
        "WHERE run_id = 'audited' ORDER BY offset, revision"
    ).result_rows
    assert rows == [
        (first, 1, "discarded", "eve@desk", "", "by hand", "", 1),
        (second, 1, "refused", "ann@desk", "4f1c admin ann", "fixed in 1.4", "unknown key set", 1),
        (second, 2, "discarded", "bob@desk", "77d2 admin bob", "not worth it", "", 1),
    ]
    told = [(each.offset, each.fate, each.by, each.why) for each in rulings_of(client, "p", "audited", "s", [second])]
    assert told == [(second, "refused", "ann@desk", "fixed in 1.4"), (second, "discarded", "bob@desk", "not worth it")]


def test_what_was_discarded_before_reasons_were_kept_apart_still_says_why(client: Client) -> None:
    client.command(
        "INSERT INTO runtide.dead_letter_fates (project, run_id, stream, offset, revision, fate, reason, by, at) "
        "VALUES ('p', 'older', 's', 7, 1, 'discarded', 'a test', 'ann', now()), "
        "('p', 'older', 's', 9, 1, 'refused', 'crc does not fit', 'ann', now())"
    )
    rows = client.query(
        "SELECT why, token, refusal FROM runtide.dead_letter_rulings WHERE run_id = 'older' ORDER BY offset"
    )
    assert rows.result_rows == [("a test", "", ""), ("", "", "crc does not fit")]


def test_letters_are_found_by_state_and_by_words(client: Client) -> None:
    made = spoiled(client, "sought")
    first, *rest = (letter.offset for letter in letters(client, "sought"))
    flush(Store(client, Writer(client)), ruling(made, [first], discard="enough"))

    def offsets(*, limit: int = 100, skip: int = 0, **which: Any) -> list[int]:
        found = found_letters(client, Which("p", "sought", **which), limit=limit, skip=skip)
        return sorted(letter.offset for letter in found)

    assert offsets() == sorted([first, *rest])
    assert offsets(states=["pending"]) == sorted(rest)
    assert offsets(states=["discarded"]) == [first]
    assert offsets(text="CRC fit") == offsets(text="CRC")
    assert offsets(text="it's %_ \\") == []
    assert len(offsets(limit=2)) == 2
    assert sorted([*offsets(limit=2), *offsets(limit=100, skip=2)]) == offsets()
    assert count_letters(client, Which("p", "sought")) == {"pending": len(rest), "discarded": 1}
    assert count_letters(client, Which("p", no_run=True)) == {}


def test_a_ruling_on_what_is_no_dead_letter_changes_nothing(client: Client) -> None:
    made = spoiled(client, "wrong")
    before = client.query("SELECT * FROM runtide.ledger FINAL WHERE run_id = 'wrong'").result_rows
    assert flush(Store(client, Writer(client)), ruling(made, [0, 10**9])) == []
    assert client.query("SELECT * FROM runtide.ledger FINAL WHERE run_id = 'wrong'").result_rows == before


def test_a_ruling_and_new_bytes_may_come_together(client: Client) -> None:
    made = MadeStream("s", run_id="both").open().key_set(1, "loss").steps(1, range(3))
    edge = len(made.body)
    broken = made.range()
    body = bytearray(broken.body)
    body[-1] ^= 0xFF
    broken.body = bytes(body)
    store = Store(client, Writer(client))
    flush(store, made.message(broken))
    made.steps(1, range(3, 6)).close()
    (dead,) = letters(client, "both")
    flush(store, ruling(made, [dead.offset]), made.message(made.range(edge)))
    assert [letter.fate for letter in letters(client, "both")] == ["refused"]
    found = verify_run(client, "p", "both")
    assert found.clean
    assert found.dead == 1


def test_the_store_away_in_the_middle_is_waited_for(client: Client) -> None:
    made = spoiled(client, "away")

    class Away(Writer):
        left = 3

        def insert(self, table: str, batch: pa.RecordBatch | pa.Table) -> None:
            self.left -= 1
            if self.left == 0:
                raise StoreBusy("cut")
            super().insert(table, batch)

    store = Store(client, Away(client), backoff_s=(0.001, 0.01))
    flush(store, ruling(made, [letter.offset for letter in letters(client, "away")]))
    assert store.counters.retries == 1
    assert_whole(client, made)


def test_derived_rows_follow_without_a_hint(client: Client, embedded_clickhouse: EmbeddedClickHouse) -> None:
    """As with Kafka, where nobody tells the processor what the sink has stored."""

    def summary() -> list[tuple[object, ...]]:
        return list(
            client.query(
                "SELECT metric, count, max FROM runtide.metric_summary "
                "WHERE run_id = 'derived' AND rank = 0 ORDER BY metric"
            ).result_rows
        )

    server = embedded_clickhouse
    made = spoiled(client, "derived")
    deriver = Deriver(lambda: connect(ClickHouseSettings(server.host, server.port, "writer", server.password)))
    deriver.settle()
    assert summary() == []  # no key set was understood, so no step was
    flush(Store(client, Writer(client)), ruling(made, [letter.offset for letter in letters(client, "derived")]))
    deriver.sweep()
    deriver.settle()
    assert summary() == [("acc", 5, 4.1), ("loss", 5, 4.0)]
    assert deriver.idle


def test_a_limit_counts_what_was_asked_for(client: Client) -> None:
    def came(run: str, stream: str, at_us: int) -> Message:
        made = MadeStream(stream, "counted", run).open().step(7, 1, 1.0).step(7, 2, 2.0)
        return made.message(made.range(made.edges[1]), at_us)

    store = Store(client, Writer(client))
    flush(store, came("one", "sa", NOW_US), came("one", "sb", NOW_US + 1_000_000))
    unreadable = [Message("counted", b"k", b"\xff" + bytes([n]), NOW_US - 1_000_000 * n) for n in range(3)]
    flush(store, *unreadable)

    def found(limit: int, **told: Any) -> list[str]:
        letters = find(client, Choice(**{"project": "counted", **told}), limit=limit)
        return [letter.stream for letter in letters]

    assert found(3) == ["sb", "sb", "sa"]
    assert found(1, stream="sa") == ["sa"], "though the newest are of another stream"
    assert found(9, stream="sa") == ["sa", "sa"]
    assert len(found(2, run=NO_RUN)) == 2
    assert len(found(9, run=NO_RUN)) == 3


def test_a_message_that_could_not_be_read_is_done_with_once_its_range_was_pushed(client: Client) -> None:
    """Whoever can read it pushes the range under its true name, and then says so here."""
    made = MadeStream("s", run_id="readable").open().key_set(1, "loss").steps(1, range(3)).close()
    store = Store(client, Writer(client))
    flush(store, Message("late", b"k", b"\xff" + made.range().SerializeToString(), NOW_US))
    (letter,) = list_letters(client, "late")
    word = Range(stream=letter.stream, ruling=Ruling(offsets=[0], by="ann"))
    flush(store, made.message(made.range()), Message("late", b"k", word.SerializeToString(), NOW_US))
    assert list_letters(client, "late") == []
    assert [each.fate for each in list_letters(client, "late", done=True)] == ["replayed"]
    assert_whole(client, made)
