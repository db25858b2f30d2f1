"""What a stranger cannot do: reach files or the network, write, lift a limit, or come from another site."""

from __future__ import annotations

import base64
import http.client
import stat
import urllib.parse
from pathlib import Path

import pytest
from runtide.testing.embedded import EmbeddedClickHouse

SECRET = "the-words-nobody-may-read"


@pytest.fixture(scope="module")
def treasure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("treasure") / "secret.csv"
    path.write_text(SECRET + "\n")
    return path


def ask(
    server: EmbeddedClickHouse, query: str, headers: dict[str, str] | None = None, **parameters: str
) -> tuple[int, str | None, str]:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    try:
        connection.request("POST", "/?" + urllib.parse.urlencode(parameters), query.encode(), headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers["X-ClickHouse-Exception-Code"], answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


READS = [
    "SELECT file('{path}')",
    "SELECT `file`('{path}')",
    "SELECT \"file\"('{path}')",
    "SELECT `f\\x69le`('{path}')",
    "SELECT file/* */('{path}')",
    "SELECT file -- x\n('{path}')",
    "SELECT * APPLY(file) FROM (SELECT '{path}')",
    "SELECT * APPLY file FROM (SELECT '{path}')",
    "SELECT arrayMap(file, ['{path}'])",
    "WITH (x -> file(x)) AS f SELECT f('{path}')",
    "SELECT '\\'', file('{path}'), '\\''",
    "SELECT '''', file('{path}'), ''''",
    "SELECT 1 /* ' */, file('{path}') /* ' */",
    "SELECT 1 -- '\n, file('{path}') -- '",
    "SELECT $$a$$, $x$'$x$, file('{path}'), $x$'$x$",
    "SELECT 1 \u2212\u2212 ' \n, file('{path}')",
    "SELECT \u2018'\u2019, file('{path}'), \u2018'\u2019",
    "SELECT file\u00a0('{path}')",
    "SELECT * FROM file('{path}', 'LineAsString')",
    "SELECT * FROM view(SELECT file('{path}'))",
    "SELECT * FROM eval('SELECT file(\\'{path}\\')')",
    "DESCRIBE TABLE file('{path}', 'CSVWithNames')",
    "DESCRIBE TABLE file('{path}')",
    "EXPLAIN SELECT * FROM file('{path}')",
    "SELECT * FROM '{path}'",
    "SELECT * FROM `{path}`",
    "SELECT 1; SELECT file('{path}')",
    "INSERT INTO FUNCTION file('{path}.out', 'CSV', 'a Int8') SELECT 1",
    "SELECT * FROM fileCluster('default', '{path}', 'LineAsString')",
    "SELECT * FROM sqlite('{path}', 't')",
    "SELECT * FROM executable('cat {path}', 'LineAsString', 'a String')",
    "SELECT * FROM python('SECRET')",
    "SELECT * FROM url('file://{path}', 'LineAsString')",
    "SELECT * FROM filesystem('{path}')",
    "SELECT 1 FORMAT Template SETTINGS format_template_row = '{path}'",
    "SELECT 1 INTO OUTFILE '{path}.out'",
    "CREATE TEMPORARY TABLE t ENGINE = File(CSV, '{path}') AS SELECT 1",
    "CREATE FUNCTION f AS x -> file(x)",
    "BACKUP TABLE system.one TO File('{path}.out')",
]


@pytest.mark.parametrize("query", READS)
def test_the_reader_reaches_no_file(embedded_clickhouse: EmbeddedClickHouse, treasure: Path, query: str) -> None:
    status, code, text = ask(embedded_clickhouse, query.format(path=treasure))
    assert SECRET not in text
    assert status >= 400, text
    assert code is not None
    assert sorted(treasure.parent.iterdir()) == [treasure]


def test_the_reader_reaches_no_file_by_a_parameter_or_a_setting(
    embedded_clickhouse: EmbeddedClickHouse,
    treasure: Path,
) -> None:
    for query in ("SELECT arrayMap({f:Identifier}, ['%s'])", "SELECT {f:Identifier}('%s')"):
        for name in ("file", "`file`", "`f\\x69le`"):
            status, _, text = ask(embedded_clickhouse, query % treasure, param_f=name)
            assert status >= 400
            assert SECRET not in text
    for setting in ("format_template_row", "format_template_resultset", "format_schema"):
        status, code, text = ask(embedded_clickhouse, "SELECT 1 FORMAT Template", **{setting: str(treasure)})
        assert (status, code) == (500, "452")
        assert SECRET not in text


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM url('http://127.0.0.1:{port}/ping', 'LineAsString')",
        "DESCRIBE TABLE url('http://127.0.0.1:{port}/ping')",
        "DESCRIBE url\n('http://127.0.0.1:{port}/ping', CSV)",
        "DESCRIBE TABLE s3('http://127.0.0.1:{port}/bucket/ping')",
        "SELECT * FROM remote('127.0.0.1:{port}', 'system.one')",
        "SELECT * FROM mysql('127.0.0.1:{port}', 'a', 'b', 'c', 'd')",
        "SELECT aiGenerate('x')",
    ],
)
def test_the_reader_reaches_no_network(embedded_clickhouse: EmbeddedClickHouse, query: str) -> None:
    status, code, _ = ask(embedded_clickhouse, query.format(port=embedded_clickhouse.port))
    assert (status, code) in ((500, "497"), (500, "164"))


