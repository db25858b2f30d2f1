"""The clients that people have work against the embedded ClickHouse, unchanged."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import clickhouse_connect
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa
from clickhouse_connect.driver.exceptions import DatabaseError
from runtide.testing.embedded import EmbeddedClickHouse

COMPRESSIONS = [False, "lz4", "zstd", "gzip"]
TABLE = """CREATE TABLE {name} (id UInt64, name LowCardinality(String), value Float64, at DateTime64(3, 'UTC'),
 maybe Nullable(Int32), tags Array(String)) ENGINE = MergeTree ORDER BY id"""
MOMENT = dt.datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=dt.UTC)


def client(server: EmbeddedClickHouse, user: str = "writer", **more: Any) -> Any:
    password = server.password if user == "writer" else ""
    return clickhouse_connect.get_client(host=server.host, port=server.port, username=user, password=password, **more)


@pytest.fixture(scope="module")
def writer(embedded_clickhouse: EmbeddedClickHouse) -> Iterator[Any]:
    opened = client(embedded_clickhouse)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def reader(embedded_clickhouse: EmbeddedClickHouse) -> Iterator[Any]:
    opened = client(embedded_clickhouse, "default")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def filled(writer: Any) -> str:
    writer.command(TABLE.format(name="filled"))
    rows = [[i, f"n{i % 3}", i / 2, MOMENT, None if i % 2 else i, ["a", "é"]] for i in range(1000)]
    writer.insert("filled", rows, column_names=["id", "name", "value", "at", "maybe", "tags"])
    return "filled"


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_rows_and_frames_survive_each_compression(
    embedded_clickhouse: EmbeddedClickHouse,
    compress: Any,
) -> None:
    name = f"round_{compress or 'plain'}".lower()
    opened = client(embedded_clickhouse, compress=compress)
    opened.command(TABLE.format(name=name))
    opened.insert(
        name, [[1, "ä", 1.5, MOMENT, None, ["x"]]], column_names=["id", "name", "value", "at", "maybe", "tags"]
    )
    frame = pd.DataFrame({"id": [2, 3], "name": ["b", "c"], "value": [np.nan, np.inf], "at": [MOMENT, MOMENT]})
    opened.insert_df(name, frame)
    table = pa.table({"id": pa.array([4, 5], pa.uint64()), "name": ["d", "e"], "value": [4.0, 5.0]})
    opened.insert_arrow(name, table)
    assert opened.query(f"SELECT count(), sum(id) FROM {name}").result_rows == [(5, 15)]
    first = opened.query(f"SELECT * FROM {name} ORDER BY id LIMIT 1").first_row
    assert first[:3] == (1, "ä", 1.5)
    assert first[4:] == (None, ["x"])
    assert list(opened.query_df(f"SELECT id, value FROM {name} ORDER BY id")["id"]) == [1, 2, 3, 4, 5]
    assert opened.query_arrow(f"SELECT id FROM {name} ORDER BY id")["id"].to_pylist() == [1, 2, 3, 4, 5]
    opened.close()


def test_reader_queries_in_every_shape(reader: Any, filled: str) -> None:
    assert reader.command(f"SELECT count() FROM {filled}") == 1000
    assert reader.query(f"SELECT name FROM {filled} WHERE id = {{id:UInt64}}", parameters={"id": 4}).result_rows == [
        ("n1",)
    ]
    assert reader.query_np(f"SELECT id, value FROM {filled} ORDER BY id").shape[0] == 1000
    assert reader.query_df(f"SELECT * FROM {filled}").shape == (1000, 6)
    assert reader.query_arrow(f"SELECT * FROM {filled}").num_rows == 1000
    raw = reader.raw_query(f"SELECT id FROM {filled} ORDER BY id LIMIT 2", fmt="JSONEachRow")
    assert [json.loads(line)["id"] for line in raw.splitlines()] == [0, 1]
    assert reader.query(f"SELECT id, name FROM {filled} WHERE id > 5000").result_rows == []
    assert reader.query_arrow(f"SELECT id, name FROM {filled} WHERE id > 5000").column_names == ["id", "name"]
    assert reader.query(f"SELECT id, name FROM {filled} LIMIT 0").column_names == ("id", "name")
    assert reader.ping()


def test_reader_streams(reader: Any) -> None:
    query = "SELECT number, toString(number) AS text FROM numbers(500000)"
    with reader.query_row_block_stream(query) as blocks:
        assert sum(len(block) for block in blocks) == 500_000
    with reader.query_arrow_stream(query) as tables:
        parts = list(tables)
    assert sum(part.num_rows for part in parts) == 500_000
    assert len(parts) > 1
    with reader.query_df_stream(query) as frames:
        assert sum(len(frame) for frame in frames) == 500_000
    with reader.raw_stream(query, fmt="CSVWithNames") as stream:
        frame = pd.read_csv(io.BytesIO(stream.read()))
    assert list(frame.columns) == ["number", "text"]
    assert frame["number"].sum() == 499_999 * 500_000 // 2


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_an_error_in_the_middle_of_a_stream_is_an_error(
    embedded_clickhouse: EmbeddedClickHouse,
    compress: Any,
) -> None:
    opened = client(embedded_clickhouse, "default", compress=compress)
    query = "SELECT throwIf(number = 300000, 'thrown late') AS a, randomString(8) AS b FROM numbers(500000)"
    with pytest.raises(DatabaseError, match="thrown late"), opened.query_row_block_stream(query) as blocks:
        for _ in blocks:
            pass
    opened.close()


def test_reader_cannot_write(reader: Any, filled: str) -> None:
    with pytest.raises(DatabaseError, match="READONLY") as refused:
        reader.insert(filled, [[1, "x"]], column_names=["id", "name"])
    assert refused.value.code == 164
    for sql in (
        "CREATE TABLE x (a Int8) ENGINE = Memory",
        f"DROP TABLE {filled}",
        f"ALTER TABLE {filled} DELETE WHERE 1",
    ):
        with pytest.raises(DatabaseError, match="READONLY"):
            reader.command(sql)


def test_errors_carry_code_and_name(reader: Any) -> None:
    with pytest.raises(DatabaseError, match="Syntax error") as syntax:
        reader.query("SELEC 1")
    assert syntax.value.code == 62
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
        reader.query("SELECT * FROM absent")


def test_wrong_password_is_refused(embedded_clickhouse: EmbeddedClickHouse) -> None:
    with pytest.raises(DatabaseError, match="AUTHENTICATION_FAILED"):
        clickhouse_connect.get_client(
            host=embedded_clickhouse.host, port=embedded_clickhouse.port, username="writer", password="wrong"
        )


def test_async_client(embedded_clickhouse: EmbeddedClickHouse, filled: str) -> None:
    async def use() -> None:
        server = embedded_clickhouse
        opened = await clickhouse_connect.get_async_client(
            host=server.host, port=server.port, username="writer", password=server.password
        )
        try:
            await opened.command("CREATE TABLE from_async (a UInt32, b String) ENGINE = MergeTree ORDER BY a")
            await opened.insert("from_async", [[1, "x"], [2, "y"]], column_names=["a", "b"])
            await opened.insert_df("from_async", pd.DataFrame({"a": [3], "b": ["z"]}))
            await opened.insert_arrow("from_async", pa.table({"a": pa.array([4], pa.uint32()), "b": ["w"]}))
            results = await asyncio.gather(*(opened.query(f"SELECT {i}, count() FROM {filled}") for i in range(8)))
            assert [result.first_row for result in results] == [(i, 1000) for i in range(8)]
            assert (await opened.query_df("SELECT * FROM from_async ORDER BY a"))["b"].tolist() == ["x", "y", "z", "w"]
            assert (await opened.query_arrow("SELECT a FROM from_async")).num_rows == 4
            seen = 0
            async with await opened.query_row_block_stream("SELECT number FROM numbers(300000)") as blocks:
                async for block in blocks:
                    seen += len(block)
            assert seen == 300_000
        finally:
            await opened.close()

    asyncio.run(use())


def test_sqlalchemy(embedded_clickhouse: EmbeddedClickHouse, filled: str) -> None:
    server = embedded_clickhouse
    engine = sa.create_engine(f"clickhousedb://default:@{server.host}:{server.port}/default")
    with engine.connect() as connection:
        table = sa.Table(filled, sa.MetaData(), autoload_with=engine)
        rows = connection.execute(
            sa.select(table.c.id, table.c.name).where(table.c.id < 3).order_by(table.c.id)
        ).fetchall()
        assert [tuple(row) for row in rows] == [(0, "n0"), (1, "n1"), (2, "n2")]
        assert (
            connection.execute(sa.text("SELECT count() FROM filled WHERE name = :name"), {"name": "n0"}).scalar() == 334
        )
        frame = pd.read_sql(sa.text("SELECT id, value FROM filled ORDER BY id LIMIT 5"), connection)
        assert frame["value"].tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert filled in sa.inspect(engine).get_table_names()
    engine.dispose()


def test_curl(embedded_clickhouse: EmbeddedClickHouse, filled: str) -> None:
    server = embedded_clickhouse

    def curl(*arguments: str) -> str:
        done = subprocess.run(["curl", "-sS", *arguments], capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    query = urllib.parse.quote(f"SELECT id, tags FROM {filled} ORDER BY id LIMIT 1 FORMAT JSONEachRow")
    assert json.loads(curl(f"{server.url}?query={query}")) == {"id": 0, "tags": ["a", "é"]}
    assert curl(server.url, "-d", "SELECT 1") == "1\n"
    assert curl(f"{server.url}?default_format=CSV", "-d", "SELECT 'a', 2") == '"a",2\n'
    assert curl(server.url, "-d", "SELEC 1").startswith("Code: 62. DB::Exception: Syntax error")
    assert curl("--compressed", server.url, "-d", "SELECT count() FROM numbers(10)") == "10\n"
    writer = ("-u", f"writer:{server.password}")
    curl(*writer, server.url, "-d", "CREATE TABLE from_curl (a Int32, b String) ENGINE = MergeTree ORDER BY a")
    curl(*writer, f"{server.url}?query=INSERT%20INTO%20from_curl%20FORMAT%20JSONEachRow", "-d", '{"a": 1, "b": "ü"}')
    curl(*writer, server.url, "-d", "INSERT INTO from_curl VALUES (2, 'two'), (3, 'three')")
    curl(*writer, server.url, "--data-binary", 'INSERT INTO from_curl FORMAT CSV\n4,"four"\n')
    curl(*writer, server.url, "-d", "INSERT INTO from_curl SELECT a + 10, b FROM from_curl")
    assert curl(server.url, "-d", "SELECT sum(a), count() FROM from_curl FORMAT TSV") == "60\t8\n"


def test_pandas_reads_a_url(embedded_clickhouse: EmbeddedClickHouse, filled: str) -> None:
    query = urllib.parse.quote(f"SELECT id, name FROM {filled} ORDER BY id FORMAT CSVWithNames")
    with urllib.request.urlopen(f"{embedded_clickhouse.url}?query={query}", timeout=30) as answer:
        frame = pd.read_csv(io.BytesIO(answer.read()))
    assert frame.shape == (1000, 2)
