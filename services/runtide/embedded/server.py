"""The embedded ClickHouse as a process: opens the directory, listens, and stops cleanly on SIGTERM and SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from runtide.embedded.app import ClickHouseApp
from runtide.embedded.engine import Engine
from runtide.embedded.limits import QueryLimits
from runtide.embedded.secret import read_or_create_secret

log = logging.getLogger("runtide.embedded")
# For the answers of cancelled queries to reach their clients.
_TOLD_S = 3


class PortTaken(Exception):
    """The address cannot be listened on."""


class EmbeddedServer:
    """One ClickHouse over `home`, on one address.

    `allowed_hosts` are further names by which clients may call it (the Host header), beside loopback and `host`.
    """

    def __init__(
        self,
        home: Path,
        host: str = "127.0.0.1",
        port: int = 8123,
        limits: QueryLimits = QueryLimits(),  # noqa: B008 - frozen
        allowed_hosts: tuple[str, ...] = (),
    ) -> None:
        self.home, self.host, self.port, self.limits = home, host, port, limits
        self.allowed_hosts = allowed_hosts

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Blocks. Raises: PortTaken, HomeInUse.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        listener = _listen(self.host, self.port)
        self.port = listener.getsockname()[1]
        engine = Engine(self.home)
        app = ClickHouseApp(engine, read_or_create_secret(self.home), self.limits, self._hosts())
        config = uvicorn.Config(
            app,
            http="h11",
            loop="asyncio",
            lifespan="off",
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=60,
            backlog=1024,
            h11_max_incomplete_event_size=self.limits.max_url_bytes,
            timeout_graceful_shutdown=self.limits.stop_grace_s + _TOLD_S,
        )
        log.info("clickhouse is listening", extra={"host": self.host, "port": self.port})
        try:
            _Server(config, app, self.limits.stop_grace_s).run(sockets=[listener])
        finally:
            listener.close()
            app.close()
            engine.close()

    def _hosts(self) -> frozenset[str]:
        return frozenset({self.host.lower(), *(name.lower() for name in self.allowed_hosts)})


class _Server(uvicorn.Server):
    """uvicorn's server, that ends with success after a signal, and cancels queries that outlive the grace."""

    def __init__(self, config: uvicorn.Config, app: ClickHouseApp, grace_s: float) -> None:
        super().__init__(config)
        self._app, self._grace_s = app, grace_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        late = asyncio.create_task(self._app.cancel_after(self._grace_s))
        try:
            await super().shutdown(sockets)
        finally:
            late.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if _is_v6(host) else socket.AF_INET
    # With its protocol named, or asyncio leaves Nagle's delay of 40 ms on every answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PortTaken(
            f"ClickHouse cannot listen on {host}:{port} ({error.strerror}); choose another port with --port "
            "(--clickhouse-port of `runtide up`)"
        ) from error
    return listener


def _is_v6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False
