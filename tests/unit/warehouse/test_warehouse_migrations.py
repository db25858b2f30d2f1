"""The migration files, without a store."""

from __future__ import annotations

import re

from runtide.warehouse.migrate import Migration, migrations


def test_files_are_numbered_without_gaps() -> None:
    assert [int(each.name[:4]) for each in migrations()] == list(range(1, len(migrations()) + 1))


def test_every_statement_can_be_repeated() -> None:
    for migration in migrations():
        for statement in migration.statements():
            code = "\n".join(line for line in statement.splitlines() if not line.lstrip().startswith("--")).strip()
            assert re.match(
                r"CREATE (TABLE IF NOT EXISTS|OR REPLACE VIEW|VIEW IF NOT EXISTS) runtide\.|ALTER TABLE", code
            )
            assert not code.endswith(";")


def test_statements_end_at_a_semicolon_that_ends_a_line_of_code() -> None:
    text = "-- first; of all;\nSELECT ';'\nAS one;\n\nSELECT 2; -- no end\n;\n-- nothing;\n"
    assert list(Migration("0001_x.sql", text).statements()) == [
        "-- first; of all;\nSELECT ';'\nAS one",
        "SELECT 2; -- no end\n",
    ]


def test_the_checksum_is_of_the_text() -> None:
    assert Migration("a", "x").checksum == Migration("b", "x").checksum != Migration("a", "y").checksum
