"""Finding streams: every folder in a host folder is tried until it is a stream that can be served.

Promises: a stream whose folder is gone is forgotten; a new folder is tried at once, one that is half made, damaged or
without a destination once a second, and why it is not served is logged once for every reason. Blocks for local file
calls only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtide.agent.served import Served
from runtide.agent.watch import ENDED_DIR
from runtide.spool.layout import StreamInfo, host_folders

log = logging.getLogger(__name__)

RESCAN_S = 1.0
RETRY_S = 1.0
YOUNG_S = 2.0
"""How long a new folder may take to get its stream.json."""


@dataclass(slots=True)
class Pending:
    """A folder that is no stream yet: half made, damaged, or without a destination."""

    since: float
    retry_at: float = 0.0
    said: str = ""


class Finder:
    """Looks for streams in one or more host folders; the first one is this host's own."""

    def __init__(
        self,
        host_folders: Sequence[Path],
        served: Served,
        gone: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        """`gone` is called when this host's own folder is no longer there."""
        self._host_folders, self._served, self._gone, self._clock = list(host_folders), served, gone, clock
        self._pending: dict[Path, Pending] = {}
        self._scanned: dict[Path, tuple[int, float]] = {}

    @property
    def hopeful(self) -> bool:
        """A folder that came just now will soon be a stream."""
        return any(self._clock() - pending.since < YOUNG_S for pending in self._pending.values())

    def look_everywhere(self) -> None:
        """Look at the folders of all hosts from now on, and read again where streams that are served go."""
        self._served.read_again()
        others = host_folders(self._host_folders[0].parent)
        self._host_folders += [folder for folder in others if folder not in self._host_folders]
        self._scanned.clear()
        self.look()

    def look(self) -> None:
        """Look for new folders where something has changed, and try those that are no streams yet."""
        now = self._clock()
        for host in self._host_folders:
            try:
                changed = host.stat().st_mtime_ns
            except FileNotFoundError:
                if host == self._host_folders[0]:
                    log.info("%s is gone", host)
                    self._gone()
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
        self._served.keep_only(host, found)
        for folder in found:
            if not self._served.knows(folder):
                self._pending.setdefault(folder, Pending(now))

    def _try(self, folder: Path, pending: Pending, now: float) -> None:
        """Adopt a folder as a stream if it is one by now."""
        try:
            info = StreamInfo.read(folder)
            said = self._served.adopt(folder, info) if info.url else "no destination yet"
        except FileNotFoundError:
            said = "no stream.json" if folder.exists() else ""
        except (OSError, ValueError, TypeError, AttributeError) as error:
            said = f"{type(error).__name__}: {error}"
        if not said:
            del self._pending[folder]
            return
        young = now - pending.since < YOUNG_S
        pending.retry_at = now + (0.0 if young else RETRY_S)
        if said != pending.said and not young:
            pending.said = said
            log.warning("folder=%s not served: %s", folder.name, said)
