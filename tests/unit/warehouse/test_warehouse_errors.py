"""ClickHouse's errors, classed by code and text."""

from __future__ import annotations

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError, DataError, OperationalError
from runtide.warehouse.errors import RowsRefused, StoreBusy, StoreError, StoreMisconfigured, classified


@pytest.mark.parametrize(
    ("text", "code", "expected"),
    [
        ("Timeout exceeded", 159, StoreBusy),
        ("Memory limit exceeded", 241, StoreBusy),
        ("Cannot reserve, not enough space", 243, StoreBusy),
        ("Too many parts (300 with average size) in table", 252, StoreBusy),
        ("Too many partitions for single INSERT block (more than 100)", 252, RowsRefused),
        ("Cannot parse datetime", 41, RowsRefused),
        ("Value is too large", 131, RowsRefused),
        ("Unknown table", 60, StoreMisconfigured),
        ("No such column", 16, StoreMisconfigured),
        ("Syntax error", 62, StoreMisconfigured),
        ("Authentication failed", 516, StoreMisconfigured),
        ("Cannot execute query in readonly mode", 164, StoreMisconfigured),
    ],
)
def test_known_codes(text: str, code: int, expected: type[StoreError]) -> None:
    found = classified(DatabaseError(f"Code: {code}. DB::Exception: {text}", code=code))
    assert type(found) is expected
    assert found.clickhouse_code == code
    assert text in str(found)


def test_the_code_is_found_in_the_text_where_it_stands_nowhere_else() -> None:
    assert isinstance(classified(DatabaseError("HTTP 500: Code: 60. DB::Exception: no")), StoreMisconfigured)


def test_an_unknown_code_keeps_the_rows_and_raises_the_alarm() -> None:
    found = classified(DatabaseError("Code: 98765. DB::Exception: something new", code=98765))
    assert isinstance(found, StoreBusy)
    assert found.alarm
    assert found.retryable


def test_a_cut_connection_is_busy_without_alarm() -> None:
    for error in (OperationalError("connection refused"), ConnectionResetError("reset")):
        found = classified(error)
        assert isinstance(found, StoreBusy)
        assert not found.alarm


def test_what_the_client_refuses_to_send_is_refused_rows() -> None:
    assert isinstance(classified(DataError("cannot serialize column")), RowsRefused)
