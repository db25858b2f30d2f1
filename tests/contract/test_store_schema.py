"""Migrations on the real engine, and the verification of what lies in the tables."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from runtide.sink.arrived import read
from runtide.sink.store import Store
from runtide.testing.embedded import EmbeddedClickHouse
from runtide.testing.streams import NOW_US, MadeStream
from runtide.v1 import records_pb2 as v1
from runtide.warehouse.client import ClickHouseSettings, Client, connect
from runtide.warehouse.errors import StoreBusy, StoreMisconfigured
from runtide.warehouse.ledger import LedgerReader
from runtide.warehouse.migrate import Migration, migrate, migrations
from runtide.warehouse.verify import verify_run
from runtide.warehouse.writer import Writer


def writer_client(server: EmbeddedClickHouse) -> Client:
    return connect(ClickHouseSettings(server.host, server.port, "writer", server.password))


def test_two_that_migrate_at_once_do_each_other_no_harm(embedded_clickhouse: EmbeddedClickHouse) -> None:
    clients = [writer_client(embedded_clickhouse) for _ in range(2)]
    start, errors = threading.Barrier(2), list[BaseException]()

    def run(client: Client) -> None:
        start.wait()
        try:
            migrate(client)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert migrate(clients[0]) == []
    recorded = clients[0].query("SELECT name, checksum FROM runtide.migrations FINAL ORDER BY name").result_rows
    assert recorded == [(each.name, each.checksum) for each in migrations()]


def test_a_new_migration_is_applied_once_and_a_changed_one_is_refused(client: Client) -> None:
    new = Migration(
        "9000_test.sql", "-- a; comment;\nCREATE VIEW IF NOT EXISTS runtide.of_a_test AS SELECT 1 AS one;\n"
    )
    assert migrate(client, [*migrations(), new]) == ["9000_test.sql"]
    assert client.query("SELECT one FROM runtide.of_a_test").result_rows == [(1,)]
    assert migrate(client, [*migrations(), new]) == []
    with pytest.raises(StoreMisconfigured, match=r"9000_test\.sql was applied to this database with another text"):
        migrate(client, [*migrations(), Migration("9000_test.sql", new.text + "-- more\n")])
    client.command("DROP VIEW runtide.of_a_test")
    client.command("ALTER TABLE runtide.migrations DELETE WHERE name = '9000_test.sql' SETTINGS mutations_sync = 2")


def test_a_wrong_password_and_a_store_that_is_away_are_told_apart(embedded_clickhouse: EmbeddedClickHouse) -> None:
    server = embedded_clickhouse
    with pytest.raises(StoreMisconfigured):
        connect(ClickHouseSettings(server.host, server.port, "writer", "wrong"))
    with pytest.raises(StoreBusy):
        connect(ClickHouseSettings(server.host, 1, "writer", server.password))


def stored(client: Client, run_id: str) -> list[MadeStream]:
    made = [
        MadeStream(f"s{rank}", run_id=run_id, rank=rank).open().key_set(1, "loss", "acc").steps(1, range(50)).close()
        for rank in range(2)
    ]
    Store(client, Writer(client)).flush([read(each.message(each.range())) for each in made])
    assert verify_run(client, "p", run_id).clean
    return made


def test_verify_names_the_range_and_the_steps_around_a_lost_record(client: Client) -> None:
    made = stored(client, "lost")[1]
    client.command(
        "ALTER TABLE runtide.points DELETE WHERE run_id = 'lost' AND rank = 1 AND step = 20 SETTINGS mutations_sync = 2"
    )
    found = verify_run(client, "p", "lost")
    start, end = made.edges[22], made.edges[23]
    assert not found.clean
    assert found.problems == [
        f"stream s1 (rank 1): bytes [{start}, {end}) are in no table, between step 19 and step 21 in points"
    ]
    assert found.missing_ranges == 1


def test_verify_names_the_metric_of_a_lost_row(client: Client) -> None:
    made = stored(client, "row")[0]
    client.command(
        "ALTER TABLE runtide.points DELETE WHERE run_id = 'row' AND rank = 0 AND step = 7 AND metric = 'acc' "
        "SETTINGS mutations_sync = 2"
    )
    found = verify_run(client, "p", "row")
    assert found.problems == [
        f"stream s0 (rank 0): bytes [{made.edges[9]}, {made.edges[10]}) in points, step 7: 1 of 2 rows, missing acc"
    ]


def test_verify_counts_copies(client: Client) -> None:
    stored(client, "copied")
    client.command("SYSTEM STOP MERGES runtide.points")
    client.command(
        "INSERT INTO runtide.points SELECT * FROM runtide.points WHERE run_id = 'copied' AND step = 3 AND rank = 0"
    )
    found = verify_run(client, "p", "copied")
    client.command("SYSTEM START MERGES runtide.points")
    assert found.duplicates == 2
    assert "points, step 3: 4 rows, but 2 distinct ones" in found.problems[0]


def test_verify_names_what_is_missing_at_the_end_and_a_run_of_which_nothing_is_stored(client: Client) -> None:
    made = MadeStream("s", run_id="short").open().key_set(1, "a").steps(1, range(5))
    agent = MadeStream("agent", run_id="short", rank=-1, role=v1.ROLE_AGENT).open()
    agent.add(stream_ended=v1.StreamEnded(time_us=NOW_US, stream="s", offset=len(made.body)))
    cut = made.edges[-2]
    parts = [made.message(made.range(0, cut)), agent.message(agent.range())]
    Store(client, Writer(client)).flush([read(part) for part in parts])
    assert verify_run(client, "p", "short").problems == [
        f"stream s (rank 0): bytes [{cut}, {len(made.body)}) are in no table"
    ]
    assert verify_run(client, "p", "never").problems == ["nothing is stored of run never of project p"]


def test_verify_compares_with_what_the_stream_declared(client: Client) -> None:
    made = MadeStream("s", run_id="declared").open().key_set(1, "a").steps(1, range(5))
    made.add(stream_closed=v1.StreamClosed(time_us=NOW_US, records=9, points=5))
    Store(client, Writer(client)).flush([read(made.message(made.range()))])
    assert verify_run(client, "p", "declared").problems == ["stream s (rank 0): 10 records declared, 8 accounted for"]


def test_verify_judges_what_goes_on_up_to_the_mark(client: Client) -> None:
    """Rows are in the tables before the ledger says so, and not in all tables at once."""
    made = MadeStream("s", run_id="on").open().key_set(1, "a").steps(1, range(5)).key_set(2, "b").steps(2, range(5))
    mark = made.edges[7]
    Store(client, Writer(client)).flush([read(made.message(made.range()))])
    client.command(
        f"INSERT INTO runtide.ledger SELECT * REPLACE ({mark} AS mark, 7 AS records, 5 AS points, "
        "revision + 1 AS revision) FROM runtide.ledger FINAL WHERE run_id = 'on'"
    )
    client.command(f"DELETE FROM runtide.events WHERE run_id = 'on' AND offset = {mark}")  # its insert comes next
    assert verify_run(client, "p", "on").problems == []
    client.command(f"DELETE FROM runtide.points WHERE run_id = 'on' AND offset = {made.edges[4]}")
    assert len(verify_run(client, "p", "on").problems) == 1


def test_verify_counts_records_as_the_ledger_does(client: Client) -> None:
    stored(client, "counted")
    told = client.query(
        "SELECT stream, records FROM runtide.streams WHERE run_id = 'counted' ORDER BY stream"
    ).result_rows
    found = verify_run(client, "p", "counted")
    assert [(each.stream, each.stored_records) for each in found.streams] == told
    assert found.declared_records == found.stored_records


def test_the_ledger_answers_the_gateway(client: Client) -> None:
    made = stored(client, "asked")[0]
    ledger = LedgerReader(client)
    (status,) = [each for each in ledger.stream_status("p", [made.stream, "unknown"]) if each.stored == len(made.body)]
    assert (status.stream, status.holes) == (made.stream, 0)
    assert ledger.stream_status("other", [made.stream]) == []
    assert ledger.stream_status("p", []) == []
    known = ledger.run_facts("p", "asked", "launch")
    assert (known.exists, known.attempt) == (True, 1)
    assert ledger.run_facts("p", "asked", "another").attempt == 2
    new = ledger.run_facts("p", "unheard", "launch")
    assert (new.exists, new.state, new.attempt, new.last_step) == (False, "", 1, None)


def test_the_ledger_knows_where_earlier_attempts_have_come_to(client: Client) -> None:
    def facts(launch: str) -> tuple[int, int | None]:
        found = LedgerReader(client).run_facts("p", "again", launch)
        return found.attempt, found.last_step

    def attempt(number: int, steps: Sequence[int], resume_step: int | None = None) -> None:
        made = MadeStream(f"a{number}", run_id="again", attempt=number)
        said = {"launch_id": f"launch{number}", "role": v1.ROLE_RANK, "resume_step": resume_step}
        made.add(stream_opened=v1.StreamOpened(time_us=NOW_US, **said)).key_set(1, "loss").steps(1, steps)
        Store(client, Writer(client)).flush([read(made.message(made.range()))])

    attempt(1, [*range(100), 7])
    assert facts("launch1") == (1, None), "a late rank of the first attempt begins at the beginning"
    assert facts("launch2") == (2, 99), "the greatest step, not the latest"
    attempt(2, [], resume_step=40)
    assert facts("launch2") == (2, 99)
    assert facts("launch3") == (3, 40), "what is hidden does not count"
    attempt(3, range(41, 61))
    assert facts("launch3") == (3, 40)
    assert facts("launch4") == (4, 60)


def test_what_is_stored_ends_at_the_first_hole(client: Client) -> None:
    made = MadeStream("holed", run_id="holed").open().key_set(1, "loss").steps(1, range(50)).close()
    edges = made.edges
    store = Store(client, Writer(client))
    for start, end in ((0, 10), (20, 30), (40, 50)):
        store.flush([read(made.message(made.range(edges[start], edges[end])))])
    (status,) = LedgerReader(client).stream_status("p", ["holed"])
    assert (status.stored, status.holes) == (edges[10], 2)
