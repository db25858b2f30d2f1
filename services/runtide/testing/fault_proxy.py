"""A bad network on loopback: a TCP relay in a thread of its own, whose faults are switched while it runs.

    with FaultProxy(gateway.port) as proxy:
        ...                                   # connect to 127.0.0.1:proxy.port
        proxy.to_client.cut_after = 0         # the next reply is lost: the connection is reset instead
        until(lambda: proxy.to_client.cut_after is None)

Each direction has faults of its own and counts what passed. A cut and an end happen once, on the connection that
reaches them, and then stand at None again, so that a test can see that they hit. A connection of which bytes were
swallowed stays dead when the network has come back, as one does whose state a router has forgotten; new ones pass.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

CHUNK_BYTES = 64 * 1024
CHUNKS = 16
"""What is under way in one direction of a connection: at most so many chunks, or a second of a slow link."""
RESET = struct.pack("ii", 1, 0)
"""Of SO_LINGER: whoever is at the other end sees a reset, not an end."""
HOST = "127.0.0.1"


@dataclass
class Way:
    """One direction of all connections."""

    delay_s: float = 0.0
    """Everything arrives so much later."""
    bytes_per_s: float = 0.0
    """No connection is faster than this; 0 is no limit."""
    swallow: bool = False
    """A black hole: bytes are taken and thrown away, and so is the end of a connection."""
    cut_after: int | None = None
    """So many bytes more pass, then the connection is reset at both ends."""
    end_after: int | None = None
    """So many bytes more pass, then this direction ends (half close), and the other goes on."""
    passed: int = 0
    """Bytes that have arrived at the other end."""

    def first(self) -> tuple[int | None, bool]:
        """How many bytes may pass before a fault, and whether that is a cut."""
        if self.cut_after is not None and (self.end_after is None or self.cut_after <= self.end_after):
            return self.cut_after, True
        return self.end_after, False

    def count(self, size: int) -> None:
        """Note that bytes have passed."""
        self.passed += size
        if self.cut_after is not None:
            self.cut_after -= size
        if self.end_after is not None:
            self.end_after -= size


_UnderWay = asyncio.Queue[tuple[float, bytes | None]]
"""Chunks, and when they are due; empty at the end, None at a reset."""


@dataclass(eq=False)
class _Link:
    """One connection, with both its ends."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    lost: bool = False
    """Nothing passes any more."""

    def end(self) -> None:
        """In order: what was written arrives first."""
        self.client.close()
        self.server.close()

    def reset(self) -> None:
        """Not in order, unless it has ended so: both ends hear of an error."""
        for end in (self.client, self.server):
            if not end.transport.is_closing():
                end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                end.transport.abort()


@dataclass
class FaultProxy:
    """Relays from a free port of 127.0.0.1 to `target`, another one."""

    target: int
    to_server: Way = field(default_factory=Way)
    to_client: Way = field(default_factory=Way)
    port: int = 0
    """Where it listens, once it does; the same for all its life."""
    connections: int = 0
    """Taken so far."""
    lost: int = 0
    """Those of which bytes were swallowed."""

    def __post_init__(self) -> None:
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        self.refuse(False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.refuse(True)
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._links)

    def refuse(self, on: bool) -> None:
        """Refuse new connections, or take them again; those that are open go on."""
        self._do(self._stop_listening() if on else self._listen())

    def black_hole(self, on: bool) -> None:
        """Swallow everything in both directions."""
        self.to_server.swallow = self.to_client.swallow = on

    def cut(self) -> None:
        """Reset all connections that are open."""
        self._do(self._cut())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        listening = socket.create_server((HOST, self.port))
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, CHUNK_BYTES)  # a slow link holds little
        self.port = listening.getsockname()[1]
        self._listener = await asyncio.start_server(self._connected, sock=listening, limit=CHUNK_BYTES)

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _cut(self) -> None:
        for link in self._links:
            link.reset()

    async def _end(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _connected(self, near: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(near, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, near: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        try:
            far, server = await asyncio.open_connection(HOST, self.target, limit=CHUNK_BYTES)
        except OSError:  # nobody is there: the client hears of it in the way that is left
            _Link(client, client).reset()
            return
        link = _Link(client, server)
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as group:
                for way, source, sink in ((self.to_server, near, server), (self.to_client, far, client)):
                    under_way = _UnderWay(CHUNKS)
                    group.create_task(_take(way, source, under_way))
                    group.create_task(self._give(way, under_way, sink, link))
            link.end()
        except* OSError:  # one end is gone, and so is the other
            pass
        finally:
            link.reset()
            self._links.discard(link)
            await asyncio.gather(client.wait_closed(), server.wait_closed(), return_exceptions=True)

    async def _give(self, way: Way, under_way: _UnderWay, sink: asyncio.StreamWriter, link: _Link) -> None:
        """Write what was read, as the faults let it. Raises OSError where the connection is gone."""
        ended = False
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            if way.swallow and not link.lost:
                link.lost = True
                self.lost += 1
            if data and not link.lost and not ended:
                ended = await _pass(way, data, sink, link)
            if data:
                continue
            if data is None and not link.lost:
                raise ConnectionResetError
            if not link.lost and not ended:
                sink.write_eof()
            return


async def _take(way: Way, source: asyncio.StreamReader, under_way: _UnderWay) -> None:
    """Read until the end, or until a reset, which is None."""
    data: bytes | None = b"?"
    while data:
        most = int(way.bytes_per_s / CHUNKS) if way.bytes_per_s else CHUNK_BYTES
        try:
            data = await source.read(min(max(most, 1), CHUNK_BYTES))
        except OSError:
            data = None
        await under_way.put((asyncio.get_running_loop().time() + way.delay_s, data))


async def _pass(way: Way, data: bytes, sink: asyncio.StreamWriter, link: _Link) -> bool:
    """Write one chunk, and return whether this direction has ended with it. Raises OSError."""
    if way.bytes_per_s:
        await asyncio.sleep(len(data) / way.bytes_per_s)
    room, is_cut = way.first()
    passes = data if room is None else data[:room]
    way.count(len(passes))  # first: once it has arrived, a test may set the next fault
    sink.write(passes)
    await sink.drain()
    if len(passes) == len(data):
        return False
    if is_cut:
        way.cut_after = None
        link.reset()
        raise ConnectionResetError
    way.end_after = None
    sink.write_eof()
    return True
