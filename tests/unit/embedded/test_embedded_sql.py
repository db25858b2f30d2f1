from __future__ import annotations

import pytest
from runtide.embedded.errors import ServerError
from runtide.embedded.sql import Kind, read_statement, refuse_for_reader, split_insert, tokens, unsafe_table_functions

UNSAFE = unsafe_table_functions(["numbers", "url", "s3", "file", "remote", "view", "Executable"])


@pytest.mark.parametrize(
    ("text", "head", "format_name", "data"),
    [
        (b"INSERT INTO t FORMAT CSV\n1,2\n", b"INSERT INTO t", "CSV", b"1,2\n"),
        (b"insert into t format JSONEachRow {}", b"insert into t", "JSONEachRow", b"{}"),
        (b"INSERT INTO t FORMAT CSV\r\n1", b"INSERT INTO t", "CSV", b"1"),
        (b"INSERT INTO t FORMAT CSV;\n1", b"INSERT INTO t", "CSV", b"1"),
        (b"INSERT INTO t (a, b) VALUES (1, 2)", b"INSERT INTO t (a, b)", "Values", b" (1, 2)"),
        (b"INSERT INTO TABLE d.t (`a)`) VALUES(1)", b"INSERT INTO TABLE d.t (`a)`)", "Values", b"(1)"),
        (b"INSERT INTO format FORMAT Native\n\x00\xff", b"INSERT INTO format", "Native", b"\x00\xff"),
        (b"INSERT INTO values.format VALUES (1)", b"INSERT INTO values.format", "Values", b" (1)"),
        (b"INSERT INTO `values` VALUES (1)", b"INSERT INTO `values`", "Values", b" (1)"),
        (b"/* x */ INSERT INTO t -- FORMAT x\n FORMAT TSV\na", b"/* x */ INSERT INTO t -- FORMAT x", "TSV", b"a"),
        (b"INSERT INTO t SETTINGS a = 1 FORMAT TSV\na", b"INSERT INTO t SETTINGS a = 1", "TSV", b"a"),
        (b"INSERT INTO FUNCTION null('a Int8') FORMAT TSV\na", b"INSERT INTO FUNCTION null('a Int8')", "TSV", b"a"),
        (b"INSERT INTO t", b"INSERT INTO t", "", b""),
        (b"INSERT INTO t (a);", b"INSERT INTO t (a)", "", b""),
    ],
)
def test_an_insert_is_cut_at_its_data(text: bytes, head: bytes, format_name: str, data: bytes) -> None:
    insert = split_insert(text)
    assert insert is not None
    assert (insert.head, insert.format, text[insert.data_start :]) == (head, format_name, data)


@pytest.mark.parametrize(
    "text",
    [
        b"SELECT 1",
        b"",
        b"INSERT INTO t SELECT 1",
        b"INSERT INTO t (a) SELECT 1 FORMAT TSV",
        b"INSERT INTO t WITH x AS (SELECT 1) SELECT * FROM x",
        b"INSERT INTO t (SELECT 1)",
        b"INSERT INTO t (a) (SELECT 1)",
        b"CREATE TABLE t (a Int8) ENGINE = Memory",
    ],
)
def test_no_data_behind_these(text: bytes) -> None:
    assert split_insert(text) is None


@pytest.mark.parametrize(
    ("text", "kind", "format_name", "streamable"),
    [
        (b"SELECT 1", Kind.READ, "", True),
        (b"WITH 1 AS x SELECT x FORMAT Native", Kind.READ, "Native", True),
        (b"(SELECT 1) UNION ALL (SELECT 2) FORMAT CSV SETTINGS a = 1", Kind.READ, "CSV", True),
        (b"SELECT a, sum(b) FROM t GROUP BY a WITH TOTALS", Kind.READ, "", False),
        (b"SELECT 'FORMAT x' FORMAT TSV;", Kind.READ, "TSV", True),
        (b"SHOW TABLES", Kind.OTHER, "", False),
        (b"INSERT INTO t SELECT 1", Kind.INSERT, "", False),
    ],
)
def test_statements(text: bytes, kind: Kind, format_name: str, streamable: bool) -> None:
    statement = read_statement(text)
    assert (statement.kind, statement.format, statement.streamable) == (kind, format_name, streamable)


@pytest.mark.parametrize("text", [b"SELECT 1; SELECT 2", b"SELECT ';';;x", b"", b" -- only a comment", b"/* */ ;"])
def test_several_statements_and_none_are_refused(text: bytes) -> None:
    with pytest.raises(ServerError) as refused:
        read_statement(text)
    assert refused.value.code == 62


@pytest.mark.parametrize("text", [b"SELECT 1;", b"SELECT 1 ; ;", b"SELECT ';' -- ;x"])
def test_semicolons_at_the_end_and_in_strings(text: bytes) -> None:
    assert read_statement(text).kind is Kind.READ


@pytest.mark.parametrize(
    "text",
    [
        "SELECT file('x')",
        "SELECT FILE('x')",
        "SELECT * APPLY file",
        "SELECT `file`('x')",
        "SELECT `a\\x62`",
        "SELECT * FROM url('x')",
        "SELECT * FROM URL /* */ ('x')",
        'SELECT * FROM "s3"(x)',
        "SELECT $a$x$a$",
        "SELECT ‘x’",  # noqa: RUF001
        "SELECT a\u00a0FROM t",
        "KILL QUERY WHERE 1",
    ],
)
def test_refused_for_the_reader(text: str) -> None:
    with pytest.raises(ServerError) as refused:
        refuse_for_reader(read_statement(text.encode()), [], UNSAFE)
    assert refused.value.code in (164, 497)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT url, s3, remote FROM t",
        "SELECT 'file()', 'é', '''file(''', \"a b\", `c`",
        "SELECT 1 -- file('x') é",
        "SELECT * FROM numbers(3), view(SELECT 1)",
        "SELECT profile, files, filename FROM t WHERE a = 'file'",
    ],
)
def test_allowed_for_the_reader(text: str) -> None:
    refuse_for_reader(read_statement(text.encode()), ["file"], UNSAFE)


def test_an_identifier_parameter_cannot_name_what_is_refused() -> None:
    statement = read_statement(b"SELECT arrayMap({f:Identifier}, ['x'])")
    with pytest.raises(ServerError):
        refuse_for_reader(statement, ["`file`"], UNSAFE)
    refuse_for_reader(statement, ["lower"], UNSAFE)


def test_tokens_are_lazy_and_keep_offsets() -> None:
    found = next(tokens(b"  SELECT" + b"\xff" * 10))
    assert (found.text, found.start, found.end) == (b"SELECT", 2, 8)
