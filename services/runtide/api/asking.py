"""How the other files of this room ask: one statement, an Arrow table back, and errors in ClickHouse's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from clickhouse_connect.driver.exceptions import ClickHouseError

from runtide.warehouse.client import Client
from runtide.warehouse.errors import plain
from runtide.wire.errors import RuntideError


class QueryFailed(RuntideError):
    """ClickHouse refused a query; the text is its own."""

    code = "query_failed"


def table(client: Client, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
    """The rows of a statement. Raises QueryFailed."""
    try:
        found = client.query_arrow(sql, parameters=dict(parameters or {}), use_strings=True)
    except ClickHouseError as error:
        raise QueryFailed(plain(str(error))) from error
    return found


def rows(client: Client, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """The same as dictionaries."""
    found: list[dict[str, Any]] = table(client, sql, parameters).to_pylist()
    return found
