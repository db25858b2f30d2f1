"""How far the read-only user reaches: every table function, engine and function that the engine has is tried.

What a new release of the engine brings is refused until somebody has looked at it and has listed it here.
"""

from __future__ import annotations

import http.client
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from runtide.cli.ports import free_port
from runtide.embedded.sql import SAFE_TABLE_FUNCTIONS
from runtide.testing.embedded import EmbeddedClickHouse, start_embedded, stop_embedded

SECRET = "the-words-nobody-may-read"

REFUSED = ((500, "497"), (500, "164"))
"""Not enough privileges; cannot in readonly mode."""
HARMLESS = {
    "format": "rows from the query's own text",
    "fuzzjson": "made up",
    "generaterandom": "made up",
    "generateseries": "made up",
    "generate_series": "made up",
    "merge": "reads tables, as SELECT does",
    "mergetreeindex": "reads tables, as SELECT does",
    "mergetreeprojection": "reads tables, as SELECT does",
    "null": "no rows",
    "numbers": "made up",
    "numbers_mt": "made up",
    "primes": "made up",
    "values": "rows from the query's own text",
    "view": "a subquery",
    "viewexplain": "a subquery's plan",
    "viewifpermitted": "a subquery",
    "zeros": "made up",
    "zeros_mt": "made up",
}


def ask(server: EmbeddedClickHouse, query: str, **parameters: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    try:
        connection.request("POST", "/?" + urllib.parse.urlencode(parameters), query.encode())
        answer = connection.getresponse()
        code = answer.headers["X-ClickHouse-Exception-Code"] or ""
        return answer.status, code, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


def listed(server: EmbeddedClickHouse, table: str) -> list[str]:
    return ask(server, f"SELECT name FROM system.{table} ORDER BY name")[2].split("\n")[:-1]


@pytest.fixture(scope="module")
def treasure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("treasure") / "secret.csv"
    path.write_text(SECRET + "\n")
    return path


def test_what_is_let_through_is_what_is_listed_here() -> None:
    assert set(HARMLESS) == SAFE_TABLE_FUNCTIONS


def test_every_other_table_function_is_refused(embedded_clickhouse: EmbeddedClickHouse, treasure: Path) -> None:
    server = embedded_clickhouse
    names = listed(server, "table_functions")
    assert {"file", "url", "s3", "mysql", "executable", "remote", "dictionary", "cluster", "python", "sqlite"} <= set(
        names
    )
    ways = (
        "SELECT * FROM {name}({path})",
        "SELECT * FROM `{name}`({path})",
        'SELECT * FROM "{name}" ({path})',
        "SELECT * FROM {name} /* */ ({path})",
        "DESCRIBE TABLE {name}({path})",
        "EXPLAIN SELECT * FROM {name}({path})",
        "EXPLAIN AST SELECT * FROM {name}({path})",
        "SELECT 1 WHERE 1 IN (SELECT 1 FROM {name}({path}))",
        "WITH x AS (SELECT * FROM {name}({path})) SELECT * FROM x",
        "SELECT 1 AS a JOIN {name}({path}) AS t ON 1",
        "SELECT * FROM view(SELECT * FROM {name}({path}))",
        "SELECT * FROM merge('system', 'one') UNION ALL SELECT * FROM {name}({path})",
        "INSERT INTO FUNCTION {name}({path}) SELECT 1",
    )
    for name in names:
        if name.lower() in HARMLESS:
            continue
        for spelled in {name, name.upper(), name.lower()}:
            for way in ways:
                query = way.format(name=spelled, path=f"'{treasure}'")
                status, code, text = ask(server, query)
                assert (status, code) in REFUSED, (query, text)
    assert sorted(treasure.parent.iterdir()) == [treasure]


def test_harmless_table_functions_read_no_file(embedded_clickhouse: EmbeddedClickHouse, treasure: Path) -> None:
    formats = listed(embedded_clickhouse, "formats")
    queries = [f"SELECT * FROM {name}('{treasure}')" for name in HARMLESS]
    queries += [f"SELECT * FROM {name}('{treasure.parent}', '{treasure.name}')" for name in HARMLESS]
    queries += [f"SELECT * FROM format({name}, '{treasure}')" for name in formats]
    for query in queries:
        assert SECRET not in ask(embedded_clickhouse, query)[2], query


def test_no_function_reads_a_file(embedded_clickhouse: EmbeddedClickHouse, treasure: Path) -> None:
    """Every function of the engine is called with the path of a file, alone and with further arguments."""
    server = embedded_clickhouse
    names = [name for name in listed(server, "functions") if name.lower() not in {"sleep", "sleepeachrow"}]
    assert len(names) > 1000

    def tried(name: str) -> None:
        for arguments in (f"'{treasure}'", f"'{treasure}', '{treasure}'", f"'{treasure}', 1", f"'a', '{treasure}'"):
            _, _, text = ask(server, f"SELECT `{name}`({arguments})", max_execution_time="5")
            assert SECRET not in text, name

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(tried, names))


