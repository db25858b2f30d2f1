"""Changes on their way into the chain, on the real engine: once and in one order, wherever a flush breaks off."""

from __future__ import annotations

import re
import time
from itertools import count
from typing import Any

import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from runtide.bus import Message, message_key
from runtide.sink import audit as sink_audit
from runtide.sink.arrived import Arrived, read
from runtide.sink.store import Store
from runtide.testing.streams import NOW_US
from runtide.warehouse import audit
from runtide.warehouse.changes import as_range
from runtide.warehouse.errors import RowsRefused, StoreBusy
from runtide.warehouse.writer import Writer
from runtide.wire.books import CHANGES

_numbers = count()


class Killed(BaseException):
    """The process is gone."""


class Breaking:
    """A writer that breaks off at its so-manieth insert, and then never again."""

    def __init__(self, client: Client, at: int, error: BaseException, *, stored: bool) -> None:
        self._writer, self._left, self._error, self._stored = Writer(client), at, error, stored

    def insert(self, table: str, batch: pa.RecordBatch) -> None:
        self._left -= 1
        if self._left or self._stored:
            self._writer.insert(table, batch)
        if not self._left:
            raise self._error

    def settle(self, others: bool = False) -> None:
        self._writer.settle(others)


def arrived(project: str, stream: str, kind: str, after: Any, subject: str = "run:r", before: Any = None) -> Arrived:
    range_ = as_range(subject, kind, after, "why", "ada", project, before=before, stream=stream)
    return read(Message(project, message_key(project, CHANGES, 0), range_.SerializeToString(), NOW_US))


def chain(client: Client, project: str) -> list[tuple[int, str]]:
    assert audit.verify(client, project).problems == []
    return [(entry.seq, entry.stream) for entry in audit.entries(client, project)]


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("error", [Killed(), StoreBusy("the connection was cut")], ids=["killed", "unknown"])
def test_wherever_a_flush_breaks_off_a_change_is_in_the_chain_once(
    client: Client, at: int, stored: bool, error: BaseException
) -> None:
    project = f"broken-{next(_numbers)}"
    parts = [arrived(project, f"s{number}", "notes", number * "x") for number in range(5)]
    Store(client, Writer(client)).flush(parts[:1])
    store = Store(client, Breaking(client, at, error, stored=stored), backoff_s=(0.001, 0.01))
    if isinstance(error, Killed):
        with pytest.raises(Killed):
            store.flush(parts[1:3])
        store = Store(client, Writer(client))
        store.flush(parts[2:4])
        store.flush(parts)
    else:
        store.flush(parts[1:3])
        store.flush(parts[2:])
        assert store.counters.retries == 1
    found = chain(client, project)
    assert [seq for seq, _ in found] == [1, 2, 3, 4, 5]
    assert sorted(stream for _, stream in found) == ["s0", "s1", "s2", "s3", "s4"]
    events = "SELECT count() FROM runtide.events WHERE project = {project:String}"
    assert client.query(events, parameters={"project": project}).result_rows == [(5,)]


