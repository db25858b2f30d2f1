"""`runtide sync [DIR]`: ship what is left in a spool, with a progress bar, and return when it has arrived.

Serves the folders of all hosts under the spool root, so that a container's or a dead machine's leftovers on a shared
disk arrive too; where an agent serves this host already, it is that agent which ships and this only looks on.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runtide.agent.gateway import parse_url
from runtide.agent.main import log_to, run_agent, settings_from_environment
from runtide.agent.serve import Agent
from runtide.spool.layout import REJECTED_DIR, STREAM_FILE, Position, StreamInfo, default_root, host_folder, segments
from runtide.v1.records_pb2 import ROLE_AGENT
from runtide.wire.errors import BadInput, Unavailable

log = logging.getLogger(__name__)

LOOK_S = 0.2
GIVE_UP_S = 20.0
"""Without progress for this long, and with an error standing, the gateway counts as away."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sync is."""

    streams: int
    bytes: int
    """What waited at the start and what has come since."""
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


def sync(
    root: Path,
    url: str | None = None,
    token: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    give_up_s: float = GIVE_UP_S,
) -> Synced:
    """Ship everything below a spool root. `url` and `token` are for streams that have no destination.

    Blocks until all has arrived. Raises Unavailable where nothing moves for `give_up_s`, BadInput for a wrong url.
    """
    if url is not None:
        parse_url(url)
        _give_destination(root, url, token or "")
    homeless = sum(1 for _, info in stream_folders(root) if not info.url)
    watch = _Watch(root, progress or (lambda _: None), give_up_s)
    hosts = [folder for folder in root.iterdir() if folder.is_dir()] if root.is_dir() else []
    settings = dataclasses.replace(settings_from_environment(), once=True, linger_seconds=0.3, sample_seconds=0)
    if not run_agent(root, settings, host_folders=hosts, watch=watch.follow):
        watch.until_done(lambda: None)
    watch.finish()
    if watch.failure:
        raise Unavailable(watch.failure)
    rejected = sum(1 for folder, _ in stream_folders(root) if (folder / REJECTED_DIR).exists())
    return Synced(watch.streams, watch.shipped, homeless, rejected)


def stream_folders(root: Path) -> Iterator[tuple[Path, StreamInfo]]:
    """Yield every readable stream folder of every host below a spool root."""
    for path in sorted(root.glob(f"*/*/{STREAM_FILE}")):
        try:
            yield path.parent, StreamInfo.read(path.parent)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("%s: %s", path, error)


def _give_destination(root: Path, url: str, token: str) -> None:
    for folder, info in stream_folders(root):
        if not info.url:
            dataclasses.replace(info, url=url, token=info.token or token).write(folder)


class _Watch:
    """Follows position.json of all streams, from a thread beside the agent or in place of it."""

    def __init__(self, root: Path, progress: Callable[[Progress], None], give_up_s: float) -> None:
        self.failure = ""
        self.shipped = 0
        self._root, self._progress, self._give_up_s = root, progress, give_up_s
        self._start: dict[Path, int] = {}
        self._ends: dict[Path, int] = {}
        self._positions: dict[Path, int] = {}
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._begun = False
        self._look()
        self._begun = True

    @property
    def streams(self) -> int:
        return sum(1 for folder, end in self._ends.items() if end > self._start[folder])

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
        self._report(self._look())

    def until_done(self, give_up: Callable[[], None]) -> None:
        """Look until everything is acknowledged, the agent is done, or nothing moves any more."""
        moved_at, before = time.monotonic(), -1
        while not self._over.wait(LOOK_S):
            error = self._look()
            self._report(error)
            if self.shipped != before:
                moved_at, before = time.monotonic(), self.shipped
            if self._thread is None and all(self._positions[each] >= end for each, end in self._ends.items()):
                return
            if error and time.monotonic() - moved_at > self._give_up_s:
                self.failure = error
                give_up()
                return

    def _look(self) -> str:
        """Read all positions; a folder that has gone has arrived. Returns an error of one that waits."""
        error = ""
        seen: set[Path] = set()
        for folder, info in stream_folders(self._root):
            try:
                position, last = Position.read(folder), segments(folder)[-1:]
                end = last[0][0] + last[0][1].stat().st_size if last else position.acknowledged
            except FileNotFoundError:
                continue
            if not info.url or (info.role == ROLE_AGENT and self._begun and folder not in self._start):
                continue  # what the agent says about this sync is no leftover
            seen.add(folder)
            self._start.setdefault(folder, position.acknowledged)
            self._ends[folder] = max(end, position.acknowledged)
            self._positions[folder] = position.acknowledged
            if position.error and position.acknowledged < end:
                error = position.error
        for folder in self._ends.keys() - seen:
            self._positions[folder] = self._ends[folder]
        self.shipped = sum(at - self._start[folder] for folder, at in self._positions.items())
        return error

    def _report(self, error: str) -> None:
        total = sum(end - self._start[folder] for folder, end in self._ends.items())
        self._progress(Progress(self.streams, total, self.shipped, error))


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
        "--url", help="gateway for streams that have none, such as grpc://127.0.0.1:7171; their token is RUNTIDE_TOKEN"
    )
    asked = parser.parse_args(argv)
    root = (asked.dir or default_root()).expanduser().absolute()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    log_to(host_folder(root))
    logging.getLogger().setLevel(logging.WARNING)
    bar = Bar()
    try:
        done = sync(root, asked.url, os.environ.get("RUNTIDE_TOKEN"), bar)
    except (Unavailable, BadInput) as error:
        bar.close()
        sys.stderr.write(f"runtide sync: {error}\n")
        return 1
    bar.close()
    sys.stdout.write(f"{done.bytes} bytes of {done.streams} streams have arrived.\n")
    if done.homeless:
        sys.stdout.write(f"{done.homeless} streams have no gateway: give one with --url.\n")
    if done.rejected:
        sys.stdout.write(f"{done.rejected} streams have refused records: see rejected/ in {root}.\n")
    return 1 if done.homeless or done.rejected else 0
