"""What every gateway has to know and is rarely told: few entries, the last value of each key, noticed within seconds.

Two stores behind one protocol: a file on one machine, Kafka's compacted topic `control` elsewhere (`kafka.control`).
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from runtide.wire.errors import BadInput

log = logging.getLogger(__name__)

Entry = Mapping[str, Any]
"""A JSON object."""
Told = Callable[[Mapping[str, Entry]], None]
"""Is given all entries, each time that one has changed."""

LOOK_S = 0.5
"""How often the file is looked at."""


class Control(Protocol):
    """Keeps entries. Nothing is ever taken out: what no longer holds says so."""

    async def read(self) -> Mapping[str, Entry]:
        """Return all entries. Raises Unavailable, and BadInput for a store that cannot be understood."""

    async def put(self, key: str, entry: Entry) -> None:
        """Return once the entry outlives any process. Raises Unavailable and BadInput."""

    async def follow(self, told: Told) -> None:
        """Tell all entries at once, and again after each change, until cancelled; an outage only delays."""


class FileControl:
    """Entries in one JSON file, mode 0600, replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> Mapping[str, Entry]:
        """Return all entries; none where there is no file. Raises BadInput naming file and reason."""
        return self._read()

    async def put(self, key: str, entry: Entry) -> None:
        """Replace the file by one with this entry; others that put at the same time wait."""
        with self._lock():
            self._replace({**self._read(), key: entry})

    async def follow(self, told: Told) -> None:
        """Tell what is in the file whenever it was replaced. Raises BadInput where it cannot be read at the start.

        A file that becomes unreadable, or goes away, later changes nothing: what was told last still holds.
        """
        seen = self._mark()
        told(self._read())
        while True:
            await asyncio.sleep(LOOK_S)
            if (mark := self._mark()) == seen or mark is None:
                continue
            seen = mark
            try:
                told(self._read())
            except BadInput as error:
                log.warning("control_file_unreadable error=%s", error)

    def _mark(self) -> tuple[int, int, int] | None:
        """What differs between one file and the next of this name."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def _read(self) -> dict[str, Entry]:
        try:
            with self._path.open() as file:
                mode, text = os.fstat(file.fileno()).st_mode, file.read()
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(str(self._path), "not readable", f"it holds who may do what: {error}") from error
        if mode & 0o022:
            raise BadInput(str(self._path), f"of mode {mode & 0o777:o}", "only its owner may write it: chmod 600")
        try:
            found = json.loads(text)
            if not (isinstance(found, dict) and all(isinstance(entry, dict) for entry in found.values())):
                raise ValueError("it is no object of objects")
        except ValueError as error:
            raise BadInput(str(self._path), "not understood", f"it is JSON that runtide wrote: {error}") from error
        return found

    def _replace(self, entries: Mapping[str, Entry]) -> None:
        with tempfile.NamedTemporaryFile(
            "w", dir=self._path.parent, prefix=f".{self._path.name}.", delete=False
        ) as new:
            json.dump(entries, new, indent=1)
            new.flush()
            os.fsync(new.fileno())
        Path(new.name).replace(self._path)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(self._path.with_name(f".{self._path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
