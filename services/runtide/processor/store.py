"""The processor's hold on ClickHouse: statements in order, on one thread's worth of engine, errors classed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from runtide.processor import sql
from runtide.processor.dirty import Run
from runtide.processor.facts import LedgerRow
from runtide.warehouse.errors import classified

_SETTINGS = {
    "max_threads": 1,  # derivation takes one core at most, the rest belongs to ingest and readers
    "max_insert_threads": 1,
    "max_query_size": 16 * 1024 * 1024,
    "max_ast_elements": 500_000,
    "max_expanded_ast_elements": 1_000_000,
    "optimize_on_insert": 0,  # blocks come out without repeated keys
}

_RUNS_AT_ONCE = 1000


def steady_clock() -> Callable[[], int]:
    """A clock in microseconds since the epoch as they were believed to be when it was made: nobody can set it."""
    began = time.time_ns() - time.monotonic_ns()
    return lambda: (began + time.monotonic_ns()) // 1000


class Store:
    """One client, opened at first use."""

    def __init__(self, client_factory: Callable[[], Client], clock: Callable[[], int]) -> None:
        self._factory = client_factory
        self._client: Client | None = None
        self.now_us = clock

    def rows(self, query: str) -> Sequence[Sequence[Any]]:
        """Rows of a query. Raises StoreError."""
        try:
            return self._open().query(query, settings=_SETTINGS).result_rows
        except (ClickHouseError, OSError) as error:
            raise classified(error) from error

    def ledger(self, runs: Iterable[Run]) -> dict[Run, list[LedgerRow]]:
        """What is stored of the streams of these runs. Raises StoreError."""
        wanted = list(runs)
        out: dict[Run, list[LedgerRow]] = {run: [] for run in wanted}
        for at in range(0, len(wanted), _RUNS_AT_ONCE):
            for values in self.rows(sql.ledger(wanted[at : at + _RUNS_AT_ONCE])):
                row = LedgerRow(*values)
                out[row.run].append(row)
        return out

    def run(self, statement: str) -> None:
        """Run a statement. Raises StoreError."""
        try:
            self._open().command(statement, settings=_SETTINGS)
        except (ClickHouseError, OSError) as error:
            raise classified(error) from error

    def insert(self, table: str, rows: pa.Table) -> None:
        """Insert rows. Raises StoreError."""
        try:
            self._open().insert_arrow(table, rows, database="runtide", settings=_SETTINGS)
        except (ClickHouseError, OSError) as error:
            raise classified(error) from error

    def _open(self) -> Client:
        if self._client is None:
            self._client = self._factory()
        return self._client
