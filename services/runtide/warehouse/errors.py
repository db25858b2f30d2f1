"""What ClickHouse's errors mean for the one who writes, by code and, where the code alone says too little, by text.

StoreError
  StoreBusy           not now, or result unknown: ask what is stored, then try again, for ever
  RowsRefused         some row cannot be stored; which one is found by halving
  StoreMisconfigured  nothing will ever be stored like this: stop and say so
"""

from __future__ import annotations

import re

from runtide.wire.errors import RuntideError


class StoreError(RuntideError):
    """ClickHouse did not do what was asked; `clickhouse_code` is its code, 0 where none was given."""

    code = "store"

    def __init__(self, message: str, clickhouse_code: int = 0) -> None:
        super().__init__(message)
        self.clickhouse_code = clickhouse_code


class StoreBusy(StoreError):
    """The store is away, overloaded, or did not say what it did. Whether rows were stored is not known."""

    code = "store_busy"
    retryable = True

    def __init__(self, message: str, clickhouse_code: int = 0, alarm: bool = False) -> None:
        super().__init__(message, clickhouse_code)
        self.alarm = alarm
        """The code is one that nobody has judged yet: rows are kept and tried again, but a person should look."""


class RowsRefused(StoreError):
    """ClickHouse has looked at the rows and will not take one of them."""

    code = "rows_refused"


class StoreMisconfigured(StoreError):
    """User, password, database, table or column are not what this release needs."""

    code = "store_misconfigured"


BUSY = frozenset({3, 107, 159, 202, 203, 209, 210, 236, 241, 242, 243, 285, 319, 394, 425, 999})
"""Network, time, memory, disk, replicas and Keeper: they pass."""
REFUSED = frozenset({6, 27, 38, 41, 53, 69, 70, 72, 117, 131, 321, 349})
"""Values that do not fit their column."""
MISCONFIGURED = frozenset({16, 46, 47, 60, 62, 81, 164, 192, 193, 194, 497, 516})
"""Tables, columns, functions, statements, users and rights."""
PARTS = 252
"""Two errors under one code: too many parts passes when merges catch up, too many partitions never does."""

_CODE = re.compile(r"\bCode:\s*(\d+)")


def classified(error: Exception) -> StoreError:
    """The meaning of an exception of the client library."""
    text = str(error)
    code = _code(error, text)
    if code == 0:
        return StoreBusy(text) if _is_transport(error) else RowsRefused(text)
    if code == PARTS and "partitions" in text.lower() and "too many parts" not in text.lower():
        return RowsRefused(text, code)
    if code in REFUSED:
        return RowsRefused(text, code)
    if code in MISCONFIGURED:
        return StoreMisconfigured(text, code)
    return StoreBusy(text, code, alarm=code not in BUSY and code != PARTS)


def _code(error: Exception, text: str) -> int:
    if isinstance(found := getattr(error, "code", None), int):
        return found
    match = _CODE.search(text)
    return int(match.group(1)) if match else 0


def _is_transport(error: Exception) -> bool:
    """Everything without a code but the client's own refusal of the data, which never reached the server."""
    from clickhouse_connect.driver.exceptions import DataError

    return not isinstance(error, DataError)


_SAID = re.compile(r"Code: (?P<code>\d+)\. DB::Exception: (?P<text>.*?)\s*\((?P<name>[A-Z_]+)\) \(version", re.DOTALL)
_MOST_TEXT = 400


def plain(text: str) -> str:
    """ClickHouse's message without what the client library and the protocol have put around it."""
    found = _SAID.search(text)
    if found is None:
        return text.strip()
    said = re.sub(r"\s*\n? FORMAT Native\b", "", found["text"]).strip()
    short = said if len(said) <= _MOST_TEXT else said[:_MOST_TEXT] + "..."
    return f"ClickHouse says: {short} (code {found['code']}, {found['name']})"
