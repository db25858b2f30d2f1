"""The HTTP interface itself: bodies, headers, statuses, streams, limits, and what happens when a client leaves."""

from __future__ import annotations

import gzip
import http.client
import io
import json
import socket
import time
import urllib.parse
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import lz4.frame
import pyarrow as pa
import pytest
import zstandard
from runtide.embedded import frames
from runtide.testing.embedded import EmbeddedClickHouse
from runtide.testing.waiting import until


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def code(self) -> str | None:
        return self.headers["X-ClickHouse-Exception-Code"]


class Http:
    """A client that adds nothing of its own."""

    def __init__(self, server: EmbeddedClickHouse) -> None:
        self.server = server

    def __call__(
        self,
        body: bytes | str | None = None,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        path: str = "/",
        writer: bool = False,
        **parameters: str,
    ) -> Answer:
        sent = dict(headers or {})
        if writer:
            sent |= {"X-ClickHouse-User": "writer", "X-ClickHouse-Key": self.server.password}
        url = path + ("?" + urllib.parse.urlencode(parameters) if parameters else "")
        connection = http.client.HTTPConnection(self.server.host, self.server.port, timeout=60)
        try:
            data = body.encode() if isinstance(body, str) else body
            connection.request(method or ("GET" if body is None else "POST"), url, data, sent)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()


@pytest.fixture(scope="module")
def http_(embedded_clickhouse: EmbeddedClickHouse) -> Http:
    return Http(embedded_clickhouse)


def new_table(http_: Http, name: str, columns: str = "a Int64, b String") -> str:
    answer = http_(f"CREATE TABLE {name} ({columns}) ENGINE = MergeTree ORDER BY a", writer=True)
    assert answer.status == 200, answer.text
    return name


def rows_and_parts(http_: Http, name: str) -> tuple[int, int]:
    rows = int(http_(f"SELECT count() FROM {name}").text)
    parts = int(http_(f"SELECT count() FROM system.parts WHERE table = '{name}' AND active").text)
    return rows, parts


@pytest.mark.parametrize("path", ["/", "/ping", "/replicas_status"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_health(http_: Http, path: str, method: str) -> None:
    answer = http_(path=path, method=method)
    assert (answer.status, answer.text) == (200, "Ok.\n" if method == "GET" else "")


def test_unknown_path_and_methods(http_: Http) -> None:
    assert http_(path="/absent").status == 404
    assert http_(method="OPTIONS").status == 204
    assert http_(method="DELETE").status == 405


def test_headers_of_an_answer(http_: Http) -> None:
    answer = http_("SELECT 1 AS x FORMAT JSON", query_id="mine")
    assert answer.headers["X-ClickHouse-Query-Id"] == "mine"
    assert answer.headers["X-ClickHouse-Format"] == "JSON"
    assert answer.headers["X-ClickHouse-Timezone"]
    assert answer.headers["X-ClickHouse-Server-Display-Name"]
    assert answer.headers["Content-Type"] == "application/json; charset=UTF-8"
    assert int(json.loads(answer.headers["X-ClickHouse-Summary"])["result_rows"]) == 1


def test_summary_of_an_insert(http_: Http) -> None:
    name = new_table(http_, "summed")
    answer = http_(f'INSERT INTO {name} FORMAT JSONEachRow {{"a":1}}{{"a":2}}', writer=True)
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["written_rows"] == "2"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("SELEC 1", 400, "62"),
        ("SELECT 1; SELECT 2", 400, "62"),
        ("", 400, "62"),
        ("SELECT * FROM absent", 404, "60"),
        ("SELECT * FROM absent.absent", 404, "81"),
        ("SELECT absent", 404, "47"),
        ("SELECT absent(1)", 404, "46"),
        ("SELECT 1 FORMAT Absent", 404, "73"),
        ("SELECT toInt8('x')", 400, "6"),
        ("SELECT 1 INTO OUTFILE '/tmp/x'", 500, "358"),
        ("INSERT INTO absent VALUES (1)", 500, "164"),
    ],
)
def test_errors(http_: Http, query: str, status: int, code: str) -> None:
    answer = http_(query)
    assert (answer.status, answer.code) == (status, code), answer.text
    assert answer.text.startswith(f"Code: {code}. DB::Exception: ")
    assert "(version " in answer.text


