"""The fault proxy does what it is told, and nothing else: otherwise the tests of faults show nothing."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from runtide.testing.fault_proxy import HOST, FaultProxy
from runtide.testing.waiting import until

PATIENCE_S = 10.0


def echo(connection: socket.socket) -> None:
    """Send back what comes, then a last word."""
    with closing(connection):
        try:
            while data := connection.recv(65536):
                connection.sendall(data)
            connection.sendall(b"the end")
        except OSError:
            return


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with socket.create_server((HOST, 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=echo, args=[connection], daemon=True).start()

        accepting = threading.Thread(target=serve)
        accepting.start()
        with FaultProxy(server.getsockname()[1]) as made:
            yield made
        server.shutdown(socket.SHUT_RDWR)
        accepting.join()


def connect(proxy: FaultProxy) -> closing[socket.socket]:
    return closing(socket.create_connection((HOST, proxy.port), PATIENCE_S))


def read(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (data := connection.recv(size - len(found))):
        found += data
    return found


def test_without_a_fault_everything_passes_both_ways_and_is_counted(proxy: FaultProxy) -> None:
    data = bytes(range(256)) * 20_000
    with connect(proxy) as near:
        sending = threading.Thread(target=near.sendall, args=[data])
        sending.start()
        assert read(near, len(data)) == data
        sending.join()
        near.shutdown(socket.SHUT_WR)
        assert read(near, 100) == b"the end"
    assert (proxy.to_server.passed, proxy.to_client.passed, proxy.connections) == (len(data), len(data) + 7, 1)
    until(lambda: proxy.open == 0)


def test_a_cut_resets_once_and_the_next_connection_passes(proxy: FaultProxy) -> None:
    with connect(proxy) as near:
        near.sendall(b"first")
        assert read(near, 5) == b"first"
        proxy.to_client.cut_after = 3
        near.sendall(b"second")
        with pytest.raises(ConnectionResetError):
            read(near, 100)
    assert proxy.to_client.cut_after is None
    assert (proxy.to_server.passed, proxy.to_client.passed) == (11, 8)
    with connect(proxy) as near:
        near.sendall(b"again")
        assert read(near, 5) == b"again"


def test_all_connections_can_be_cut_at_once(proxy: FaultProxy) -> None:
    with connect(proxy) as one, connect(proxy) as two:
        until(lambda: proxy.open == 2)
        proxy.cut()
        for near in (one, two):
            with pytest.raises(ConnectionResetError):
                near.recv(1)


def test_half_close_ends_one_direction_and_the_other_goes_on(proxy: FaultProxy) -> None:
    proxy.to_client.end_after = 4
    with connect(proxy) as near:
        near.sendall(b"whole")
        assert read(near, 100) == b"whol"
        near.sendall(b"more")
        until(lambda: proxy.to_server.passed == 9)
    assert proxy.to_client.end_after is None


def test_a_black_hole_swallows_and_what_fell_into_it_stays_dead(proxy: FaultProxy) -> None:
    with connect(proxy) as near:
        near.sendall(b"before")
        assert read(near, 6) == b"before"
        proxy.black_hole(True)
        near.sendall(b"lost")
        near.settimeout(0.2)
        with pytest.raises(TimeoutError):
            near.recv(1)
        proxy.black_hole(False)
        near.sendall(b"lost too")
        with pytest.raises(TimeoutError):
            near.recv(1)
        with connect(proxy) as other:
            other.sendall(b"after")
            assert read(other, 5) == b"after"
    assert proxy.to_server.passed == len(b"beforeafter")


def test_what_is_delayed_arrives_later_and_whole(proxy: FaultProxy) -> None:
    proxy.to_client.delay_s = 0.4
    with connect(proxy) as near:
        began = time.monotonic()
        for number in range(10):
            near.sendall(b"%d" % number)
        assert read(near, 10) == b"0123456789"
        assert 0.4 <= time.monotonic() - began < 3  # later, but not one after the other


def test_a_slow_link_is_slow(proxy: FaultProxy) -> None:
    proxy.to_server.bytes_per_s = 50_000
    with connect(proxy) as near:
        began = time.monotonic()
        near.sendall(bytes(25_000))
        assert len(read(near, 25_000)) == 25_000
        assert 0.45 <= time.monotonic() - began < 5


def test_refused_connections_are_refused_until_they_are_taken_again(proxy: FaultProxy) -> None:
    with connect(proxy) as near:
        near.sendall(b"open")
        assert read(near, 4) == b"open"
        proxy.refuse(True)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, proxy.port), PATIENCE_S)
        near.sendall(b"goes on")
        assert read(near, 7) == b"goes on"
    proxy.refuse(False)
    with connect(proxy) as near:
        near.sendall(b"again")
        assert read(near, 5) == b"again"


def test_a_target_that_is_away_is_a_reset() -> None:
    with socket.create_server((HOST, 0)) as closed:
        port = closed.getsockname()[1]
    with FaultProxy(port) as proxy, pytest.raises(ConnectionResetError), connect(proxy) as near:
        near.recv(1)  # or connect() hears of it already