def test_the_functions_that_the_engine_could_reach_out_with(embedded_clickhouse: EmbeddedClickHouse) -> None:
    for name in ("addressToLine", "addressToLineWithInlines", "addressToSymbol"):
        query = f"SELECT {name}(toUInt64(1))"
        assert ask(embedded_clickhouse, query)[1] == "446", "introspection functions are off"
        assert ask(embedded_clickhouse, query, allow_introspection_functions="1")[:2] == (500, "452")
    for name in listed(embedded_clickhouse, "functions"):
        if name.startswith(("AI", "ai")) and name[2:3].isupper():
            assert ask(embedded_clickhouse, f"SELECT {name}('x')")[1] == "497", name


def test_no_engine_makes_a_table_or_database(embedded_clickhouse: EmbeddedClickHouse, treasure: Path) -> None:
    server = embedded_clickhouse
    for engine in listed(server, "table_engines"):
        for kind in ("TABLE", "TEMPORARY TABLE", "OR REPLACE TABLE"):
            query = f"CREATE {kind} made (a Int8) ENGINE = {engine}('{treasure}')"
            assert ask(server, query)[:2] in REFUSED, query
    for engine in listed(server, "database_engines"):
        query = f"CREATE DATABASE made ENGINE = {engine}('{treasure.parent}')"
        assert ask(server, query)[:2] in REFUSED, query
    for source in ("FILE", "EXECUTABLE", "HTTP", "CLICKHOUSE", "MYSQL", "POSTGRESQL", "MONGODB", "REDIS", "ODBC"):
        query = f"CREATE DICTIONARY made (a Int8) PRIMARY KEY a SOURCE({source}(path '{treasure}')) LAYOUT(FLAT())"
        assert ask(server, query)[:2] in REFUSED, query
    assert "made" not in ask(server, "SELECT groupArray(name) FROM system.tables")[2]


WAYS_OUT = [
    "SELECT * FROM default.`{path}`",
    "SELECT * FROM system.`{path}`",
    'SELECT * FROM "{path}"',
    "SELECT * FROM `file://{path}`",
    "SELECT * FROM `../../../../../../../../../../../{path}`",
    "DESCRIBE TABLE `{path}`",
    "SHOW CREATE TABLE `{path}`",
    "SHOW TABLES FROM `{folder}`",
    "SELECT * FROM `{folder}`.`secret.csv`",
    "SELECT * FROM {{t:Identifier}}",
    "SELECT * FROM {{d:Identifier}}.`secret.csv`",
    "SELECT dictGet('{path}', 'a', 1)",
    "SELECT joinGet('{path}', 'a', 1)",
    "SELECT 1 INTO OUTFILE '{path}.out' TRUNCATE",
    "SELECT 1 FORMAT CapnProto SETTINGS format_schema = '{path}:M'",
    "SELECT * FROM format(CSV, (SELECT file('{path}')))",
    "EXISTS TABLE `{path}`",
]


@pytest.mark.parametrize("way", WAYS_OUT)
def test_no_name_reaches_outside_the_home(
    embedded_clickhouse: EmbeddedClickHouse,
    treasure: Path,
    way: str,
) -> None:
    query = way.format(path=treasure, folder=treasure.parent)
    for parameters in (
        {},
        {"database": str(treasure.parent)},
        {"database": ".."},
        {"param_t": str(treasure), "param_d": "default"},
    ):
        status, _, text = ask(embedded_clickhouse, query, **parameters)
        assert SECRET not in text
        assert status >= 400 or (way.startswith("EXISTS") and text == "0\n"), text
    assert sorted(treasure.parent.iterdir()) == [treasure]


