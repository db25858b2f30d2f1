"""A page of somebody else, in a browser of this machine, must not reach the dashboard: real server, raw requests."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtide.testing import browser
from runtide.testing.embedded import EmbeddedClickHouse

WEBSOCKET = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def status(port: int, path: str, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest.fixture
def port(embedded_clickhouse: EmbeddedClickHouse, tmp_path: Path) -> Iterator[int]:
    told = {"RUNTIDE_DASHBOARD_SIGN_IN": "", "RUNTIDE_DASHBOARD_NAMES": "runs.example.org"}
    with browser.dashboard(embedded_clickhouse.port, tmp_path / "log", told) as address:
        yield port_of(address)


def test_another_site_gets_neither_page_nor_websocket(port: int) -> None:
    for name in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", "runs.example.org"):
        origin = {"Host": name, "Origin": f"http://{name}"}
        assert status(port, "/", Host=name) == 200, name
        assert status(port, "/_stcore/stream", **origin, **WEBSOCKET) == 101, name
    # a name that its owner has turned to 127.0.0.1: for the browser, and for Streamlit, that is one and the same site
    for name in (f"evil.example:{port}", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example", ""):
        origin = {"Host": name, "Origin": f"http://{name}"}
        assert status(port, "/", Host=name) in {400, 403}, name
        assert status(port, "/_stcore/stream", **origin, **WEBSOCKET) in {400, 403}, name
    evil = {"Host": f"127.0.0.1:{port}", "Origin": "http://evil.example"}
    assert status(port, "/_stcore/stream", **evil, **WEBSOCKET) == 403


def test_where_one_signs_in_a_proxy_may_have_any_name(embedded_clickhouse: EmbeddedClickHouse, tmp_path: Path) -> None:
    told = {"RUNTIDE_DASHBOARD_SIGN_IN": "token"}
    with browser.dashboard(embedded_clickhouse.port, tmp_path / "log", told) as address:
        assert status(port_of(address), "/", Host="runs.example.org") == 200