def test_a_semicolon_at_the_end_is_fine(http_: Http) -> None:
    assert http_("SELECT ';' ; -- the end\n").text == ";\n"


def test_unknown_settings_and_names(http_: Http) -> None:
    assert http_("SELECT 1", absent_setting="1").code == "115"
    assert http_("SELECT 1", **{"not a name": "1"}).code == "36"
    assert http_("SELECT 1", database="absent").code == "81"


def test_parameters(http_: Http) -> None:
    answer = http_(
        "SELECT {a:String}, {b:Array(UInt8)}, {c:Date} FORMAT TSV",
        param_a="it's é",
        param_b="[1,2]",
        param_c="2026-01-02",
    )
    assert answer.text == "it\\'s é\t[1,2]\t2026-01-02\n"
    assert http_("SELECT * FROM {t:Identifier}", param_t="numbers").code == "60"


def test_insert_with_parameters(http_: Http) -> None:
    name = new_table(http_, "parametrised")
    assert (
        http_(f"INSERT INTO {name} VALUES ({{a:Int64}}, {{b:String}})", writer=True, param_a="7", param_b="x'").status
        == 200
    )
    assert http_("INSERT INTO {t:Identifier} FORMAT CSV\n8,y\n", writer=True, param_t=name).status == 200
    assert http_(f"SELECT a, b FROM {name} ORDER BY a").text == "7\tx\\'\n8\ty\n"


def test_database_and_default_format(http_: Http) -> None:
    assert http_("SELECT * FROM one", database="system", default_format="JSONCompactEachRow").text == "[0]\n"
    assert http_("SELECT currentDatabase()", headers={"X-ClickHouse-Database": "system"}).text == "system\n"
    assert http_("SELECT 1", headers={"X-ClickHouse-Format": "CSVWithNames"}).text == '"1"\n1\n'


def test_query_in_url_and_rest_in_body(http_: Http) -> None:
    assert http_(" + 1", query="SELECT 1").text == "2\n"
    assert http_(query="SELECT 'é' AS x FORMAT JSONEachRow").text == '{"x":"é"}\n'


def test_a_very_long_url_and_one_too_long(http_: Http) -> None:
    digits = "1" * 200_000
    assert http_(query=f"SELECT length('{digits}')").text == "200000\n"
    assert http_(query=f"SELECT length('{'1' * 1_200_000}')").status in (400, 414, 431)


