"""What a question gives: an Arrow table, and the same as pandas, polars or plain Python."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from runtide.wire.errors import RuntideError


class Result:
    """Rows in columns. Whatever takes Arrow takes it as it is: `polars.DataFrame(result)`, `pyarrow.table(result)`."""

    def __init__(self, table: pa.Table, objects: Sequence[str] = ()) -> None:
        self._table = table
        self._objects = objects

    def arrow(self) -> pa.Table:
        """The Arrow table."""
        return self._table

    def pandas(self) -> Any:
        """A pandas DataFrame."""
        return self._table.to_pandas()

    def polars(self) -> Any:
        """A polars DataFrame; polars is not part of any extra."""
        try:
            import polars
        except ModuleNotFoundError as error:
            raise RuntideError("Result.polars() needs polars: pip install polars") from error
        return polars.from_arrow(self._table)

    def rows(self) -> list[dict[str, Any]]:
        """Plain dictionaries; columns that hold a JSON object, such as config, as dictionaries too."""
        found: list[dict[str, Any]] = self._table.to_pylist()
        for name in self._objects:
            if name in self._table.column_names:
                for row in found:
                    row[name] = json.loads(row[name]) if row[name] else {}
        return found

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._table.column_names)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows())

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return f"Result({len(self)} rows: {', '.join(self.columns)})"


def plain_rows(found: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows of equal keys as an Arrow table."""
    return pa.Table.from_pylist(list(found))
