"""ClickHouse's HTTP interface as an ASGI application. The event loop only moves bytes: the engine and compression run
in threads.

What it promises: queries, settings, parameters, formats, compression both ways, streams, cancellation and errors as a
server of the engine's version has them over HTTP, so that unchanged clients work. Where it differs:

- Sessions keep nothing. `session_id` is accepted, for clients that always send one, and means nothing: no SET and no
  temporary table outlives its request.
- Native for clients that name a protocol revision, as clickhouse-go and so Grafana do, has the limits told in `native`.
- External tables are refused.

Refused before anything is read: a Host header that is not this server's, and the Origin of another site, because a web
page anywhere may make a browser send requests to a loopback port.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
import string
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TypeVar
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from runtide.embedded import bodies, formats, frames
from runtide.embedded.engine import Engine
from runtide.embedded.errors import (
    REQUEST_TOO_LARGE,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    Disconnected,
    ServerError,
)
from runtide.embedded.limits import QueryLimits
from runtide.embedded.query import Answer, Plan, Query, make_plan
from runtide.embedded.request import READER, Request, authenticate, read_form, read_parameters

log = logging.getLogger("runtide.embedded")
T = TypeVar("T")

_HELP = (
    "There is no handle {path}\n\nUse / or /ping for health checks.\n"
    "Or /replicas_status for more sophisticated health checks.\n\n"
    "Send queries from your program with POST method or GET /?query=...\n"
)
# Beyond the engine's own time limit, before the front cancels by itself.
_LATE_S = 5.0
_KILL_AGAIN_S = 0.05
_WILDCARDS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 - listening on every address has no name to be called by


class Guard:
    """Which Host and Origin headers are this server's."""

    def __init__(self, hosts: frozenset[str]) -> None:
        self._hosts = hosts - _WILDCARDS
        self._any_address = bool(hosts & _WILDCARDS)  # an address in the Host header cannot be rebound, a name can

    def refuses(self, headers: Headers) -> str:
        """Why the request is refused; empty when it is not."""
        host = headers.get("host", "")
        if not self._is_ours(_host_name(host)):
            return f"Host {host!r} is not a name of this server; start it with that host, or use the address\n"
        origin = headers.get("origin")
        if origin is not None and not self._is_ours(urlsplit(origin).hostname or ""):
            return f"Origin {origin!r} is another site\n"
        return ""

    def _is_ours(self, name: str) -> bool:
        name = name.lower().rstrip(".")
        if name == "localhost" or name in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self._any_address or address.is_loopback


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


