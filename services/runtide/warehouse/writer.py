"""Inserts of Arrow blocks: one block is one part of one partition, so a table has all of it or nothing."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Protocol

import pyarrow as pa
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from runtide.warehouse.errors import StoreBusy, classified

_SETTINGS = {
    "async_insert": 0,
    "insert_deduplicate": 0,
    "optimize_on_insert": 0,  # the sink has seen to it that rows are unique; collapsing them again costs a third
    "input_format_arrow_allow_missing_columns": 1,
    "wait_end_of_query": 1,  # status 200 says that it is done,
    "send_progress_in_http_headers": 0,  # and is not sent before to keep a connection alive
}
_SETTLE_POLL_S = 0.1


def _once(body: bytes) -> Generator[bytes, None, None]:
    """A body that cannot be sent again: after a reset the client library repeats an insert by itself, if it can."""
    yield body


class Inserts(Protocol):
    """What the sink needs of a writer."""

    def insert(self, table: str, batch: pa.RecordBatch) -> None:
        """Store a block. Raises StoreError; after StoreBusy nobody knows whether it is stored."""

    def settle(self, others: bool = False) -> None:
        """Return when no insert whose result is unknown can still be at work; nor, if asked, one of another sink.

        Raises StoreError.
        """


class Writer:
    """Writes to ClickHouse over HTTP."""

    def __init__(self, client: Client, limit_s: int = 45) -> None:
        """`limit_s` ends an insert within the server, before the client gives up waiting for it."""
        self._client = client
        self._limit_s = limit_s
        self._in_doubt = False

    def insert(self, table: str, batch: pa.RecordBatch | pa.Table) -> None:
        """Store a block in `runtide.<table>`. Raises StoreBusy, RowsRefused and StoreMisconfigured."""
        if batch.num_rows == 0:
            return
        buffer = pa.BufferOutputStream()
        with pa.ipc.new_stream(buffer, batch.schema) as stream:
            stream.write(batch)
        try:
            self._client.raw_insert(
                f"runtide.{table}",
                column_names=batch.schema.names,
                insert_block=_once(buffer.getvalue().to_pybytes()),
                fmt="ArrowStream",
                settings={**_SETTINGS, "max_execution_time": self._limit_s},
            )
        except (ClickHouseError, OSError) as error:
            said = classified(error)
            self._in_doubt = self._in_doubt or isinstance(said, StoreBusy)
            raise said from error

    def settle(self, others: bool = False) -> None:
        """Wait until every insert is over that is at work now, if one gave no answer or `others` may be at work.

        Blocks for as long as such an insert may take. Raises StoreBusy where the server does not answer.
        """
        if not (self._in_doubt or others):
            return
        deadline = time.monotonic() + 2 * self._limit_s
        left = self._at_work()
        while left:
            if time.monotonic() > deadline:
                raise StoreBusy("an insert without an answer is still at work", alarm=True)
            time.sleep(_SETTLE_POLL_S)
            left &= self._at_work()
        self._in_doubt = False

    def _at_work(self) -> set[str]:
        try:
            found = self._client.query("SELECT query_id FROM system.processes WHERE query_kind = 'Insert'")
        except (ClickHouseError, OSError) as error:
            raise classified(error) from error
        return {str(row[0]) for row in found.result_rows}
