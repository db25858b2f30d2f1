"""What belongs to the process rather than to a run: the open runs, the console, hooks of fork and exit.

One object, made by the first init(): the current run is what `runtide.log` means.
"""

from __future__ import annotations

import os
import threading

from runtide.sdk.console import Capture
from runtide.sdk.leaving import Leaving, Watch
from runtide.sdk.run import Run
from runtide.v1.records_pb2 import Record

EXIT_SECONDS = 10.0


class Process:
    """The runs that are open in this process."""

    def __init__(self) -> None:
        self.inits: dict[str, int] = {}
        """How many inits there were for each project: part of a run's id."""
        self._runs: list[Run] = []
        self._lock = threading.Lock()
        self._watch = Watch(self._leave)
        self._console: Capture | None = None

    @property
    def current(self) -> Run | None:
        """The run that was opened last and is still open."""
        runs = self._runs
        return runs[-1] if runs else None

    def started(self) -> None:
        """Put the hooks of exit and fork in place; only the first call does anything."""
        self._watch.start()

    def opened(self, run: Run, *, capture_console: bool) -> None:
        """Take in a run. The console goes to the current one."""
        with self._lock:
            self._runs.append(run)
            if capture_console and self._console is None:
                self._console = Capture(self._line)
                self._console.start()

    def closing(self, run: Run, leaving: Leaving) -> None:
        """Let a run go, however it leaves; with the last one the console is left alone again."""
        with self._lock:
            last = self._runs == [run]
            console = self._console if last else None
            if last:
                self._console = None
        if console is not None:
            console.stop()
        with self._lock:
            if run in self._runs:
                self._runs.remove(run)

    def signal_seen(self) -> str:
        """A signal that a handler of the job's own has caught."""
        return self._watch.signal

    def after_fork(self) -> None:
        """In a forked child: nothing that a thread of the parent held may be waited for."""
        self._lock = threading.Lock()
        for run in self._runs:
            run._after_fork()
        if self._console is not None:
            self._console.after_fork()

    def _line(self, record: Record) -> None:
        if (run := self.current) is not None:
            run._keep(record)

    def _leave(self, leaving: Leaving) -> None:
        for run in reversed(self._runs.copy()):
            run._leave(leaving, EXIT_SECONDS)


def make() -> Process:
    """The process's object, told of forks."""
    process = Process()
    os.register_at_fork(after_in_child=process.after_fork)
    return process
