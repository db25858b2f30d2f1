"""The agent proper: finds the streams of its host folders and keeps each of them moving until it has ended.

Promises: nothing that goes wrong with one stream, destination or loop stops the others; the end of a process is noticed
within a second; nothing is deleted that is not acknowledged. One event loop; file syncs and sampling go to threads.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtide.agent.gateway import Destination, Failure, GatewayClient, Verdict
from runtide.agent.own import OwnStream
from runtide.agent.sample import Sampler
from runtide.agent.shipper import Shipper
from runtide.agent.streams import SAVE_EVERY_S, End, TailedStream, measure_end
from runtide.agent.watch import ENDED_DIR, Ended, Processes
from runtide.spool.layout import STREAM_FILE, StreamInfo
from runtide.v1.ingest_pb2 import PreflightRequest, StatusRequest
from runtide.v1.records_pb2 import ROLE_AGENT, ROLE_RANK, StreamEnded
from runtide.wire.errors import BadInput
from runtide.wire.states import HEARTBEAT_SECONDS

log = logging.getLogger(__name__)

POLL_S = 0.03
POLL_IDLE_S = 0.2
POLL_SHARE = 40
POLL_BUSY_S = 0.15
"""Looking at files may take one part in this many of the time, unless that would delay what was logged further."""
RESCAN_S = 1.0
WATCH_S = 0.25
OWN_FAILED_S = 5.0
"""How long a disk that would not take a stream of our own is left alone."""
PARENT_LOOK_S = 0.05
PARENT_LOOKS = 20
"""How often a dead process's parent is asked how it ended before that stays unknown."""
CLOSED_GRACE_S = 2.0
"""How long a process may go on after its stream's last word before its end is no longer waited for."""
STORED_S = 0.25
STATUS_STREAMS = 1000
WANT_STORED_S = 60.0
PREFLIGHT_S = 1.8
STOP_S = 1.5
YOUNG_S = 2.0
"""How long a new folder may take to get its stream.json."""
MANY_STREAMS = 64
MANY_SAVE_S = 0.004
"""With very many streams position.json is written less often: by this much for each of them."""
FOREIGN_QUIET_S = 60.0
"""A stream of another host or boot whose files rest this long has nobody writing it."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What can be set about an agent."""

    sample_seconds: float = 5.0
    """Between two rounds of resource sampling; 0 switches it off."""
    linger_seconds: float = 3.0
    """How long it stays when there is nothing left to do."""
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    once: bool = False
    """Stop when all that is there has been shipped, though processes may go on writing (`runtide sync`)."""


RunKey = tuple[Destination, str]


@dataclass(slots=True)
class Pending:
    """A folder that is no stream yet: half made, damaged, or without a destination."""

    since: float
    retry_at: float = 0.0
    said: str = field(default="")