@pytest.mark.parametrize(
    "query",
    [
        "CREATE TABLE x (a Int8) ENGINE = Memory",
        "CREATE DATABASE x",
        "CREATE TEMPORARY TABLE x (a Int8)",
        "DROP DATABASE default",
        "ALTER TABLE system.one ADD COLUMN x Int8",
        "OPTIMIZE TABLE system.one",
        "RENAME TABLE a TO b",
        "TRUNCATE TABLE system.one",
        "INSERT INTO system.one VALUES (1)",
        "INSERT INTO system.one SELECT 1",
        "INSERT INTO system.one FORMAT JSONEachRow {}",
        "KILL QUERY WHERE 1",
        "SYSTEM STOP MERGES",
        "SYSTEM SHUTDOWN",
        "SET max_memory_usage = 0",
        "SET readonly = 0",
        "SELECT 1 SETTINGS max_execution_time = 0",
        "SELECT 1 SETTINGS readonly = 0",
        "ATTACH TABLE x",
        "DETACH TABLE system.one",
    ],
)
def test_the_reader_changes_nothing(embedded_clickhouse: EmbeddedClickHouse, query: str) -> None:
    status, code, text = ask(embedded_clickhouse, query)
    assert (status, code) == (500, "164"), text


@pytest.mark.fault(23)
def test_limits_cannot_be_raised(embedded_clickhouse: EmbeddedClickHouse) -> None:
    def value(name: str, **parameters: str) -> float:
        status, _, text = ask(embedded_clickhouse, f"SELECT getSetting('{name}')", **parameters)
        assert status == 200, text
        return float(text)

    for name, higher in {
        "max_execution_time": "100000",
        "max_memory_usage": str(1 << 50),
        "max_rows_to_read": str(1 << 60),
        "max_bytes_to_read": str(1 << 62),
        "max_result_rows": str(1 << 60),
        "max_result_bytes": str(1 << 60),
    }.items():
        normal = value(name)
        assert normal > 0
        assert value(name, **{name: higher}) == normal
        assert value(name, **{name: "0"}) == normal
        assert value(name, **{name: "7"}) == 7
    assert value("readonly", readonly="1") == 1
    for name, wanted in {
        "readonly": "0",
        "read_overflow_mode": "break",
        "dialect": "kusto",
        "profile": "default",
    }.items():
        assert ask(embedded_clickhouse, "SELECT 1", **{name: wanted})[:2] == (500, "452")


