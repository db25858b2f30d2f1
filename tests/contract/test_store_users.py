"""The SQL of a server's users: as written down, understood by ClickHouse's own parser, and no table forgotten.

No server runs here, so that nobody has signed in as one of these users: see docs/security.md.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from runtide.cli import main
from runtide.testing.embedded import EmbeddedClickHouse
from runtide.warehouse import duplicates, ledger
from runtide.warehouse.client import ClickHouseSettings, connect
from runtide.warehouse.migrate import migrations
from runtide.warehouse.users import DERIVED, GATEWAY, KEPT, PARTS, RAW, VIEWS, reader_of, script, statements

READ = re.compile(r"(?:FROM|JOIN) runtide\.(\w+)")
GOLDEN = Path(__file__).parents[1] / "golden" / "users.sql"
"""Made with: runtide migrate --users --project vision --project "o'brien" """


def test_the_script_is_as_written_down(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "--users", "--project", "vision", "--project", "o'brien"]) == 0
    assert capsys.readouterr().out == GOLDEN.read_text()


def test_projects_are_of_the_users_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "--project", "vision"]) == 1
    assert "with --users only" in capsys.readouterr().err


def test_clickhouse_understands_every_statement(embedded_clickhouse: EmbeddedClickHouse) -> None:
    client = connect(ClickHouseSettings(embedded_clickhouse.host, embedded_clickhouse.port, database="default"))
    found = [
        each.strip() for each in script(["vision", "o'brien", "a\\\\b; DROP TABLE x"]).split(";\n") if each.strip()
    ]
    for statement in (re.sub(r"^--.*\n?", "", each, flags=re.MULTILINE).strip() for each in found):
        if statement:
            kind = client.query("SELECT formatQuery({s:String})", parameters={"s": statement}).result_rows[0][0]
            assert kind.startswith(("CREATE", "GRANT")), statement
    client.close()


def test_every_table_and_view_is_somebodys() -> None:
    text = "\n".join(migration.text for migration in migrations())
    tables = set(re.findall(r"CREATE TABLE IF NOT EXISTS runtide\.(\w+)", text))
    views = set(re.findall(r"CREATE OR REPLACE VIEW runtide\.(\w+)", text))
    assert tables == {*RAW, *DERIVED, *KEPT}
    assert views == set(VIEWS)


def test_rights() -> None:
    grants = [statement for statement in statements() if "GRANT" in statement]
    rights = {
        part: re.findall(
            r"(SELECT|INSERT|ALTER DELETE)(?:\(.*?\))? ON ([\w.]+)",
            " ".join(grant for grant in grants if f"TO runtide_{part}_role" in grant),
        )
        for part in PARTS
    }
    for part in ("gateway", "dashboard"):
        assert {right for right, _ in rights[part]} == {"SELECT"}, part
    written = {part: {table for right, table in rights[part] if right != "SELECT"} for part in PARTS}
    assert written["sink"] == {f"runtide.{table}" for table in RAW}
    assert written["processor"] == {f"runtide.{table}" for table in DERIVED}
    assert not re.search(r"GRANT (ALL|.* ON \*)", " ".join(grants))


def reads_of_views() -> dict[str, set[str]]:
    """What each view reads, as the last migration that makes it says."""
    text = "\n".join(migration.text for migration in migrations())
    parts = re.split(r"CREATE OR REPLACE VIEW runtide\.(\w+)", text)[1:]
    made = dict(zip(parts[::2], parts[1::2], strict=True))
    return {
        view: set(re.findall(r"(?:FROM|JOIN) runtide\.(\w+)", body.partition(";\n")[0])) for view, body in made.items()
    }


def test_the_gateway_may_read_what_its_questions_and_their_views_read() -> None:
    asks = [Path(str(module.__file__)).read_text() for module in (ledger, duplicates)]
    wanted = {name for text in asks for name in READ.findall(text)}
    of_views = reads_of_views()
    while more := {name for view in wanted for name in of_views.get(view, ())} - wanted:
        wanted |= more
    assert wanted == set(GATEWAY)


def test_nobody_can_sign_in_before_a_password_is_given() -> None:
    users = [statement for statement in statements(["vision"]) if "CREATE USER" in statement]
    assert len(users) == len(PARTS) + 1
    assert all("HOST NONE" in statement for statement in users)


def test_a_reader_sees_its_project_alone() -> None:
    found = statements(["vision"])[-1]
    assert found == (
        f"CREATE ROW POLICY IF NOT EXISTS {reader_of('vision')} ON runtide.* USING project = 'vision' "
        f"TO {reader_of('vision')}"
    )
    assert "USING project = 'o\\'brien'" in statements(["o'brien"])[-1]