class Agent:
    """Serves all streams of one or more host folders; the first one is this host's own."""

    def __init__(
        self,
        host_folders: Iterable[Path],
        settings: AgentSettings,
        clock: Callable[[], float] = time.monotonic,
        processes: Processes | None = None,
    ) -> None:
        """Must be made inside the event loop that runs it."""
        self.host_folders = list(host_folders)
        self.streams: dict[Path, TailedStream] = {}
        self.settings = settings
        self._clock = clock
        self._processes = processes or Processes()
        self._shippers: dict[Destination, Shipper] = {}
        self._own: dict[RunKey, OwnStream] = {}
        self._pending: dict[Path, Pending] = {}
        self._left: set[Path] = set()
        self._scanned: dict[Path, tuple[int, float]] = {}
        self._reporting: set[TailedStream] = set()
        self._closed_at: dict[TailedStream, float] = {}
        self._foreign: set[TailedStream] = set()
        self._tasks: set[asyncio.Future[None]] = set()
        self._stop = asyncio.Event()
        self._nothing_left = asyncio.Event()
        self._busy_at = clock()
        self._open_own_at = 0.0

    # -- life ---------------------------------------------------------------------------------------------------------

    async def run(self, listen: Callable[[bool], Awaitable[None]]) -> None:
        """Serve until everything is shipped and nobody writes any more, or until `stop`.

        `listen` opens and closes the socket. It is closed before the last look for streams, so that a job which has
        heard this agent answer has either been seen by then or will start another agent.
        """
        loops = [
            self._every(self._poll, "poll"),
            self._every(self._watch, "watch"),
            self._every(self._sync_files, "fsync"),
            self._every(self._ask_stored, "status"),
            self._heartbeats(),
            self._samples(),
        ]
        for loop in loops:
            self._spawn(loop)
        await listen(True)
        while not self._stop.is_set():
            await _first(self._stop.wait(), self._nothing_left.wait())
            await listen(False)
            self._discover(self._clock())
            if self._stop.is_set() or (self.idle and not self._hopeful()):
                break
            self._nothing_left.clear()
            self.stay()
            await listen(True)
        await self._wind_down()

    def _hopeful(self) -> bool:
        """A folder that came just now will soon be a stream."""
        return any(self._clock() - pending.since < YOUNG_S for pending in self._pending.values())

    def stop(self) -> None:
        """End soon: what is in flight may finish, the rest waits in the spool."""
        self._stop.set()

    def stay(self) -> None:
        """Somebody is about to write: start the time of grace again."""
        self._busy_at = self._clock()

    @property
    def idle(self) -> bool:
        """Nothing to ship, nobody to wait for, nothing to report."""
        if self._own or self._reporting or any(shipper.busy for shipper in self._shippers.values()):
            return False
        return all(self._done(stream) for stream in self.streams.values())

    def _done(self, stream: TailedStream) -> bool:
        if stream.closed and stream in self._closed_at:
            return True
        return self.settings.once and not stream.dead and stream.at_rest

    async def _wind_down(self) -> None:
        for own in self._own.values():
            own.close()
        self._own.clear()
        self._discover(self._clock())
        for stream in self.streams.values():
            self._offer(stream)
        await asyncio.sleep(0)  # lets the shippers start what was offered
        await asyncio.gather(*(shipper.drain(STOP_S) for shipper in self._shippers.values()))
        self._save(0.0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(shipper.client.close() for shipper in self._shippers.values()))

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Future[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task ended", exc_info=task.exception())

    async def _every(self, step: Callable[[], Awaitable[float]], name: str) -> None:
        """Repeat a step, which says how long to wait; a step that fails is logged and tried again."""
        while True:
            try:
                pause = await step()
            except Exception:
                log.exception("loop=%s failed", name)
                pause = 1.0
            await asyncio.sleep(pause)

    # -- finding and polling ------------------------------------------------------------------------------------------

    async def _poll(self) -> float:
        now, spent = self._clock(), time.thread_time()
        self._discover(now)
        active = False
        for stream in list(self.streams.values()):
            if stream.poll_due <= now:
                try:
                    active |= self._look(stream, now)
                except OSError as error:
                    self._broken(stream, error)
        many = len(self.streams) > MANY_STREAMS
        self._save(SAVE_EVERY_S if not many else SAVE_EVERY_S + MANY_SAVE_S * len(self.streams))
        self._settle_ended()
        if not self.idle:
            self._busy_at = now
        elif now - self._busy_at >= self.settings.linger_seconds:
            self._nothing_left.set()
        busy = min(POLL_BUSY_S, POLL_SHARE * (time.thread_time() - spent))
        return max(POLL_S if active else POLL_IDLE_S, busy)

    def _look(self, stream: TailedStream, now: float) -> bool:
        if not stream.in_flight and stream.waiting(now):
            self._offer(stream)
        waits = stream.dead and not stream.position.error
        return now - stream.grown_at < 5.0 or stream.in_flight or waits

    def _offer(self, stream: TailedStream) -> None:
        if (shipper := self._shippers.get(_destination(stream.info))) is not None:
            shipper.offer(stream)

    def _broken(self, stream: TailedStream, error: OSError) -> None:
        """A folder that cannot be read: forget it if it is gone, else look again later."""
        if not (stream.folder / STREAM_FILE).exists():
            log.info("stream=%s folder is gone", stream.info.stream)
            self._forget(stream)
            return
        stream.poll_due = self._clock() + 5.0
        log.warning("stream=%s %s", stream.info.stream, error)

    def _discover(self, now: float) -> None:
        for host in self.host_folders:
            try:
                changed = host.stat().st_mtime_ns
            except FileNotFoundError:
                if host == self.host_folders[0]:
                    log.info("%s is gone", host)
                    self._stop.set()
                continue
            before, due = self._scanned.get(host, (0, 0.0))
            if changed != before or now >= due:
                self._scanned[host] = (changed, now + RESCAN_S)
                self._scan(host, now)
        for folder, pending in list(self._pending.items()):
            if pending.retry_at <= now:
                self._try(folder, pending, now)

    def _scan(self, host: Path, now: float) -> None:
        found = {Path(entry.path) for entry in os.scandir(host) if entry.is_dir() and entry.name != ENDED_DIR}
        for folder in found - self.streams.keys() - self._pending.keys() - self._left:
            self._pending[folder] = Pending(now)

    def _try(self, folder: Path, pending: Pending, now: float) -> None:
        """Adopt a folder as a stream if it is one by now."""
        try:
            info = StreamInfo.read(folder)
            said = self._adopt(folder, info) if info.url else "no destination yet"
            if not said:
                return
        except FileNotFoundError:
            if not folder.exists():
                del self._pending[folder]
                return
            said = "no stream.json"
        except (OSError, ValueError, TypeError, AttributeError) as error:
            said = f"{type(error).__name__}: {error}"
        young = now - pending.since < YOUNG_S
        pending.retry_at = now + (0.0 if young else 1.0)
        if said != pending.said and not young:
            pending.said = said
            log.warning("folder=%s not served: %s", folder.name, said)

    def _adopt(self, folder: Path, info: StreamInfo) -> str:
        """Serve a stream from now on; returns why that cannot be done, if so. Raises OSError."""
        stream = TailedStream(folder, info)
        try:
            shipper = self._shipper(info)
        except (BadInput, OSError) as error:  # a url of another kind, or no certificate
            stream.say_error(str(error))
            stream.save(self._clock(), 0.0)
            return str(error)
        if folder.parent != self.host_folders[0]:
            self._foreign.add(stream)
        if shipper.error:
            stream.say_error(shipper.error)
        shipper.streams.add(stream)
        self.streams[folder] = stream
        self._pending.pop(folder, None)
        log.info("stream=%s run=%s rank=%d adopted at %d", info.stream, info.run_id, info.rank, stream.acknowledged)
        return ""

    def _shipper(self, info: StreamInfo) -> Shipper:
        key = _destination(info)
        shipper = self._shippers.get(key)
        if shipper is None:
            client = GatewayClient(info.url, info.token, info.ca_file)
            shipper = Shipper(info.url, client, f"{self.host_folders[0].name}/{os.getpid()}", self._clock)
            self._shippers[key] = shipper
            self._spawn(shipper.run())
        return shipper

    def _save(self, every_s: float) -> None:
        now = self._clock()
        for stream in list(self.streams.values()):
            try:
                stream.save(now, every_s)
            except OSError as error:
                self._broken(stream, error)

    def _forget(self, stream: TailedStream) -> None:
        self.streams.pop(stream.folder, None)
        self._closed_at.pop(stream, None)
        self._foreign.discard(stream)
        if (shipper := self._shippers.get(_destination(stream.info))) is not None:
            shipper.streams.discard(stream)

    # -- how processes end --------------------------------------------------------------------------------------------

    async def _watch(self) -> float:
        now = self._clock()
        alive: dict[tuple[int, float], bool] = {}
        for stream in list(self.streams.values()):
            if not stream.dead:
                stream.dead = not self._lives(stream, alive)
            if stream.closed and not stream.dead:
                self._closed_at.setdefault(stream, now + CLOSED_GRACE_S)
            if stream.info.role != ROLE_AGENT and stream not in self._foreign:
                self._account(stream)
        self._close_own(now)
        return WATCH_S

    def _lives(self, stream: TailedStream, known: dict[tuple[int, float], bool]) -> bool:
        info = stream.info
        if stream in self._foreign:
            return not stream.closed and time.time() - stream.written_at() < FOREIGN_QUIET_S
        if info.role == ROLE_AGENT and info.pid == os.getpid():
            return any(own.info.stream == info.stream for own in self._own.values())
        process = (info.pid, info.started)
        if process not in known:
            known[process] = self._processes.alive(*process)
        return known[process]

    def _account(self, stream: TailedStream) -> None:
        """Open the agent's own stream for a run that lives or has an end to be told; tell the end."""
        if stream.end is not None and stream.end.reported:
            return
        if stream.silent:
            if stream.dead:
                stream.finish(End(0, closed=False, reported=True))
            return
        key = _run(stream.info)
        if key not in self._own and not self._open_own(key, stream.info):
            return
        if stream.dead and stream not in self._reporting:
            self._reporting.add(stream)
            self._spawn(self._report(stream, self._own[key]))

    def _open_own(self, key: RunKey, info: StreamInfo) -> bool:
        now = self._clock()
        if now < self._open_own_at:
            return False
        try:
            self._own[key] = OwnStream(self.host_folders[0], info)
        except OSError as error:
            log.warning("run=%s no stream of our own: %s", info.run_id, error)
            self._open_own_at = now + OWN_FAILED_S
            return False
        self._own[key].heartbeat(self._living(key))
        return True

    async def _report(self, stream: TailedStream, own: OwnStream) -> None:
        """Say how a stream's process ended, once, and note on disk that it was said."""
        try:
            info = stream.info
            offset, closed = await asyncio.to_thread(measure_end, stream.folder, stream.acknowledged)
            closed = closed or stream.closed
            word = await self._parent_word(info, stream.folder.parent)
            said = StreamEnded(stream=info.stream, offset=offset, closed=closed)
            if word is not None:
                said.signal = word.signal
                if word.exit_code is not None:
                    said.exit_code = word.exit_code
            if offset:
                own.ended(said)
            log.info("stream=%s ended at %d closed=%s %s", info.stream, offset, closed, word or "")
            stream.finish(End(offset, closed, reported=True))
            self._processes.forget(info.pid, info.started)
        finally:
            self._reporting.discard(stream)

    async def _parent_word(self, info: StreamInfo, host_folder: Path) -> Ended | None:
        for _ in range(PARENT_LOOKS if info.parent_reports else 1):
            if (word := Ended.read(host_folder, info.pid, info.started)) is not None:
                return word
            await asyncio.sleep(PARENT_LOOK_S)
        return None

    def _close_own(self, now: float) -> None:
        """Say the last word to runs of which nobody on this host speaks any more."""
        speaking: set[RunKey] = set()
        over: dict[RunKey, list[TailedStream]] = {}
        for stream in self.streams.values():
            if stream.info.role == ROLE_AGENT or stream in self._foreign:
                continue
            reported = stream.end is not None and stream.end.reported
            if reported or now >= self._closed_at.get(stream, float("inf")):
                over.setdefault(_run(stream.info), []).append(stream)
            else:
                speaking.add(_run(stream.info))
        for key in self._own.keys() - speaking:
            self._own.pop(key).close()
            for stream in over.get(key, ()):
                if stream.end is None or not stream.end.reported:
                    stream.finish(End(stream.acknowledged, closed=True, reported=True))

    def _settle_ended(self) -> None:
        """Delete what has ended and is wholly acknowledged."""
        for stream in list(self.streams.values()):
            told = stream.info.role == ROLE_AGENT or stream in self._foreign or (stream.end and stream.end.reported)
            if not (stream.dead and stream.drained and told) or stream in self._reporting:
                continue
            try:
                stream.save(self._clock(), 0.0)
                if not stream.remove():
                    self._left.add(stream.folder)
            except OSError as error:
                log.warning("stream=%s not removed: %s", stream.info.stream, error)
                self._left.add(stream.folder)
            self._forget(stream)

    # -- what the agent itself says -----------------------------------------------------------------------------------

    def _living(self, key: RunKey) -> list[str]:
        return [
            stream.info.stream
            for stream in self.streams.values()
            if stream.info.role != ROLE_AGENT and not stream.dead and not stream.closed and _run(stream.info) == key
        ]

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(self.settings.heartbeat_seconds)
            for key, own in self._own.items():
                own.heartbeat(self._living(key))

    async def _samples(self) -> None:
        """Sample on a time grid, so that two agents of a host write the same row."""
        period = self.settings.sample_seconds
        if period <= 0:
            return
        sampler = await asyncio.to_thread(Sampler)
        while True:
            tick = (time.time() // period + 1) * period
            await asyncio.sleep(tick - time.time())
            if not self._own:
                continue
            ranks = {
                (_run(stream.info), stream.info.rank, stream.info.pid)
                for stream in self.streams.values()
                if stream.info.role == ROLE_RANK and not stream.dead and not stream.closed
            }
            readings = await asyncio.to_thread(sampler.read, {pid for _, _, pid in ranks})
            time_us = round(tick * 1_000_000)
            for own in self._own.values():
                own.sample(time_us, readings.host)
            for key, rank, pid in ranks:
                if key in self._own and pid in readings.trees:
                    self._own[key].sample(time_us, readings.trees[pid], rank)

    # -- durability and the store -------------------------------------------------------------------------------------

    async def _sync_files(self) -> float:
        """Fsync what is not acknowledged yet, once a second."""
        waiting = [stream for stream in self.streams.values() if stream.reader.unread() or stream.in_flight]
        if waiting:
            await asyncio.to_thread(_sync_all, waiting)
        return 1.0

    async def _ask_stored(self) -> float:
        now = self._clock()
        for shipper in list(self._shippers.values()):
            wanted = {
                stream.info.stream: stream
                for stream in shipper.streams
                if stream.stored_wanted_until > now and stream.position.stored < stream.acknowledged
            }
            if not wanted:
                continue
            project = next(iter(wanted.values())).info.project
            try:
                request = StatusRequest(project=project, streams=list(wanted)[:STATUS_STREAMS])
                status = await shipper.client.status(request, PREFLIGHT_S)
            except Failure as failure:
                log.info("status: %s", failure.text)
                continue
            for said in status.streams:
                if said.stream in wanted:
                    wanted[said.stream].say_stored(said.stored)
        return STORED_S

    # -- the socket ---------------------------------------------------------------------------------------------------

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request of the unix socket."""
        self.stay()
        match request.get("op"):
            case "ping":
                return {"ok": True, "pid": os.getpid(), "version": _version()}
            case "preflight":
                return await self._preflight(request)
            case "want_stored":
                return self._for_stream(request, want_stored=True)
            case "flush":
                return self._for_stream(request, want_stored=False)
            case other:
                return {"ok": False, "error": f"unknown op {other!r}"}

    def _for_stream(self, request: dict[str, Any], want_stored: bool) -> dict[str, Any]:
        now = self._clock()
        self._discover(now)
        name = request.get("stream")
        stream = next((stream for stream in self.streams.values() if stream.info.stream == name), None)
        if stream is None:
            return {"ok": False, "error": f"no stream {name!r} here"}
        if want_stored:
            stream.stored_wanted_until = now + WANT_STORED_S
        self._look(stream, now)
        self._shippers[_destination(stream.info)].hurry()
        return {"ok": True}

    async def _preflight(self, request: dict[str, Any]) -> dict[str, Any]:
        said = {"ok": True, "reachable": False, "project": "", "run_exists": False, "run_state": "", "attempt": 0}
        asked = PreflightRequest(
            project=str(request.get("project") or ""),
            run_id=str(request.get("run_id") or ""),
            launch_id=str(request.get("launch_id") or ""),
        )
        url = str(request.get("url") or "")
        try:
            client = GatewayClient(url, str(request.get("token") or ""), str(request.get("ca_file") or ""))
        except (BadInput, OSError) as error:
            return said | {"error": str(error)}
        try:
            found = await client.preflight(asked, PREFLIGHT_S)
        except Failure as failure:
            return said | {"reachable": failure.verdict is not Verdict.RETRY, "error": failure.text}
        finally:
            await client.close()
        for key, shipper in self._shippers.items():
            if key.url == url:
                shipper.hurry()
        return said | {
            "reachable": True,
            "project": found.project,
            "run_exists": found.run_exists,
            "run_state": found.run_state,
            "attempt": found.attempt,
            "error": "",
        }


async def _first(*waits: Awaitable[object]) -> None:
    """Wait until one of several is there, and drop the others."""
    tasks = [asyncio.ensure_future(each) for each in waits]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


@functools.cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # late: it costs a tenth of the agent's start

    try:
        return version("runtide")
    except PackageNotFoundError:
        return ""


def _destination(info: StreamInfo) -> Destination:
    return Destination(info.url, info.token, info.ca_file, info.project)


def _run(info: StreamInfo) -> RunKey:
    return _destination(info), info.run_id


def _sync_all(streams: list[TailedStream]) -> None:
    for stream in streams:
        try:
            stream.sync_to_disk()
        except OSError as error:
            log.debug("stream=%s fsync: %s", stream.info.stream, error)
