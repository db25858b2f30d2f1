"""/metrics, /healthz and /readyz over plain HTTP, on the gateway's own loop.

/healthz answers while the loop turns; /readyz says whether Pushes are taken and the bus answers. GET and HEAD only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

REQUEST_S = 5.0
"""A client that does not finish its request by then is cut off."""

HEAD_BYTES = 16 * 1024
"""The most that a request may have."""

TEXT = "text/plain; charset=utf-8"


class Pages:
    """The server of the three pages."""

    def __init__(self, registry: CollectorRegistry, why_not_ready: Callable[[], str]) -> None:
        """`why_not_ready` returns "" while all is well."""
        self._registry, self._why_not_ready = registry, why_not_ready
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises OSError where that cannot be."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=HEAD_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening; pages under way are short and end by themselves."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client went away, is too slow or says too much: there is nobody to tell
        finally:
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
        status, kind, body = self._page(rest.partition(" ")[0].partition("?")[0])
        if method not in {"GET", "HEAD"}:
            status, kind, body = HTTPStatus.METHOD_NOT_ALLOWED, TEXT, b"GET and HEAD only\n"
        lines = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            f"Content-Type: {kind}",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if method == "HEAD" else body)

    def _page(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        if path == "/metrics":
            return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        if path == "/healthz":
            return HTTPStatus.OK, TEXT, b"ok\n"
        if path == "/readyz":
            why = self._why_not_ready()
            if why:
                return HTTPStatus.SERVICE_UNAVAILABLE, TEXT, f"{why}\n".encode()
            return HTTPStatus.OK, TEXT, b"ready\n"
        return HTTPStatus.NOT_FOUND, TEXT, b"there are /metrics, /healthz and /readyz\n"
