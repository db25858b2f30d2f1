"""`runtide sync [DIR]`: ship what is left in a spool, with a progress bar, and return when it has arrived.

Serves the folders of all hosts under the spool root, so that a container's or a dead machine's leftovers on a shared
disk arrive too; where an agent serves this host already, it is that agent which ships and this only looks on.

Promises: it ends, though jobs go on logging and addresses do not answer: what counts is what was there when it began,
and an address that is away holds up nothing but its own streams.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runtide.agent.gateway import PUSH_TIMEOUT_S, Tls, parse_url
from runtide.agent.main import LOG_FILE, SOCKET_FILE, answers, log_to, run_agent, settings_from_environment
from runtide.agent.serve import Agent
from runtide.agent.served import Run
from runtide.agent.streams import written
from runtide.agent.watch import Processes
from runtide.spool.artifacts import ArtifactTask, Done, Sent, task_folders
from runtide.spool.layout import (
    REJECTED_DIR,
    STREAM_FILE,
    Position,
    StreamInfo,
    default_root,
    host_folder,
    host_folders,
    runtime_folder,
    tls_files,
)
from runtide.v1.records_pb2 import ROLE_AGENT
from runtide.wire.errors import BadInput

log = logging.getLogger(__name__)

LOOK_S = 0.2
GIVE_UP_S = 20.0
"""Without progress for this long, and with an error standing, the gateway counts as away."""
NO_TLS_FILES = Tls()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sync is."""

    streams: int
    bytes: int
    """What waited at the start."""
    shipped: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class Synced:
    """What a sync did."""

    streams: int
    bytes: int
    homeless: int
    """Streams that have no destination because no url was given, here or in the job."""
    rejected: int
    """Streams with records that a gateway refused for good: see their rejected/ folders."""
    waiting: tuple[tuple[str, str], ...] = ()
    """Streams that have not arrived, each with the reason."""


def sync(
    root: Path,
    url: str | None = None,
    token: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    give_up_s: float = GIVE_UP_S,
    tls: Tls = NO_TLS_FILES,
) -> Synced:
    """Ship everything below a spool root; with `url` to that gateway, whatever address it was logged for.

    `token` and `tls` go with `url`, also where that is the address that waits already: a token may have expired.

    Blocks until all that is there now has arrived, or nothing has moved for `give_up_s`. Raises BadInput for a wrong
    url, and for a folder that is no spool.
    """
    if url is not None:
        parse_url(url)
        _redirect(root, url, token or "", tls)
    found = [info for _, info in stream_folders(root)]
    if not found and root != default_root() and not any(root.glob(f"*/{LOG_FILE}")):
        raise BadInput("dir", root, "no spool is there: it would hold folders of hosts, and these folders of streams")
    homeless = sum(1 for info in found if not info.url)
    watch = _Watch(root, progress or (lambda _: None), give_up_s)
    settings = dataclasses.replace(settings_from_environment(), once=True, linger_seconds=0.3, sample_seconds=0)
    if found and not run_agent(root, settings, host_folders=host_folders(root), watch=watch.follow):
        answers(runtime_folder(root) / SOCKET_FILE, "sync")
        watch.until_done(lambda: None)
    watch.finish()
    rejected = sum(1 for folder, _ in stream_folders(root) if (folder / REJECTED_DIR).exists())
    return Synced(watch.streams, watch.shipped, homeless, rejected, watch.waiting)


def discard(root: Path, stream: str) -> int:
    """Give up what is left of a stream, for good; returns how many bytes. Raises BadInput where that cannot be done.

    With the last stream of a run goes what agents have to say of it.
    """
    found = list(stream_folders(root))
    given_up = next((each for each in found if each[1].stream == stream), None)
    if given_up is None:
        raise BadInput("stream", stream, f"there is none of this name in {root}")
    folder, info = given_up
    by_agent = info.role == ROLE_AGENT
    if not by_agent and folder.parent == host_folder(root) and Processes().alive(info.pid, info.started):
        raise BadInput("stream", stream, f"process {info.pid} goes on writing it")
    left = written(folder) - Position.read(folder).acknowledged
    shutil.rmtree(folder)
    others = [each for each in found if each != given_up and Run.of(each[1]) == Run.of(info)]
    if all(other.role == ROLE_AGENT for _, other in others):
        for other_folder, _ in others:
            shutil.rmtree(other_folder, ignore_errors=True)
    return left