@pytest.mark.fault(23)
def test_memory_and_rows_are_limited(embedded_clickhouse: EmbeddedClickHouse) -> None:
    grow = "SELECT groupArray(number) FROM numbers(100000000)"
    assert ask(embedded_clickhouse, grow, max_memory_usage="50000000")[1] == "241"
    assert ask(embedded_clickhouse, "SELECT count() FROM numbers(100)", max_rows_to_read="10")[1] == "158"
    assert ask(embedded_clickhouse, "SELECT * FROM numbers(100)", max_result_rows="10")[1] == "396"


@pytest.mark.parametrize(
    "query", ["SELECT sum(number) FROM numbers(5)", "SELECT * FROM values('a Int8', 1, 9)", "SELECT 10"]
)
def test_harmless_functions_work(embedded_clickhouse: EmbeddedClickHouse, query: str) -> None:
    assert ask(embedded_clickhouse, query)[0] == 200


def test_words_in_strings_are_words(embedded_clickhouse: EmbeddedClickHouse) -> None:
    query = "SELECT 'file(url(''x''))', '\u2018é\u2019 $$' -- file(\n"
    assert ask(embedded_clickhouse, query)[2] == "file(url(\\'x\\'))\t\u2018é\u2019 $$\n"


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_the_writers_three_doors(embedded_clickhouse: EmbeddedClickHouse) -> None:
    server = embedded_clickhouse
    create = "CREATE TABLE IF NOT EXISTS w (a Int8) ENGINE = Memory"
    assert ask(server, create, basic("writer", server.password))[0] == 200
    assert ask(server, create, {"X-ClickHouse-User": "writer", "X-ClickHouse-Key": server.password})[0] == 200
    assert ask(server, create, user="writer", password=server.password)[0] == 200
    assert ask(server, create, basic("default", "anything"))[1] == "164"


def test_wrong_passwords(embedded_clickhouse: EmbeddedClickHouse) -> None:
    server = embedded_clickhouse
    for headers, parameters in (
        (basic("writer", ""), {}),
        (basic("writer", "wrong"), {}),
        (basic("nobody", ""), {}),
        ({"X-ClickHouse-User": "writer"}, {}),
        ({"Authorization": "Bearer abc"}, {}),
        ({"Authorization": "Basic %%%"}, {}),
        ({}, {"user": "writer", "password": "é"}),
    ):
        status, code, text = ask(server, "SELECT 1", headers, **parameters)
        assert (status, code) == (403, "516")
        assert "AUTHENTICATION_FAILED" in text


def test_the_secret_is_the_owners_only(embedded_clickhouse: EmbeddedClickHouse) -> None:
    path = embedded_clickhouse.home / "secret"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(embedded_clickhouse.password) >= 24


@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Host", "evil.example", 403),
        ("Host", "localhost.evil.example:8123", 403),
        ("Host", "127.0.0.1.evil.example", 403),
        ("Host", "", 403),
        ("Host", "10.1.2.3", 403),
        ("Host", "localhost:1", 200),
        ("Host", "LOCALHOST", 200),
        ("Host", "127.0.0.1", 200),
        ("Host", "[::1]:8123", 200),
        ("Origin", "http://evil.example", 403),
        ("Origin", "null", 403),
        ("Origin", "https://127.0.0.1.evil.example", 403),
        ("Origin", "http://localhost:8501", 200),
    ],
)
def test_hosts_and_origins(
    embedded_clickhouse: EmbeddedClickHouse,
    header: str,
    value: str,
    status: int,
) -> None:
    answer = ask(embedded_clickhouse, "SELECT 1", {header: value})
    assert answer[0] == status, answer


@pytest.mark.parametrize("odd", ["a\x00b", "a\r\nb", "a\x7fb", "\u00e4"])
def test_a_query_id_of_odd_characters_breaks_no_header(embedded_clickhouse: EmbeddedClickHouse, odd: str) -> None:
    assert ask(embedded_clickhouse, "SELECT 1", query_id=odd)[0] == 200
    assert ask(embedded_clickhouse, "SELECT", query_id=odd)[0] == 400