def test_without_asking_the_chain_a_change_would_be_in_it_twice(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = f"twice-{next(_numbers)}"
    part = arrived(project, "s", "notes", "x")
    monkeypatch.setattr(sink_audit, "_not_in_chain", lambda client, project, said: said)
    with pytest.raises(Killed):
        Store(client, Breaking(client, 1, Killed(), stored=True)).flush([part])
    Store(client, Writer(client)).flush([part])
    assert chain(client, project) == [(1, "s"), (2, "s")]


def test_a_chain_that_cannot_go_on_holds_everything_back(client: Client) -> None:
    """Nothing becomes an event that is not in the chain: else it would never get there."""
    project = f"refused-{next(_numbers)}"
    store = Store(client, Breaking(client, 1, RowsRefused("no", 117), stored=False), backoff_s=(0.001, 0.01))
    store.flush([arrived(project, "s", "notes", "x")])
    assert store.counters.retries == 1
    assert store.counters.dead == 0
    assert chain(client, project) == [(1, "s")]


def test_what_was_there_before(client: Client) -> None:
    project = f"before-{next(_numbers)}"
    store = Store(client, Writer(client))
    store.flush(
        [
            arrived(project, "a", "tag_add", ["x"], before=["own"]),
            arrived(project, "b", "tag_remove", ["own"]),
            arrived(project, "c", "rename", "one", before="zero"),
        ]
    )
    store.flush(
        [
            arrived(project, "d", "tag_add", ["y"], before=["a lie"]),
            arrived(project, "e", "rename", "two"),
            arrived(project, "f", "rename", "other", subject="run:other"),
            arrived(project, "g", "comment", "words"),
            arrived(project, "h", "comment", "more words"),
            arrived(project, "i", "delete", None),
            arrived(project, "j", "restore", None),
        ]
    )
    assert {entry.stream: entry.before for entry in audit.entries(client, project)} == {
        "a": '["own"]',
        "b": '["own","x"]',
        "c": '"zero"',
        "d": '["x"]',
        "e": '"one"',
        "f": "null",
        "g": "null",
        "h": "null",
        "i": "null",
        "j": "true",
    }
    assert audit.verify(client, project).seq == 10


def test_chains_of_projects_are_apart(client: Client) -> None:
    one, two = f"apart-{next(_numbers)}", f"apart-{next(_numbers)}"
    Store(client, Writer(client)).flush([arrived(one, "s", "notes", "x"), arrived(two, "s", "notes", "x")])
    assert (chain(client, one), chain(client, two)) == ([(1, "s")], [(1, "s")])
    assert audit.verify(client, one).head != audit.verify(client, two).head


COLUMNS = [
    *("project", "seq", "time", "actor", "subject", "kind", "reason", "before", "after", "stream", "offset"),
    *("previous", "hash"),
]
FOUND = {
    "previous": "row seq 2 .*: its previous is",
    "seq": "row seq 3 .*: its seq is 3, but 2 should follow",
    "project": "row seq 3 .*: its seq is 3, but 2 should follow",
}


@pytest.fixture
def kept(client: Client) -> str:
    """A project with four changes, whose rows are in the table `kept` too."""
    project = f"kept-{next(_numbers)}"
    Store(client, Writer(client)).flush([arrived(project, f"s{number}", "notes", number * "x") for number in range(4)])
    client.command("CREATE OR REPLACE TABLE runtide.kept ENGINE = Memory AS SELECT * FROM runtide.audit_rows")
    return project


def put(client: Client, project: str, where: str, altered: str = "", other: str = "") -> list[str]:
    """Leave of the chain what is told, with one column altered in its second row; returns what is found then."""
    columns = ", ".join(COLUMNS)
    changed = ", ".join(f"if(seq = 2, {other}, {name})" if name == altered else name for name in COLUMNS)
    client.command("TRUNCATE TABLE runtide.audit_rows")
    client.command(
        f"INSERT INTO runtide.audit_rows ({columns}) SELECT {changed} FROM runtide.kept"
        f" WHERE project = '{project}' AND {where}"
    )
    return audit.verify(client, project).problems


@pytest.mark.parametrize("column", COLUMNS)
def test_whatever_is_altered_of_a_stored_row_is_found(client: Client, kept: str, column: str) -> None:
    other = f"{column} + 7" if column in {"seq", "offset", "time"} else f"concat('x', {column})"
    assert put(client, kept, "true") == []
    first, *_ = put(client, kept, "true", column, other)
    assert re.search(FOUND.get(column, "row seq 2 .*: its hash is"), first)


def test_rows_that_are_removed_are_found(client: Client, kept: str) -> None:
    assert re.search("row seq 2 .*: its seq is 2, but 1 should follow", put(client, kept, "seq > 1")[0])
    assert re.search(FOUND["seq"], put(client, kept, "seq != 2")[0])
    assert put(client, kept, "seq < 4") == [f"project {kept}: the change at 0 of stream s3 is not in the chain"]


def test_long_chains_are_read_in_pages_and_ten_thousand_runs_are_listed_soon(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = f"long-{next(_numbers)}"
    Store(client, Writer(client)).flush([arrived(project, f"s{number:03}", "notes", "x") for number in range(25)])
    monkeypatch.setattr(audit, "PAGE", 10)
    monkeypatch.setattr(audit, "_PAGE", audit._PAGE.replace("LIMIT 10000", "LIMIT 10"))
    assert len(chain(client, project)) == 25
    client.command(
        "INSERT INTO runtide.run_rows SELECT 'many', concat('r', toString(number)), 'e', 'own', '', '', 'finished', '',"
        " 'u', 'h', 1, 1, now64(6), NULL, now64(6), 0, '{}', ['a'], '', '', '{}', 7, 1 FROM numbers(10000)"
    )
    client.command(
        "INSERT INTO runtide.audit_rows SELECT 'many', number + 1, now64(6), 'a', concat('run:r', toString(number)),"
        " 'rename', '', 'null', '\"given\"', 's', number, '', '' FROM numbers(10000)"
    )
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        found = client.query("SELECT count(), any(name) FROM runtide.runs WHERE project = 'many'").result_rows
        client.query("SELECT * FROM runtide.runs WHERE project = 'many' ORDER BY started_at DESC LIMIT 100")
        seconds.append(time.perf_counter() - began)
        assert found == [(10_000, "given")]
    assert min(seconds) < 0.3