def test_get_is_read_only_for_the_writer_too(http_: Http) -> None:
    answer = http_(query="CREATE TABLE by_get (a Int8) ENGINE = Memory", writer=True)
    assert answer.code == "164"
    assert http_(query="INSERT INTO by_get VALUES (1)", writer=True).code == "164"


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("lz4", lz4.frame.compress),
        ("zstd", zstandard.ZstdCompressor().compress),
    ],
)
def test_compressed_bodies_in(http_: Http, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    name = new_table(http_, f"packed_{encoding}")
    body = pack(b"".join(b'{"a":%d,"b":"some text"}\n' % i for i in range(10_000)))
    query = f"INSERT INTO {name} FORMAT JSONEachRow"
    assert http_(body, headers={"Content-Encoding": encoding}, writer=True, query=query).status == 200
    assert rows_and_parts(http_, name) == (10_000, 1)
    cut = http_(body[:-8], headers={"Content-Encoding": encoding}, writer=True, query=query)
    assert cut.status >= 400
    assert rows_and_parts(http_, name)[0] == 10_000


@pytest.mark.parametrize(
    ("encoding", "unpack"),
    [
        ("gzip", gzip.decompress),
        ("deflate", zlib.decompress),
        ("lz4", lz4.frame.decompress),
        ("zstd", lambda data: zstandard.ZstdDecompressor().stream_reader(data).read()),
    ],
)
@pytest.mark.parametrize("rows", [3, 200_000])
def test_compressed_bodies_out(http_: Http, encoding: str, unpack: Callable[[bytes], bytes], rows: int) -> None:
    query = f"SELECT number FROM numbers({rows})"
    answer = http_(query, headers={"Accept-Encoding": encoding})
    assert answer.headers["Content-Encoding"] == encoding
    assert unpack(answer.body) == http_(query).body
    assert (
        http_(query, headers={"Accept-Encoding": encoding}, enable_http_compression="0").headers["Content-Encoding"]
        is None
    )


def test_a_refused_upload_is_told_why(http_: Http) -> None:
    body = b"INSERT INTO absent FORMAT TSV\n" + b"x" * 30_000_000
    refused = http_(body, headers={"X-ClickHouse-User": "writer", "X-ClickHouse-Key": "wrong"})
    assert (refused.status, refused.code) == (403, "516")
    assert http_(body, writer=True).code == "60"


def test_unknown_encoding(http_: Http) -> None:
    assert http_("SELECT 1", headers={"Content-Encoding": "snappy"}).code == "89"


def test_native_frames_both_ways(http_: Http) -> None:
    query = "SELECT number, toString(number) FROM numbers(100000) FORMAT TSV"
    framed = http_(query, compress="1")
    assert frames.decompress_blocks(framed.body, 1 << 30) == http_(query).body
    name = new_table(http_, "framed")
    body = b"".join(frames.compress_blocks(http_(query).body))
    assert http_(body, writer=True, decompress="1", query=f"INSERT INTO {name} FORMAT TSV").status == 200
    assert rows_and_parts(http_, name) == (100_000, 1)
    broken = body[:100] + bytes([body[100] ^ 1]) + body[101:]
    assert http_(broken, writer=True, decompress="1", query=f"INSERT INTO {name} FORMAT TSV").code == "40"


def test_the_checksum_is_the_engines_own(http_: Http, embedded_clickhouse: EmbeddedClickHouse) -> None:
    """Column files on disk carry the same frames, so the engine's own bytes judge the hash, at many lengths."""
    http_("CREATE TABLE hashed (a UInt64 CODEC(LZ4), b String CODEC(LZ4)) ENGINE = MergeTree ORDER BY a"
          " SETTINGS min_bytes_for_wide_part = 0", writer=True)  # fmt: skip
    for rows in (1, 2, 5, 17, 100, 20_000):
        http_(
            f"INSERT INTO hashed SELECT rand64(), randomPrintableASCII(number % 50) FROM numbers({rows})", writer=True
        )
    files = [
        path for path in (embedded_clickhouse.home / "clickhouse").rglob("*.bin") if path.name in ("a.bin", "b.bin")
    ]
    packed = [path.read_bytes() for path in files if path.stat().st_size]
    assert len(packed) >= 6
    for data in packed:
        frames.decompress_blocks(data, 1 << 30)  # raises when a checksum differs


def arrow(rows: int, batch: int) -> bytes:
    table = pa.table({"a": pa.array(range(rows), pa.int64()), "b": pa.array(["text"] * rows)})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=batch)
    return sink.getvalue()


@pytest.mark.parametrize("batch", [1_000, 200_000])
def test_an_arrow_body_is_one_part(http_: Http, batch: int) -> None:
    name = new_table(http_, f"arrow_{batch}")
    assert http_(arrow(200_000, batch), writer=True, query=f"INSERT INTO {name} FORMAT ArrowStream").status == 200
    assert rows_and_parts(http_, name) == (200_000, 1)


def test_a_body_that_breaks_in_the_middle_stores_nothing(http_: Http) -> None:
    name = new_table(http_, "broken")
    lines = b"".join(b'{"a":%d}\n' % i for i in range(300_000)) + b'{"a":"x"}\n'
    answer = http_(lines, writer=True, query=f"INSERT INTO {name} FORMAT JSONEachRow")
    assert answer.status == 400
    assert rows_and_parts(http_, name) == (0, 0)
    assert (
        http_(arrow(10_000, 10_000)[:-30_000], writer=True, query=f"INSERT INTO {name} FORMAT ArrowStream").status
        >= 400
    )
    assert rows_and_parts(http_, name) == (0, 0)


