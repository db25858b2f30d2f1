"""The embedded server under spoiled requests: whatever is a whole HTTP request gets a status, and the server lives."""

from __future__ import annotations

import http.client
import random
import socket
import urllib.parse

import pytest
from runtide.testing.embedded import EmbeddedClickHouse

from tests.fuzz.kept import cases, corpus, failing
from tests.fuzz.mutate import SEED, TIMEOUT_S, Watch, mutated

pytestmark = [pytest.mark.fault(11), pytest.mark.timeout(TIMEOUT_S)]
QUERIES = [
    b"SELECT 1",
    b"SELECT number, toString(number) FROM numbers(3) FORMAT JSONEachRow",
    b"SELECT {x:UInt8} + 1 SETTINGS max_threads = 1",
    b"INSERT INTO nowhere FORMAT Values (1, 'a')",
    b"SELECT 'a\\'b' -- c\n, /* d */ [1, (2, 'x')]",
    b"SHOW TABLES FROM system LIKE '%e%'",
]
PARAMETERS = [
    b"query=SELECT+1",
    b"database=default&default_format=JSON",
    b"param_x=7&query_id=abc&session_id=s",
    b"max_result_rows=10&wait_end_of_query=1&send_progress_in_http_headers=1",
    b"compress=1&enable_http_compression=1&user=default&password=",
]
HEADERS = [
    b"Accept-Encoding: gzip, zstd",
    b"Content-Type: application/x-www-form-urlencoded",
    b"Content-Type: multipart/form-data; boundary=x",
    b"Content-Encoding: gzip",
    b"X-ClickHouse-User: default",
    b"Authorization: Basic ZGVmYXVsdDo=",
    b"Origin: http://localhost:8123",
]


def line(raw: bytes) -> bytes:
    """Without what would end a line: the request stays one request."""
    return bytes(byte for byte in raw if byte not in b"\r\n\x00")


def request(dice: random.Random) -> bytes:
    """A whole request with spoiled parts."""
    method = dice.choice([b"POST", b"POST", b"GET", b"HEAD", b"PUT", b"OPTIONS"])
    body = b"" if method in {b"GET", b"HEAD"} else mutated(dice, QUERIES)
    parameters = urllib.parse.quote_from_bytes(mutated(dice, PARAMETERS), safe="=&+%")
    path = dice.choice(["/", "/", "/", "/ping", "/replicas_status", "/play", "/nowhere"])
    head = [method + f" {path}?{parameters} HTTP/1.1".encode(), b"Host: localhost", b"Connection: close"]
    if dice.random() < 0.5:
        name, _, value = dice.choice(HEADERS).partition(b": ")
        head.append(name + b": " + line(mutated(dice, [value])))
    head.append(f"Content-Length: {len(body)}".encode())
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def answer(server: EmbeddedClickHouse, raw: bytes, *, whole: bool = True) -> bytes:
    with socket.create_connection((server.host, server.port), timeout=30) as connection:
        try:
            connection.sendall(raw)
            if not whole:
                connection.shutdown(socket.SHUT_WR)
            found = b""
            while some := connection.recv(65536):
                found += some
        except ConnectionError:
            return b""
    return found


def alive(server: EmbeddedClickHouse) -> bool:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=30)
    try:
        connection.request("POST", "/", b"SELECT 1")
        return connection.getresponse().read() == b"1\n"
    finally:
        connection.close()


def test_the_embedded_server(embedded_clickhouse: EmbeddedClickHouse) -> None:
    server = embedded_clickhouse
    dice, watch = random.Random(SEED), Watch("embedded HTTP", server.process.pid)
    statuses: dict[bytes, int] = {}
    for raw in corpus("noise"):
        with failing("noise", raw):
            answer(server, raw, whole=False)  # may be no request at all
            assert alive(server)
    for raw in cases("http", watch, lambda: request(dice)):
        if dice.random() < 0.1:
            noise = mutated(dice, [raw])
            with failing("noise", noise):
                answer(server, noise, whole=False)
        with failing("http", raw):
            found = answer(server, raw)
            assert found.startswith(b"HTTP/1.1 "), found
            status = found[9:12]
            statuses[status] = statuses.get(status, 0) + 1
    assert alive(server)
    assert server.process.poll() is None
    assert statuses[b"200"] > 0
    watch.end()