class Places:
    """How many queries of one user run at once; the others wait, not without end."""

    def __init__(self, running: int, waiting: int) -> None:
        self._room = asyncio.Semaphore(running)
        self._waiting, self._max_waiting = 0, waiting

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold a place. Raises: ServerError when too many wait."""
        if self._waiting >= self._max_waiting:
            raise ServerError(
                TOO_MANY_SIMULTANEOUS_QUERIES, f"Too many simultaneous queries. Maximum waiting: {self._max_waiting}"
            )
        self._waiting += 1
        try:
            await self._room.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._room.release()


class ClickHouseApp:
    """The interface over one engine."""

    def __init__(
        self, engine: Engine, writer_password: str, limits: QueryLimits, hosts: frozenset[str] = frozenset()
    ) -> None:
        self._engine, self._password, self._limits = engine, writer_password, limits
        self._guard = Guard(hosts)
        self._readers = Places(limits.max_readers, limits.max_waiting)
        self._writers = Places(limits.max_writers, limits.max_waiting)
        self._pool = ThreadPoolExecutor(limits.max_readers + limits.max_writers + 4, "clickhouse")
        self._killers = ThreadPoolExecutor(1, "clickhouse-kill")
        self._running: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        if reason := self._guard.refuses(headers):
            await PlainTextResponse(reason, 403)(scope, receive, send)
            return
        plain = self._plain(scope["method"], scope["path"], scope["query_string"])
        if plain is not None:
            await plain(scope, receive, send)
            return
        await self._query(scope, headers, receive, send)

    def _plain(self, method: str, path: str, query_string: bytes) -> Response | None:
        """The answers that need no engine."""
        if path in ("/ping", "/replicas_status") or (path == "/" and method in ("GET", "HEAD") and not query_string):
            return PlainTextResponse("Ok.\n")
        if path != "/":
            return PlainTextResponse(_HELP.format(path=path), 404)
        if method == "OPTIONS":
            return Response(status_code=204, headers={"Allow": "GET, HEAD, POST, OPTIONS"})
        if method == "HEAD":
            return Response(status_code=200)
        if method not in ("GET", "POST"):
            return PlainTextResponse(f"Method {method} is not allowed\n", 405, {"Allow": "GET, HEAD, POST, OPTIONS"})
        return None

    async def _query(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        query_id, framed = "", False
        upload = _Upload(receive, self._limits.max_body_bytes)
        try:
            parameters = read_parameters(scope["query_string"])
            query_id = parameters.get("query_id") or _query_id()
            request = Request(scope["method"], parameters, headers)
            user = authenticate(request, self._password)
            framed = request.flag("compress")
            body = await upload.read()
            request = await self._in_thread(lambda: _open_body(request, body, self._limits.max_body_bytes))
            plan = await self._in_thread(lambda: make_plan(request, user, self._engine, self._limits))
            async with (self._readers if user == READER else self._writers).one():
                reply = _Reply(send, request, plan, query_id, self._engine)
                await self._carry_out(plan, reply, receive)
        except ServerError as error:
            with suppress(Disconnected):
                await upload.drop()
                await self._say(error, query_id, framed, scope, receive, send)
        except Disconnected:
            log.debug("client left", extra={"query_id": query_id})

    async def _carry_out(self, plan: Plan, reply: _Reply, receive: Receive) -> None:
        query = Query(self._engine, plan, self._limits)
        watcher = asyncio.create_task(self._watch(plan, receive))
        self._running.add(plan.tag)
        try:
            await self._answer(query, reply, watcher)
        finally:
            watcher.cancel()
            ended = self._pool.submit(self._end, query, plan.tag)  # at once: this task may be cancelled already
            await asyncio.shield(asyncio.wrap_future(ended))

    def _end(self, query: Query, tag: str) -> None:
        query.close()
        self._running.discard(tag)

    async def _answer(self, query: Query, reply: _Reply, watcher: asyncio.Task[None]) -> None:
        answer = await self._in_thread(query.first)
        packed = await self._in_thread(lambda: reply.pack(answer.chunk, last=answer.finished))
        await reply.start(answer, packed)
        if answer.finished:
            return
        try:
            while (chunk := await self._in_thread(lambda: reply.next_packed(query))) is not None:
                if watcher.done():
                    raise Disconnected
                await reply.more(chunk)
            await reply.finish(await self._in_thread(lambda: reply.pack(query.end(), last=True)))
        except ServerError as error:
            told = reply.exception(error)
            await reply.finish(await self._in_thread(lambda: reply.pack(told, last=True)))

    async def _watch(self, plan: Plan, receive: Receive) -> None:
        """Cancel a read when its client leaves, or when it is late beyond the engine's own limit."""
        limit = float(plan.settings.get("max_execution_time", "0") or 0)
        try:
            async with asyncio.timeout(limit + _LATE_S if limit else None):
                while (await receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            log.warning("query is late and is cancelled", extra={"tag": plan.tag})
        if plan.cancel_when_left:
            await self._kill(plan.tag)

    async def _kill(self, tag: str) -> None:
        await asyncio.get_running_loop().run_in_executor(self._killers, self._engine.kill, tag)

    async def _say(
        self, error: ServerError, query_id: str, framed: bool, scope: Scope, receive: Receive, send: Send
    ) -> None:
        headers = {
            "X-ClickHouse-Exception-Code": str(error.code),
            "X-ClickHouse-Query-Id": _header(query_id),
            "X-ClickHouse-Server-Display-Name": self._engine.server_name,
        }
        if error.code == REQUEST_TOO_LARGE[0]:
            headers["Connection"] = "close"
        text = (error.text(self._engine.version) + "\n").encode()
        content = b"".join(frames.compress_blocks(text)) if framed else text
        response = PlainTextResponse(content, error.status, headers)
        await response(scope, receive, send)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def cancel_after(self, grace_s: float) -> None:
        """Let running queries end for so long, then cancel them: their clients are told."""
        await asyncio.sleep(grace_s)
        for tag in tuple(self._running):
            log.warning("query is cancelled by the stop", extra={"tag": tag})
            await self._kill(tag)

    def close(self) -> None:
        """Cancel what still runs and wait for the threads. Blocks."""
        while running := tuple(self._running):
            for tag in running:  # again and again: a query may not have begun when it is cancelled first
                self._engine.kill(tag)
            time.sleep(_KILL_AGAIN_S)
        self._pool.shutdown()
        self._killers.shutdown()


class _Upload:
    """A request's body. An insert begins when all of it is here, so a cut upload stores nothing."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive, self._max_bytes = receive, max_bytes
        self._more = True

    async def read(self) -> bytes:
        """The whole body. Raises: ServerError above the limit, Disconnected."""
        chunks: list[bytes] = []
        size = 0
        while self._more:
            chunks.append(await self._chunk())
            size += len(chunks[-1])
            if size > self._max_bytes:
                raise ServerError(
                    REQUEST_TOO_LARGE,
                    f"The body has more than {self._max_bytes} bytes (max_body_bytes); send it in parts",
                )
        return b"".join(chunks)

    async def drop(self) -> None:
        """Read on and forget, so that a client still sending gets to read why. Raises: Disconnected."""
        size = 0
        while self._more and size < self._max_bytes:
            size += len(await self._chunk())

    async def _chunk(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._more = False
            raise Disconnected
        self._more = bool(message.get("more_body", False))
        return bytes(message.get("body", b""))


def _open_body(request: Request, body: bytes, limit: int) -> Request:
    body = bodies.decompress(body, request.headers.get("content-encoding", ""), limit)
    if request.flag("decompress"):
        body = frames.decompress_blocks(body, limit)
    kind = request.headers.get("content-type", "")
    if kind.lower().startswith("multipart/form-data"):
        return Request(request.method, request.parameters, request.headers, b"", read_form(kind, body))
    return Request(request.method, request.parameters, request.headers, body)


def _query_id() -> str:
    digits = secrets.token_hex(16)
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _header(value: str) -> str:
    """A value that a header can carry."""
    return "".join(char if " " <= char <= "~" else "?" for char in value)


class _Reply:
    """Writes one answer: headers, compression, chunks, and an error in the middle in the server's way."""

    def __init__(self, send: Send, request: Request, plan: Plan, query_id: str, engine: Engine) -> None:
        self._send, self._engine, self._plan, self._query_id = send, engine, plan, query_id
        self._framed = request.flag("compress")
        wanted = request.headers.get("accept-encoding", "") if request.flag("enable_http_compression", True) else ""
        self._encoding = "" if self._framed else bodies.choose(wanted)
        self._compressor = bodies.compressor(self._encoding) if self._encoding else None
        self._tag = "".join(secrets.choice(string.ascii_lowercase) for _ in range(16))
        self._cursor = 0

    def pack(self, chunk: bytes, last: bool) -> bytes:
        """Compress a chunk as the client asked. Blocks."""
        if self._framed:
            return b"".join(frames.compress_blocks(chunk))
        if self._compressor is None:
            return chunk
        return self._compressor.compress(chunk) + (self._compressor.flush() if last else b"")

    def next_packed(self, query: Query) -> bytes | None:
        """The next chunk, compressed; None behind the last. Blocks."""
        chunk = query.next()
        return None if chunk is None else self.pack(chunk, last=False)

    async def start(self, answer: Answer, packed: bytes) -> None:
        """Send status, headers and the first bytes."""
        headers = {
            "Content-Type": formats.content_type(self._plan.format),
            "X-ClickHouse-Query-Id": _header(self._query_id),
            "X-ClickHouse-Format": _header(self._plan.format),
            "X-ClickHouse-Timezone": self._engine.timezone,
            "X-ClickHouse-Server-Display-Name": self._engine.server_name,
            "X-ClickHouse-Summary": answer.summary,
        }
        if self._encoding:
            headers["Content-Encoding"] = self._encoding
            headers["Vary"] = "Accept-Encoding"
        if answer.finished:
            headers["Content-Length"] = str(len(packed))
        else:
            headers["X-ClickHouse-Exception-Tag"] = self._tag
        raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await self._put({"type": "http.response.start", "status": 200, "headers": raw})
        await self._put({"type": "http.response.body", "body": packed, "more_body": not answer.finished})

    async def more(self, packed: bytes) -> None:
        """Send bytes in the middle; waits while the client reads slowly."""
        if packed:
            await self._put({"type": "http.response.body", "body": packed, "more_body": True})

    async def finish(self, packed: bytes) -> None:
        """Send the last bytes."""
        await self._put({"type": "http.response.body", "body": packed, "more_body": False})

    def exception(self, error: ServerError) -> bytes:
        """An error behind bytes already sent, marked so that clients find it."""
        text = error.text(self._engine.version) + "\n"
        size = len(text.encode())
        return f"\r\n__exception__\r\n{self._tag}\r\n{text}{size} {self._tag}\r\n__exception__\r\n".encode()

    async def _put(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError as error:
            raise Disconnected from error