@pytest.mark.parametrize(
    "format_name",
    [
        "Native",
        "JSONEachRow",
        "CSVWithNames",
        "TSVWithNamesAndTypes",
        "RowBinaryWithNamesAndTypes",
        "JSONCompactEachRowWithNames",
    ],
)
def test_a_streamed_document_is_what_one_piece_would_be(http_: Http, format_name: str) -> None:
    query = (
        f"SELECT number AS n, concat('a\\nb\"', toString(number)) AS `s\"\nt` FROM numbers(200000) FORMAT {format_name}"
    )
    streamed = http_(query)
    assert streamed.headers["Transfer-Encoding"] == "chunked"
    whole = http_(query, wait_end_of_query="1")
    assert whole.headers["Content-Length"]
    assert streamed.body == whole.body
    empty = http_(query.replace("numbers(200000)", "numbers(0)"))
    assert empty.body == http_(query.replace("numbers(200000)", "numbers(0)"), wait_end_of_query="1").body


def test_a_streamed_arrow_document(http_: Http) -> None:
    answer = http_("SELECT number, toLowCardinality(toString(number % 7)) AS s FROM numbers(300000) FORMAT ArrowStream")
    table = pa.ipc.open_stream(answer.body).read_all()
    assert table["number"].to_pylist() == list(range(300_000))


def test_totals_are_kept(http_: Http) -> None:
    answer = http_("SELECT number % 2 AS k, count() FROM numbers(5) GROUP BY k WITH TOTALS ORDER BY k FORMAT TSV")
    assert answer.text == "0\t3\n1\t2\n\n0\t5\n"


def test_an_error_behind_sent_bytes_is_marked(http_: Http) -> None:
    answer = http_("SELECT throwIf(number = 400000), randomString(8) FROM numbers(500000) FORMAT TSV")
    tag = answer.headers["X-ClickHouse-Exception-Tag"]
    assert answer.body.endswith(f" {tag}\r\n__exception__\r\n".encode())
    assert b"Code: 395. DB::Exception" in answer.body


