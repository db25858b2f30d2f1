"""The ClickHouse engine of this process: one directory, one owner, a connection for each request.

A connection costs about a millisecond and is thrown away, so no request sees another's settings or temporary tables.
Promise: an insert that returned is in the files of the engine, and survives the death of this process.
Everything here blocks; the HTTP side calls it in threads.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chdb.state import connect

from runtide.embedded.errors import OF_WRITING, ServerError, from_engine
from runtide.embedded.settings import ENGINE, set_statement
from runtide.embedded.sql import unsafe_table_functions

LOCK_FILE = "clickhouse.lock"
USUAL = "runtide"
"""The database of a request that names none, once it exists."""

_FAILURES = f"SELECT code, sum(value) FROM system.errors WHERE name IN {OF_WRITING} GROUP BY code"  # noqa: S608  our own


class HomeInUse(Exception):
    """Another process owns this home's ClickHouse directory."""


class Engine:
    """Owner of `home/clickhouse`."""

    def __init__(self, home: Path) -> None:
        self.path = home / "clickhouse"
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _own(home)
        self._root: Any = connect(str(self.path))
        self._admin: Any = connect(str(self.path))
        self._admin_lock = threading.Lock()
        self._leave_the_file_system()
        self.version, self.timezone, self.server_name = self._ask("SELECT version(), timezone(), hostName()").split(
            "\t"
        )
        self._has_usual = False
        self.known_failures: dict[int, int] = {}
        """What `failures` said last."""
        self.unsafe = unsafe_table_functions(self._ask("SELECT name FROM system.table_functions").split("\n"))

    def _leave_the_file_system(self) -> None:
        """Make `default` a plain database. The engine lays its own over the file system: every path names a table then,
        and whoever asks for one learns whether the file exists. Tables in it stay, since the identity does."""
        kind, identity = self._ask("SELECT engine, uuid FROM system.databases WHERE name = 'default'").split("\t")
        if kind == "Overlay":
            self._ask("DETACH DATABASE default")
            self._ask(f"ATTACH DATABASE default UUID '{identity}' ENGINE = Atomic")

    def _ask(self, sql: str) -> str:
        with self._admin_lock:
            return str(self._admin.query(sql, "TSV").bytes().decode()).rstrip("\n")

    def connection(self, settings: Mapping[str, str], database: str, readonly: int, tag: str) -> Any:
        """Open a connection that can do no more than it is told; the caller closes it.

        Raises: ServerError when the engine does not know a setting or the database.
        """
        opened = connect(str(self.path))
        try:
            if database := database or self._usual():
                opened.query(f"USE `{database.replace(chr(92), chr(92) * 2).replace('`', chr(92) + '`')}`")
            opened.query(set_statement({**ENGINE, **settings, "log_comment": tag}))
            if readonly:
                opened.query(f"SET readonly = {readonly}")
        except Exception as error:
            opened.close()
            raise from_engine(error) from error
        return opened

    def _usual(self) -> str:
        """Where a name without a database is looked up: among the views, once they are there."""
        self._has_usual = self._has_usual or self._ask(f"EXISTS DATABASE {USUAL}") == "1"
        return USUAL if self._has_usual else ""

    def failures(self) -> dict[int, int]:
        """How often each error of writing has come up since the engine began."""
        lines = [line.split("\t") for line in self._ask(_FAILURES).split("\n") if line]
        self.known_failures = {int(code): int(count) for code, count in lines}
        return self.known_failures

    def failure(self, code: int) -> ServerError:
        """What the engine said last of an error."""
        name, text = self._ask(
            f"SELECT any(name), argMax(last_error_message, last_error_time) FROM system.errors WHERE code = {code}"  # noqa: S608
        ).split("\t")
        return ServerError((code, name), text)

    def kill(self, tag: str) -> None:
        """Cancel the query that runs under this tag; nothing happens when there is none."""
        with self._admin_lock:
            self._admin.query(f"KILL QUERY WHERE Settings['log_comment'] = '{tag}' ASYNC", "TSV")

    def close(self) -> None:
        """Let go of the directory."""
        with self._admin_lock:
            self._admin.close()
        self._root.close()
        os.close(self._lock)


def _own(home: Path) -> int:
    """Hold the home's lock until this process ends.

    Raises: HomeInUse when another process holds it.
    """
    descriptor = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise HomeInUse(
            f"{home} is in use by the ClickHouse of process {owner or 'unknown'}: one process owns one directory. "
            "Stop that one, or choose another home with --home"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor
