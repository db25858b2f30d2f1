"""Native with a protocol revision, read by a client library that knows revisions and shares no code with the server."""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import http.client
import ipaddress
import urllib.parse
import uuid
from decimal import Decimal
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_driver.bufferedreader import BufferedReader
from clickhouse_driver.connection import ServerInfo
from clickhouse_driver.context import Context
from clickhouse_driver.streams.native import BlockInputStream
from runtide.embedded import frames
from runtide.testing.embedded import EmbeddedClickHouse

REVISION = 54460
"""What clickhouse-go asks for, and with it Grafana's data source."""
MANY = 200_000
"""Rows of several blocks."""


class Bytes(BufferedReader):  # type: ignore[misc]
    """Bytes that are all here, as the library's reader wants them."""

    def __init__(self, data: bytes) -> None:
        super().__init__(max(len(data), 1))
        self.buffer[: len(data)] = data
        self.current_buffer_size = len(data)

    def read_into_buffer(self) -> None:
        raise EOFError


def blocks(document: bytes, revision: int) -> list[Any]:
    """Read a document to its last byte."""
    context = Context()
    context.settings = {}
    context.client_settings = {"strings_as_bytes": False, "strings_encoding": "utf-8", "use_numpy": False}
    context.server_info = ServerInfo("", 26, 9, 0, revision, "UTC", "", revision)
    source, found = Bytes(document), []
    stream = BlockInputStream(source, context)
    while source.position < len(document):
        found.append(stream.read())
    return found


def ask(
    server: EmbeddedClickHouse,
    query: str,
    revision: int = REVISION,
    status: int = 200,
    headers: dict[str, str] | None = None,
    **parameters: str,
) -> bytes:
    """The body of an answer, decompressed."""
    asked = {"default_format": "Native", "client_protocol_version": str(revision), **parameters}
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", "/?" + urllib.parse.urlencode(asked), query.encode(), headers or {})
        answer = connection.getresponse()
        assert answer.status == status
        body = answer.read()
        if answer.headers["Content-Encoding"] == "gzip":
            return gzip.decompress(body)
        return frames.decompress_blocks(body, 1 << 30) if "compress" in parameters else body


def rows(document: bytes, revision: int = REVISION) -> list[tuple[Any, ...]]:
    return [row for block in blocks(document, revision) for row in block.get_rows()]


def test_the_handshake_of_clickhouse_go(embedded_clickhouse: EmbeddedClickHouse) -> None:
    query = "SELECT displayName(), version(), revision(), timezone()"
    ((name, version, revision, zone),) = rows(ask(embedded_clickhouse, query))
    assert name
    assert version.count(".") == 3
    assert revision >= REVISION
    assert zone


@pytest.mark.parametrize("revision", [54405, 54453, 54454, 54460, 54468, 54480, 54491])
def test_every_revision_is_written_as_its_readers_expect(
    embedded_clickhouse: EmbeddedClickHouse,
    revision: int,
) -> None:
    query = "SELECT number AS a, toString(number) AS b FROM numbers(3)"
    body = ask(embedded_clickhouse, query, revision)
    info = b"\x01\x00\x02\xff\xff\xff\xff" + (b"\x03\x00" if revision >= 54480 else b"") + b"\x00"
    layout = b"\x00" if revision >= 54454 else b""
    numbers = b"".join(number.to_bytes(8, "little") for number in range(3))
    assert (
        body == info + b"\x02\x03\x01a\x06UInt64" + layout + numbers + b"\x01b\x06String" + layout + b"\x010\x011\x012"
    )


