"""The schema of the database `runtide`, brought up to date.

Migrations are the numbered files in `migrations/`. Each is applied once and recorded with the checksum of its text;
every statement can be repeated, so two that migrate at once, or one that is cut off in the middle, do no harm.
A migration that was applied and has another text now is refused: what is in the store can no longer be told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from runtide.warehouse.errors import StoreError, StoreMisconfigured, classified
from runtide.wire.crash import crash_point

_LEDGER = """
CREATE TABLE IF NOT EXISTS runtide.migrations
(
    name       String                         COMMENT 'File name of the migration',
    checksum   String                         COMMENT 'SHA-256 of its text',
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When it was applied last'
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY (name, checksum)
COMMENT 'Which migrations this database has seen'
"""

_RACE_CODES = frozenset({57, 60, 81, 82, 218, 253, 371})
"""What a statement may say when another process does the same at the same instant."""
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def statements(self) -> Iterator[str]:
        """The statements, without the semicolon that ends a line."""
        lines: list[str] = []
        for line in self.text.splitlines():
            comment = line.lstrip().startswith("--")
            lines.append(line)
            if line.rstrip().endswith(";") and not comment:
                yield "\n".join(lines).strip().removesuffix(";")
                lines = []
        if any(line.strip() and not line.lstrip().startswith("--") for line in lines):
            yield "\n".join(lines).strip()


def migrations() -> list[Migration]:
    """All migrations of this release, in order."""
    folder = resources.files("runtide.warehouse") / "migrations"
    found = [Migration(file.name, file.read_text()) for file in folder.iterdir() if file.name.endswith(".sql")]
    return sorted(found, key=lambda migration: migration.name)


def migrate(client: Client, wanted: list[Migration] | None = None) -> list[str]:
    """Bring the database up to date and return the names of the migrations that were applied, none if all were.

    Raises StoreMisconfigured where an applied migration has another text now, StoreError as ClickHouse says.
    """
    wanted = migrations() if wanted is None else wanted
    _command(client, "CREATE DATABASE IF NOT EXISTS runtide")
    _command(client, _LEDGER)
    applied = _applied(client)
    for migration in wanted:
        if (before := applied.get(migration.name)) not in (None, migration.checksum):
            raise StoreMisconfigured(
                f"migration {migration.name} was applied to this database with another text (checksum {before}, now "
                f"{migration.checksum}): an applied migration must not be edited, add a new one instead"
            )
    new = [migration for migration in wanted if migration.name not in applied]
    for migration in new:
        for statement in migration.statements():
            _command(client, statement)
            crash_point("migrate.statement")
        _command(
            client,
            f"INSERT INTO runtide.migrations (name, checksum) SELECT '{migration.name}', '{migration.checksum}'",
        )
    return [migration.name for migration in new]


def _applied(client: Client) -> dict[str, str]:
    try:
        rows = client.query("SELECT name, checksum FROM runtide.migrations FINAL ORDER BY applied_at").result_rows
    except ClickHouseError as error:
        raise classified(error) from error
    return {str(name): str(checksum) for name, checksum in rows}


def _command(client: Client, statement: str) -> None:
    """Run one repeatable statement; again if another process was at the same one."""
    last: StoreError | None = None
    for _ in range(_TRIES):
        try:
            client.command(statement, use_database=False)
        except ClickHouseError as error:
            last = classified(error)
            if last.clickhouse_code not in _RACE_CODES:
                raise last from error
        else:
            return
    assert last is not None
    raise last