def stream_folders(root: Path) -> Iterator[tuple[Path, StreamInfo]]:
    """Yield every readable stream folder of every host below a spool root."""
    for path in sorted(root.glob(f"*/*/{STREAM_FILE}")):
        try:
            yield path.parent, StreamInfo.read(path.parent)
        except FileNotFoundError:  # it has arrived meanwhile
            continue
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("%s: %s", path, error)


def _redirect(root: Path, url: str, token: str, tls: Tls) -> None:
    """Give an address to the streams that have none, and this one, token and files to those that wait for theirs."""
    processes = Processes()
    files = {name: file for name, file in tls._asdict().items() if file}
    for folder, info in stream_folders(root):
        if not info.url:
            dataclasses.replace(info, url=url, token=info.token or token, **files).write(folder)
            continue
        position = Position.read(folder)
        here = folder.parent == host_folder(root)
        moves = not position.error and here and processes.alive(info.pid, info.started)
        there = dataclasses.replace(info, url=url, token=token or info.token, **files)
        waits = position.acknowledged < written(folder) or any(ArtifactTask.read(each) for each in task_folders(folder))
        if not moves and there != info and waits:
            there.write(folder)


@dataclass(slots=True)
class _Followed:
    """A stream that has to arrive."""

    stream: str
    start: int
    end: int
    at: int
    error: str = ""

    @property
    def arrived(self) -> bool:
        return self.at >= self.end

    def look(self, folder: Path) -> None:
        """See how far it is; a folder that has gone has arrived."""
        position = Position.read(folder)
        gone = not (folder / STREAM_FILE).exists()
        self.at = self.end if gone else min(self.end, max(self.at, position.acknowledged))
        self.error = "" if self.arrived else position.error


class _FollowedArtifact(_Followed):
    """An artifact that has to arrive; one byte of it stands for its being said."""

    def look(self, folder: Path) -> None:
        """See how far it is."""
        done, sent = Done.read(folder), Sent.read(folder)
        self.at = self.end if done is not None else min(self.end - 1, max(self.at, sent.sent))
        self.error = "" if self.arrived else sent.error


class _Watch:
    """Follows position.json of all streams that are there now, from a thread beside the agent or in place of it."""

    def __init__(self, root: Path, progress: Callable[[Progress], None], give_up_s: float) -> None:
        self._progress, self._give_up_s = progress, give_up_s
        self._followed: dict[Path, _Followed] = {}
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._gave_up = False
        for folder, info in stream_folders(root):
            if info.url:
                at = Position.read(folder).acknowledged
                self._followed[folder] = _Followed(info.stream, at, max(at, written(folder)), at)
                for each in task_folders(folder):
                    if (task := ArtifactTask.read(each)) is not None:
                        what = f"{info.stream} artifact {task.name}"
                        self._followed[each] = _FollowedArtifact(what, 0, task.size + 1, 0)

    @property
    def streams(self) -> int:
        return sum(1 for each in self._followed.values() if each.at > each.start)

    @property
    def shipped(self) -> int:
        return sum(each.at - each.start for each in self._followed.values())

    @property
    def waiting(self) -> tuple[tuple[str, str], ...]:
        """What has not arrived. A torn record at the end waits for its rest, and is no reason to wait here."""
        left = [each for each in self._followed.values() if not each.arrived]
        return tuple((each.stream, each.error) for each in left if each.error or self._gave_up)

    def follow(self, agent: Agent) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        give_up = lambda: loop.call_soon_threadsafe(agent.stop)  # noqa: E731
        self._thread = threading.Thread(target=self.until_done, args=(give_up,), daemon=True)
        self._thread.start()

    def finish(self) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._look()

    def until_done(self, give_up: Callable[[], None]) -> None:
        """Look until everything is acknowledged, the agent is done, or nothing moves any more."""
        moved_at, before = time.monotonic(), -1
        while not self._over.wait(LOOK_S):
            self._look()
            if self.shipped != before:
                moved_at, before = time.monotonic(), self.shipped
            left = [each for each in self._followed.values() if not each.arrived]
            if self._thread is None and not left:
                return
            patience = self._give_up_s + (0.0 if all(each.error for each in left) else PUSH_TIMEOUT_S)
            if time.monotonic() - moved_at > patience:
                self._gave_up = True
                give_up()
                return

    def _look(self) -> None:
        """Look at all of them."""
        for folder, each in self._followed.items():
            if each.arrived:
                continue
            each.look(folder)
        waits = [each for each in self._followed.values() if each.end > each.start]
        total = sum(each.end - each.start for each in waits)
        error = next((each.error for each in waits if each.error), "")
        self._progress(Progress(len(waits), total, self.shipped, error))