@pytest.mark.parametrize(
    ("expression", "values"),
    [
        ("number", [0, 1, 2]),
        ("repeat('é', 100 * number)", ["", "é" * 100, "é" * 200]),
        ("if(number = 1, NULL, toString(number))", ["0", None, "2"]),
        ("toLowCardinality(toString(number % 2))", ["0", "1", "0"]),
        ("toLowCardinality(if(number = 1, NULL, 'x'))", ["x", None, "x"]),
        ("range(number)", [[], [0], [0, 1]]),
        ("[range(number), [7]]", [[[], [7]], [[0], [7]], [[0, 1], [7]]]),
        ("arrayMap(n -> toLowCardinality(toString(n)), range(number))", [[], ["0"], ["0", "1"]]),
        ("arrayMap(n -> (n, toString(n)), range(number))", [[], [(0, "0")], [(0, "0"), (1, "1")]]),
        ("(number, if(number = 1, NULL, 'x'))", [(0, "x"), (1, None), (2, "x")]),
        ("map('k', range(number))", [{"k": []}, {"k": [0]}, {"k": [0, 1]}]),
        ("toFixedString(toString(number), 1)", ["0", "1", "2"]),
        ("CAST(number, 'Enum8(\\'zero\\' = 0, \\'one\\' = 1, \\'two\\' = 2)')", ["zero", "one", "two"]),
        ("toDecimal64(number, 3)", [Decimal(0), Decimal(1), Decimal(2)]),
        ("toInt256(number) - 1", [-1, 0, 1]),
        ("toUUID('00000000-0000-0000-0000-00000000000' || toString(number))", [uuid.UUID(int=n) for n in range(3)]),
        ("toDate('2026-01-01') + number", [dt.date(2026, 1, n) for n in (1, 2, 3)]),
        (
            "toDateTime64('2026-01-01 00:00:00', 6, 'UTC') + number",
            [dt.datetime(2026, 1, 1, 0, 0, n, tzinfo=dt.UTC) for n in range(3)],
        ),
        ("toIPv6('::' || toString(number))", [ipaddress.IPv6Address(n) for n in range(3)]),
        ("NULL", [None, None, None]),
    ],
)
def test_values_of_every_kind(
    embedded_clickhouse: EmbeddedClickHouse,
    expression: str,
    values: list[Any],
) -> None:
    query = f"SELECT {expression} AS value, 'behind it' AS next FROM numbers(3)"
    found = rows(ask(embedded_clickhouse, query))
    assert [_zoned(value) for value, _ in found] == values
    assert {text for _, text in found} == {"behind it"}


def _zoned(value: Any) -> Any:
    return value.astimezone(dt.UTC) if isinstance(value, dt.datetime) else value


@pytest.mark.parametrize(
    "expression",
    [
        "number::Dynamic",
        "if(number % 2, number::Dynamic, [toString(number)]::Dynamic)",
        "if(number % 2, number::Variant(UInt64, String), toString(number)::Variant(UInt64, String))",
        "('{\"a\": ' || toString(number) || ', \"k' || toString(number) || '\": [{\"b\": 1}]}')::JSON",
        "('{\"a\": ' || toString(number) || ', \"b\": 1}')::JSON(a LowCardinality(String), max_dynamic_paths = 1)",
        "[(1.5, 2.5)]::Ring",
        "[(number, 'x')]::Nested(a UInt64, b String)",
        "toLowCardinality(toString(number))::SimpleAggregateFunction(any, LowCardinality(String))",
        "INTERVAL 3 DAY",
        "tuple()",
        "[]",
        "map()",
    ],
)
def test_the_next_column_is_found_behind_rarer_types(
    embedded_clickhouse: EmbeddedClickHouse,
    expression: str,
) -> None:
    query = f"SELECT {expression} AS value, 'behind it' AS next FROM numbers(300)"
    plain = ask(embedded_clickhouse, query, 0)
    revised = ask(embedded_clickhouse, query)
    header = b"\x04next\x06String"
    start, values = plain.split(header)
    assert values == b"\x09behind it" * 300
    name_end = start.index(b"\x05value") + 6
    type_end = name_end + 1 + start[name_end]
    assert revised == (
        b"\x01\x00\x02\xff\xff\xff\xff\x00" + start[:type_end] + b"\x00" + start[type_end:] + header + b"\x00" + values
    )