def test_multipart_forms(http_: Http) -> None:
    def form(**fields: str) -> tuple[bytes, dict[str, str]]:
        parts = (f'--zz\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items())
        return ("".join(parts) + "--zz--\r\n").encode(), {"Content-Type": "multipart/form-data; boundary=zz"}

    body, headers = form(query="SELECT {a:UInt8} + 1", param_a="4")
    assert http_(body, headers=headers).text == "5\n"
    external = body.replace(b'name="param_a"', b'name="t"; filename="t"')
    assert http_(external, headers=headers).code == "48"


def test_sessions_and_harmless_settings_are_accepted(http_: Http) -> None:
    answer = http_(
        "SELECT 1", session_id="s", session_timeout="60", session_check="0", max_block_size="1000", log_comment="x",
        send_progress_in_http_headers="1", wait_end_of_query="1", output_format_json_quote_64bit_integers="0",
    )  # fmt: skip
    assert answer.text == "1\n"


def test_a_session_keeps_nothing(http_: Http) -> None:
    assert http_("CREATE TEMPORARY TABLE mine (a Int8)", writer=True, session_id="s").status == 200
    assert http_("SELECT * FROM mine", writer=True, session_id="s").code == "60"
    assert http_("SET max_threads = 3", writer=True, session_id="s").status == 200
    assert http_("SELECT getSetting('max_threads')", writer=True, session_id="s").text != "3\n"


# Grafana's data sources that read JSON put the query into the URL or the body, and their options into the URL.
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("encoding", ["", "gzip"])
@pytest.mark.parametrize("format_name", ["JSON", "JSONCompact"])
def test_json_documents(http_: Http, method: str, encoding: str, format_name: str) -> None:
    query = (
        "SELECT toUInt64(toUnixTimestamp('2026-01-01 00:00:00', 'UTC')) * 1000 + number AS t, "
        f"toLowCardinality('loss') AS metric, number / 2 AS value FROM numbers(3) FORMAT {format_name}"
    )
    options = {
        "add_http_cors_header": "1",
        "database": "default",
        "enable_http_compression": "1",
        "output_format_json_quote_64bit_integers": "1",
    }
    headers = {"X-ClickHouse-User": "default", "X-ClickHouse-Key": "", "Accept-Encoding": encoding}
    if method == "GET":
        answer = http_(headers=headers, query=query, **options)
    else:
        answer = http_(query, headers=headers, **options)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json; charset=UTF-8"
    assert answer.headers["Content-Encoding"] == (encoding or None)
    document = json.loads(gzip.decompress(answer.body) if encoding else answer.body)
    assert document["meta"] == [
        {"name": "t", "type": "UInt64"},
        {"name": "metric", "type": "LowCardinality(String)"},
        {"name": "value", "type": "Float64"},
    ]
    rows = [{"t": str(1767225600000 + n), "metric": "loss", "value": n / 2} for n in range(3)]
    assert document["data"] == (rows if format_name == "JSON" else [list(row.values()) for row in rows])
    assert document["rows"] == 3
    assert set(document["statistics"]) == {"elapsed", "rows_read", "bytes_read"}


@pytest.mark.parametrize("format_name", ["JSON", "JSONCompact"])
def test_an_empty_json_document_has_its_columns(http_: Http, format_name: str) -> None:
    document = json.loads(http_(query=f"SELECT number AS n FROM numbers(0) FORMAT {format_name}").body)
    assert (document["meta"], document["data"], document["rows"]) == ([{"name": "n", "type": "UInt64"}], [], 0)


def test_describe_show_explain(http_: Http) -> None:
    name = new_table(http_, "described")
    assert "a\tInt64" in http_(f"DESCRIBE TABLE {name}").text
    assert name in http_("SHOW TABLES").text
    assert "Read" in http_(f"EXPLAIN SELECT * FROM {name}").text
    assert http_(f"EXISTS TABLE {name}").text == "1\n"
    assert http_("SHOW PROCESSLIST").status == 200


def running(http_: Http, mark: str) -> int:
    return int(
        http_(f"SELECT count() FROM system.processes WHERE query LIKE '%{mark}%' AND query NOT LIKE '%processes%'").text
    )


def leave(http_: Http, query: str, read: int) -> None:
    """Send a query, read some of its answer, and hang up."""
    with socket.create_connection((http_.server.host, http_.server.port), timeout=30) as raw:
        body = query.encode()
        raw.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        if read:
            raw.recv(read)
        else:
            until(lambda: running(http_, "mark_") > 0)


def test_a_client_that_leaves_frees_the_query(http_: Http) -> None:
    leave(http_, "SELECT count() /* mark_a */ FROM numbers(4000000000) WHERE NOT ignore(sipHash64(number))", 0)
    until(lambda: running(http_, "mark_a") == 0)
    leave(http_, "SELECT number /* mark_b */ FROM system.numbers", 100_000)
    until(lambda: running(http_, "mark_b") == 0)


def test_a_timeout_frees_the_place(http_: Http) -> None:
    started = time.monotonic()
    answer = http_(
        "SELECT count() FROM numbers(4000000000) WHERE NOT ignore(sipHash64(number))", max_execution_time="1"
    )
    assert (answer.status, answer.code) == (408, "159")
    assert time.monotonic() - started < 10
    assert http_("SELECT sleepEachRow(1) FROM numbers(3)", max_execution_time="0.5").code == "159"


def test_many_at_once(http_: Http) -> None:
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda i: http_(f"SELECT {i} + count() FROM numbers(100000)").text, range(200)))
    assert answers == [f"{i + 100_000}\n" for i in range(200)]


def test_answers_on_a_kept_connection_do_not_wait_for_an_acknowledgement(http_: Http) -> None:
    connection = http.client.HTTPConnection(http_.server.host, http_.server.port, timeout=60)
    took = []
    for _ in range(30):
        started = time.monotonic()
        connection.request("POST", "/", b"SELECT 1")
        assert connection.getresponse().read() == b"1\n"
        took.append(time.monotonic() - started)
    connection.close()
    assert min(took) < 0.03  # the delay would add 0.04 to every one