class Bar:
    """A progress bar on a terminal; silence elsewhere."""

    WIDTH = 30

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def __call__(self, now: Progress) -> None:
        """Draw it."""
        if not self._shown:
            return
        share = now.shipped / now.bytes if now.bytes else 1.0
        full = int(share * self.WIDTH)
        bar = "#" * full + "." * (self.WIDTH - full)
        text = f"[{bar}] {share:4.0%}  {now.shipped / 1e6:.1f} of {now.bytes / 1e6:.1f} MB, {now.streams} streams"
        sys.stderr.write(f"\r{text}  {now.error}"[: _columns()] + "\x1b[K")
        sys.stderr.flush()

    def close(self) -> None:
        """Leave the line."""
        if self._shown:
            sys.stderr.write("\n")


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        return 120


def main(argv: list[str]) -> int:
    """Run `runtide sync`."""
    parser = argparse.ArgumentParser(
        prog="runtide sync",
        description="Ship what is left in a spool folder.",
        epilog="Example: runtide sync /scratch/spool --url grpc://127.0.0.1:7171",
    )
    parser.add_argument("dir", nargs="?", type=Path, help="spool folder (default: RUNTIDE_DIR, else ~/.runtide/spool)")
    parser.add_argument(
        "--url",
        help="gateway for all that waits, such as grpc://127.0.0.1:7171, with RUNTIDE_TOKEN, RUNTIDE_CA_FILE, "
        "RUNTIDE_CERT_FILE and RUNTIDE_KEY_FILE where they are set (default: where each was logged to)",
    )
    parser.add_argument(
        "--discard",
        metavar="STREAM",
        action="append",
        help="give up for good what is left of a stream; nothing is sent",
    )
    asked = parser.parse_args(argv)
    root = (asked.dir or default_root()).expanduser().absolute()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    log_to(host_folder(root))
    logging.getLogger().setLevel(logging.WARNING)
    bar = Bar()
    try:
        if asked.discard:
            for stream in asked.discard:
                sys.stdout.write(f"{discard(root, stream)} bytes of stream {stream} are given up.\n")
            return 0
        done = sync(root, asked.url, os.environ.get("RUNTIDE_TOKEN"), bar, tls=Tls(*tls_files(os.environ)))
    except (BadInput, OSError) as error:
        sys.stderr.write(f"runtide sync: {error}\n")
        return 2 if isinstance(error, BadInput) else 1
    finally:
        bar.close()
    return _tell(done, root)


def _tell(done: Synced, root: Path) -> int:
    sys.stdout.write(f"{done.bytes} bytes of {counted(done.streams, 'stream')} have arrived.\n")
    if done.homeless:
        sys.stdout.write(f"Without a gateway: {counted(done.homeless, 'stream')}; give one with --url.\n")
    if done.rejected:
        sys.stdout.write(f"With refused records: {counted(done.rejected, 'stream')}; see rejected/ in {root}.\n")
    for stream, error in done.waiting:
        sys.stderr.write(f"runtide sync: stream {stream} waits: {error or 'nothing moves'}\n")
    if done.waiting:
        sys.stderr.write(
            "runtide sync: --url sends all that waits elsewhere, or there with another RUNTIDE_TOKEN; "
            "--discard STREAM gives a stream up\n"
        )
    return 1 if done.homeless or done.rejected or done.waiting else 0


def counted(number: int, what: str) -> str:
    """Say how many there are: 1 stream, 2 streams."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
