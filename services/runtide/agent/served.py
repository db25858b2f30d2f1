"""What an agent serves: the streams, and one shipper for each destination that they go to.

Promises: a stream that is served has a shipper; a folder that cannot be read or written disturbs no other stream, and
one that is gone is forgotten. Who is served is changed here only.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from runtide.agent.gateway import Destination, GatewayClient
from runtide.agent.shipper import Shipper
from runtide.agent.streams import SAVE_EVERY_S, TailedStream
from runtide.agent.tasks import Tasks
from runtide.spool.layout import STREAM_FILE, StreamInfo
from runtide.wire.errors import BadInput

log = logging.getLogger(__name__)

ACTIVE_S = 5.0
"""A stream that grew within this time is looked at often."""
BROKEN_S = 5.0
"""How long a folder that cannot be read or written is left alone."""
UNUSED_S = 60.0
"""How long the connection to a destination stays to which no stream goes: jobs come with tokens of their own."""
MANY_STREAMS = 64
MANY_SAVE_S = 0.004
"""With very many streams position.json is written less often: by this much for each of them."""


class Run(NamedTuple):
    """A run, at one destination."""

    destination: Destination
    run_id: str

    @classmethod
    def of(cls, info: StreamInfo) -> Run:
        """Return the run that a stream belongs to."""
        return cls(Destination.of(info), info.run_id)


class Served:
    """The streams by their folders, and the shippers. Iteration is over a copy: streams come and go during it."""

    def __init__(self, home: Path, tasks: Tasks, clock: Callable[[], float]) -> None:
        """`home` is this host's own folder; of what stands elsewhere the processes are not known."""
        self._home, self._tasks, self._clock = home, tasks, clock
        self._streams: dict[Path, TailedStream] = {}
        self._shippers: dict[Destination, Shipper] = {}
        self._shipping: dict[Destination, asyncio.Future[None]] = {}
        self._used_at: dict[Destination, float] = {}
        self._left: set[Path] = set()

    def __iter__(self) -> Iterator[TailedStream]:
        return iter(list(self._streams.values()))

    def __len__(self) -> int:
        return len(self._streams)

    def knows(self, folder: Path) -> bool:
        """Whether a folder is served, or was and had to be left behind."""
        return folder in self._streams or folder in self._left

    @property
    def shippers(self) -> list[Shipper]:
        """Of all destinations to which a stream goes, or went lately."""
        return list(self._shippers.values())

    def adopt(self, folder: Path, info: StreamInfo) -> str:
        """Serve a stream from now on; returns why that cannot be done, if so. Raises OSError."""
        stream = TailedStream(folder, info, foreign=folder.parent != self._home)
        try:
            shipper = self._opened(Destination.of(info))
        except (BadInput, OSError) as error:  # a url of another kind, or no certificate
            stream.say_error(str(error))
            stream.save(self._clock(), 0.0)
            return str(error)
        if shipper.error:
            stream.say_error(shipper.error)
        shipper.streams.add(stream)
        self._streams[folder] = stream
        log.info("stream=%s run=%s rank=%d adopted at %d", info.stream, info.run_id, info.rank, stream.acknowledged)
        return ""

    def _opened(self, destination: Destination) -> Shipper:
        shipper = self._shippers.get(destination)
        if shipper is None:
            client = GatewayClient(destination.url, destination.token, destination.tls)
            shipper = Shipper(destination.url, client, f"{self._home.name}/{os.getpid()}", self._clock)
            self._shippers[destination] = shipper
            self._shipping[destination] = self._tasks.spawn(shipper.run())
        self._used_at[destination] = self._clock()
        return shipper

    async def leave_unused(self) -> float:
        """Close the connections to destinations that nothing goes to any more; returns when to look again."""
        for destination, shipper in list(self._shippers.items()):
            if shipper.streams or shipper.busy:
                self._used_at[destination] = self._clock()
            elif self._clock() - self._used_at[destination] >= UNUSED_S:
                del self._shippers[destination], self._used_at[destination]
                self._shipping.pop(destination).cancel()
                await shipper.client.close()
        return UNUSED_S / 4

    def shipper(self, stream: TailedStream) -> Shipper:
        """Return the shipper of a stream."""
        return self._shippers[Destination.of(stream.info)]

    def poll(self, now: float) -> bool:
        """Look at every stream whose turn it is; returns whether one of them moves."""
        active = False
        for stream in self:
            if stream.poll_due <= now:
                try:
                    active |= self.look(stream, now)
                except OSError as error:
                    self._broken(stream, error)
        return active

    def look(self, stream: TailedStream, now: float) -> bool:
        """Offer a stream for shipping if something waits in it; returns whether it moves. Raises OSError."""
        if not stream.in_flight and stream.waiting(now):
            self.shipper(stream).offer(stream)
        waits = stream.dead and not stream.position.error
        return now - stream.grown_at < ACTIVE_S or stream.in_flight or waits

    def save(self) -> None:
        """Write what is due of the positions."""
        many = len(self) > MANY_STREAMS
        self._save(SAVE_EVERY_S + (MANY_SAVE_S * len(self) if many else 0.0))

    def _save(self, every_s: float) -> None:
        now = self._clock()
        for stream in self:
            try:
                stream.save(now, every_s)
            except OSError as error:
                self._broken(stream, error)

    def _broken(self, stream: TailedStream, error: OSError) -> None:
        """A folder that cannot be read: forget it if it is gone, else look again later."""
        if not (stream.folder / STREAM_FILE).exists():
            log.info("stream=%s folder is gone", stream.info.stream)
            self._forget(stream)
            return
        stream.poll_due = self._clock() + BROKEN_S
        log.warning("stream=%s %s", stream.info.stream, error)

    def keep_only(self, host: Path, found: Collection[Path]) -> None:
        """Forget the streams of a host folder that are not found there any more: somebody has given them up."""
        self._left = {folder for folder in self._left if folder.parent != host or folder in found}
        for stream in self:
            if stream.folder.parent == host and stream.folder not in found:
                log.info("stream=%s folder is gone", stream.info.stream)
                self._forget(stream)

    def read_again(self) -> None:
        """Forget the streams that go elsewhere now, by what their folders say, so that they are found anew."""
        for stream in self:
            try:
                info = StreamInfo.read(stream.folder)
            except (OSError, ValueError, TypeError, AttributeError) as error:
                log.warning("stream=%s %s", stream.info.stream, error)
            else:
                if Destination.of(info) != Destination.of(stream.info):
                    self._forget(stream)

    def remove(self, stream: TailedStream) -> None:
        """Serve a stream no longer and delete it; what has to stay of it is not served again."""
        try:
            stream.save(self._clock(), 0.0)
            if not stream.remove():
                self._left.add(stream.folder)
        except OSError as error:
            log.warning("stream=%s not removed: %s", stream.info.stream, error)
            self._left.add(stream.folder)
        self._forget(stream)

    def _forget(self, stream: TailedStream) -> None:
        self._streams.pop(stream.folder, None)
        self.shipper(stream).drop(stream)

    async def wind_down(self, timeout_s: float) -> None:
        """Ship once more what is there, as far as that can be done in time, and write all positions."""
        for stream in self:
            self.shipper(stream).offer(stream)
        await asyncio.sleep(0)  # lets the shippers start what was offered
        await asyncio.gather(*(shipper.drain(timeout_s) for shipper in self.shippers))
        self._save(0.0)

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(shipper.client.close() for shipper in self.shippers))