@pytest.mark.parametrize(
    ("headers", "parameters"),
    [
        ({}, {}),
        ({"Accept-Encoding": "gzip"}, {}),
        ({}, {"compress": "1"}),
        ({}, {"wait_end_of_query": "1"}),
    ],
)
def test_a_result_of_many_blocks(
    embedded_clickhouse: EmbeddedClickHouse,
    headers: dict[str, str],
    parameters: dict[str, str],
) -> None:
    query = f"SELECT number, toLowCardinality(toString(number % 9)) AS nine, [number] AS list FROM numbers({MANY})"
    found = blocks(ask(embedded_clickhouse, query, headers=headers, **parameters), REVISION)
    assert len(found) > 1
    assert {tuple(name for name, _ in block.columns_with_types) for block in found} == {("number", "nine", "list")}
    assert [row for block in found for row in block.get_rows()] == [(n, str(n % 9), [n]) for n in range(MANY)]


@pytest.mark.parametrize("headers", [{}, {"Accept-Encoding": "gzip"}])
def test_an_empty_result_is_an_empty_document(
    embedded_clickhouse: EmbeddedClickHouse,
    headers: dict[str, str],
) -> None:
    assert ask(embedded_clickhouse, "SELECT number FROM numbers(0)", headers=headers) == b""


@pytest.mark.parametrize("query", ["DESCRIBE TABLE system.one", "EXISTS TABLE system.one", "SHOW DATABASES"])
def test_statements_that_are_not_streamed(embedded_clickhouse: EmbeddedClickHouse, query: str) -> None:
    assert rows(ask(embedded_clickhouse, query))


def test_only_native_has_revisions(embedded_clickhouse: EmbeddedClickHouse) -> None:
    assert ask(embedded_clickhouse, "SELECT 1 FORMAT TSV", 99999) == b"1\n"
    assert ask(embedded_clickhouse, "SELECT 1 AS a FORMAT native") == (
        b"\x01\x00\x02\xff\xff\xff\xff\x00\x01\x01\x01a\x05UInt8\x00\x01"
    )


@pytest.mark.parametrize("revision", [1, 54404, 54492, 99999])
def test_a_revision_that_cannot_be_written_is_refused(
    embedded_clickhouse: EmbeddedClickHouse,
    revision: int,
) -> None:
    assert b"54405 to 54491" in ask(embedded_clickhouse, "SELECT 1", revision, 501)


def test_a_revision_that_is_no_number_is_refused(embedded_clickhouse: EmbeddedClickHouse) -> None:
    answer = ask(embedded_clickhouse, "SELECT 1", status=400, client_protocol_version="new")
    assert b"client_protocol_version is 'new', which is not a number" in answer


def test_a_type_without_a_size_is_refused(embedded_clickhouse: EmbeddedClickHouse) -> None:
    query = "SELECT sumState(number) AS state FROM numbers(3)"
    assert b"AggregateFunction(sum, UInt64)" in ask(embedded_clickhouse, query, status=501)
    assert ask(embedded_clickhouse, query, 0)


def test_errors_before_and_in_the_middle(embedded_clickhouse: EmbeddedClickHouse) -> None:
    assert b"UNKNOWN_TABLE" in ask(embedded_clickhouse, "SELECT * FROM absent", status=404)
    assert b"UNKNOWN_TABLE" in ask(embedded_clickhouse, "SELECT * FROM absent", status=404, compress="1")
    query = "SELECT throwIf(number = 300000, 'thrown late') AS a, randomString(8) AS b FROM numbers(500000)"
    document, _, told = ask(embedded_clickhouse, query).partition(b"\r\n__exception__\r\n")
    assert sum(block.num_rows for block in blocks(document, REVISION)) > 65_000
    assert b"thrown late" in told


def test_clickhouse_connect_speaks_with_a_revision(embedded_clickhouse: EmbeddedClickHouse) -> None:
    client = clickhouse_connect.get_client(host=embedded_clickhouse.host, port=embedded_clickhouse.port)
    assert client.protocol_version == 54405
    query = f"SELECT number, toString(number), toLowCardinality('x') FROM numbers({MANY})"
    assert client.query(query).result_rows == [(n, str(n), "x") for n in range(MANY)]
    client.close()
