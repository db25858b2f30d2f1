"""How the other files of this folder ask: bound parameters in, rows as dictionaries with aware times out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any


def rows(client: Any, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """All rows of a small result."""
    result = client.query(sql, parameters=dict(parameters or {}))
    names: Sequence[str] = result.column_names
    return [{name: _aware(value) for name, value in zip(names, row, strict=True)} for row in result.result_rows]


def _aware(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)  # every time column of the warehouse is UTC
    return value