def test_nobody_learns_which_files_there_are(embedded_clickhouse: EmbeddedClickHouse, treasure: Path) -> None:
    for way in (
        "SELECT * FROM `{0}`",
        "EXISTS TABLE `{0}`",
        "EXISTS `{0}`",
        "DESCRIBE `{0}`",
        "SHOW CREATE TABLE `{0}`",
    ):
        answers = []
        for path in (treasure, treasure.with_name("absent.csv")):
            status, code, text = ask(embedded_clickhouse, way.format(path))
            answers.append((status, code, text.replace(str(path), "")))
        assert answers[0] == answers[1], way


def test_the_database_default_is_plain_and_keeps_its_tables(tmp_path: Path) -> None:
    for expected in (1, 2, 3):
        server = start_embedded(tmp_path)
        for query in (
            "CREATE TABLE IF NOT EXISTS kept (a Int8) ENGINE = MergeTree ORDER BY a",
            "INSERT INTO kept SELECT 1",
        ):
            assert ask(server, query, user="writer", password=server.password)[0] == 200
        assert ask(server, "SELECT count() FROM kept")[2] == f"{expected}\n"
        assert ask(server, "SELECT engine FROM system.databases WHERE name = 'default'")[2] == "Atomic\n"
        assert stop_embedded(server) == 0


def test_the_home_has_the_writers_password_and_sql_does_not_show_it(embedded_clickhouse: EmbeddedClickHouse) -> None:
    server = embedded_clickhouse
    assert ask(server, f"SELECT file('{server.home}/secret')")[1] == "497"
    for table in listed(server, "tables WHERE database = 'system'"):
        status, _, text = ask(server, f"SELECT * FROM system.`{table}` LIMIT 1000 FORMAT TSV", max_execution_time="10")
        assert server.password not in text, table
        assert status == 200 or "DB::Exception" in text, table


# --- time

LIMIT_S = 2
SAID = {
    "159": "too long",
    "160": "will take too long",
    "394": "cancelled",
    "241": "too much memory",
    "128": "too large",
    "396": "too many rows",
}
SLOW = [
    "SELECT count() FROM numbers(100000000) AS a CROSS JOIN numbers(100000000) AS b",
    "SELECT count() FROM numbers(1000000000000000) WHERE cityHash64(number) = 1",
    "SELECT count() FROM numbers_mt(1000000000000000) WHERE cityHash64(number) = 1",
    "SELECT number FROM numbers(1000000000000000) ORDER BY cityHash64(number) LIMIT 1",
    "SELECT * FROM numbers(1000000000000000) FORMAT Null",
    "SELECT * FROM generateRandom('a UInt64') FORMAT Null",
    "SELECT sleepEachRow(0.1) FROM numbers(3600)",
    "SELECT sum(length(replaceRegexpAll(repeat(toString(number), 1000), '(a|[0-9])+', 'x'))) FROM numbers(1000000000)",
    "SELECT * FROM generateRandom('a UInt64') FORMAT JSON",
]


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClickHouse]:
    """A server whose read-only user has `LIMIT_S`."""
    home, port = tmp_path_factory.mktemp("quick"), free_port()
    code = (
        "import sys; from pathlib import Path; from runtide.embedded.limits import QueryLimits;"
        "from runtide.embedded.server import EmbeddedServer;"
        f"EmbeddedServer(Path(sys.argv[1]), port={port}, "
        f"limits=QueryLimits(max_execution_time_s={LIMIT_S}, max_rows_to_read=10**18, max_bytes_to_read=10**18)).run()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(home)])
    server = EmbeddedClickHouse(home, "127.0.0.1", port, "", process, home / "log")
    deadline = time.monotonic() + 60
    while True:
        try:
            assert ask(server, "SELECT 1")[0] == 200
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield server
    process.terminate()
    process.wait(30)


@pytest.mark.parametrize(
    ("query", "asked"), [*((query, "") for query in SLOW), *((SLOW[0], asked) for asked in ("0", "100000"))]
)
def test_nothing_runs_longer_than_its_limit(quick: EmbeddedClickHouse, query: str, asked: str) -> None:
    begun = time.monotonic()
    status, code, text = ask(quick, query, **({"max_execution_time": asked} if asked else {}))
    assert time.monotonic() - begun < LIMIT_S + 7, text
    assert status >= 400 or "DB::Exception" in text, text
    assert code in SAID, text
    assert ask(quick, "SELECT count() FROM system.processes")[2] == "1\n", "nothing is left running"
