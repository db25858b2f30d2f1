"""How commands find runs and say what ClickHouse said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from runtide.cli.checking import check
from runtide.cli.store import RunKey, UnknownRun, find_run, known_runs, open_store
from runtide.cli.tables import print_table
from runtide.testing.embedded import EmbeddedClickHouse
from runtide.warehouse.client import ClickHouseSettings, Client, connect
from runtide.warehouse.errors import plain
from runtide.warehouse.migrate import migrate
from runtide.wire.errors import Unavailable


@pytest.fixture(scope="module")
def client(embedded_clickhouse: EmbeddedClickHouse) -> Iterator[Client]:
    server = embedded_clickhouse
    found = connect(ClickHouseSettings(server.host, server.port, "writer", server.password))
    migrate(found)
    for project, run, name in (("a", "7c2f01", "first"), ("a", "7d0000", "7c2f"), ("b", "7d0000", "other")):
        found.command(
            f"INSERT INTO runtide.run_rows (project, run_id, name, version) VALUES ('{project}', '{run}', '{name}', 1)"
        )
        found.command(f"INSERT INTO runtide.ledger (project, run_id, stream) VALUES ('{project}', '{run}', 's')")
    yield found
    found.close()


@pytest.mark.parametrize(
    ("said", "project", "found"),
    [
        ("7c2f01", None, RunKey("a", "7c2f01")),
        ("7c2f0", None, RunKey("a", "7c2f01")),
        ("7c2f", None, RunKey("a", "7d0000")),  # a name wins over the beginning of an id
        ("b/7d0000", None, RunKey("b", "7d0000")),
        ("7d0", "b", RunKey("b", "7d0000")),
        ("other", None, RunKey("b", "7d0000")),
    ],
)
def test_a_run_is_found(client: Client, said: str, project: str | None, found: RunKey) -> None:
    assert find_run(client, said, project) == found


@pytest.mark.parametrize(("said", "text"), [("7d0000", "a/7d0000, b/7d0000"), ("nosuch", "there is no run nosuch")])
def test_a_run_that_is_not_one_is_said(client: Client, said: str, text: str) -> None:
    with pytest.raises(UnknownRun, match=text):
        find_run(client, said, None)


def test_all_runs_can_be_judged(client: Client) -> None:
    assert [check(client, key)["run_id"] for key in known_runs(client, None)] == ["7c2f01", "7d0000", "7d0000"]
    assert known_runs(client, "b") == [RunKey("b", "7d0000")]


def test_names_without_a_database_are_looked_up_among_the_views(client: Client) -> None:
    assert client.query("SELECT name FROM system.tables WHERE database = currentDatabase() AND name = 'runs'").row_count
    stranger = connect(ClickHouseSettings(client.url.split("//")[1].split(":")[0], int(client.url.rsplit(":", 1)[1])))
    stranger.database = ""
    assert stranger.query("SELECT count() FROM runs").result_rows == [(3,)]
    stranger.close()


def test_what_clickhouse_says_is_told_without_its_wrapping() -> None:
    text = (
        "Received ClickHouse exception, code: 62, server response: Code: 62. DB::Exception: Syntax error: failed at "
        "position 7 (1): 1\n FORMAT Native. Expected one of: SELECT, end of query. (SYNTAX_ERROR) (version 26.9.2.1) "
        "(for url http://127.0.0.1:8123)"
    )
    said = "ClickHouse says: Syntax error: failed at position 7 (1): 1. Expected one of: SELECT, end of query."
    assert plain(text) == f"{said} (code 62, SYNTAX_ERROR)"
    assert plain("cannot connect\n") == "cannot connect"


def test_a_home_where_nothing_runs_is_not_answered_by_another(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="nothing runs in"), open_store(tmp_path):
        raise AssertionError("opened")


def test_ids_stay_whole_where_the_terminal_is_narrow(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_table([{"run_id": "abcdefghij0123456789", "name": "n" * 300, "state": "running"}])
    said = capsys.readouterr().out
    assert "abcdefghij0123456789" in said
    assert "n" * 199 + "…" in said
