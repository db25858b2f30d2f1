"""stdout and stderr of the job as log lines. What is printed still goes where it went.

Only what passes through Python's sys.stdout and sys.stderr is seen. Lines are joined from parts. Of a progress bar that
redraws itself with carriage returns, the last state counts, and one in between every few seconds.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

from runtide.v1.records_pb2 import Console, LogLine, Record
from runtide.wire import limits

REDRAW_SECONDS = 5.0
Sink = Callable[[Record], None]
Name = Literal["stdout", "stderr"]


class LineJoiner:
    """Turns pieces of text into lines."""

    MAX_PENDING_CHARS = limits.LOG_LINE_BYTES

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pending = ""
        self._shown_at = clock()

    def feed(self, text: str) -> list[str]:
        """Take a piece; return the lines that it completes."""
        whole = self._pending + text
        lines = whole.split("\n")
        self._pending = lines.pop()
        found = [_last_state(line) for line in lines]
        if "\r" in self._pending:
            found += self._redrawn()
        elif len(self._pending) > self.MAX_PENDING_CHARS:
            found.append(self._pending)
            self._pending = ""
        return [line for line in found if line]

    def rest(self) -> list[str]:
        """What was written without an end of line."""
        line, self._pending = _last_state(self._pending), ""
        return [line] if line else []

    def _redrawn(self) -> list[str]:
        """Drop states that were painted over, but show one now and then: a bar may run for hours."""
        before, _, now = self._pending.rpartition("\r")
        if not now and before:
            before, _, now = before.rpartition("\r")
            now += "\r"
        self._pending = now
        if self._clock() - self._shown_at < REDRAW_SECONDS:
            return []
        self._shown_at = self._clock()
        return [_last_state(now)]


class Capture:
    """Sees what is written to sys.stdout and sys.stderr, from start to stop."""

    def __init__(self, sink: Sink) -> None:
        """`sink` gets a LogLine record for every line, on the thread that printed it."""
        self._sink = sink
        self._busy = threading.local()
        self._lock = threading.Lock()
        self._joiners: dict[Name, LineJoiner] = {}
        self._taps: list[_Tap] = []

    def start(self) -> None:
        """Begin."""
        for name in ("stdout", "stderr"):
            if (stream := getattr(sys, name)) is not None:
                self._joiners[name] = LineJoiner()
                if (tap := _Tap.on(stream, name, self._seen)) is not None:
                    self._taps.append(tap)

    def stop(self) -> None:
        """End, and hand over what has no end of line yet."""
        for tap in self._taps:
            tap.remove()
        self._taps.clear()
        for name, joiner in self._joiners.items():
            with self._lock:
                lines = joiner.rest()
            self._hand_over(name, lines)

    def after_fork(self) -> None:
        """In a forked child: locks that other threads held will never be released."""
        self._lock = threading.Lock()
        self._busy = threading.local()
        self._joiners = {name: LineJoiner() for name in self._joiners}

    def _seen(self, name: Name, text: str) -> None:
        if getattr(self._busy, "yes", False):
            return  # printed while a line is being kept: by us, or by a signal handler
        self._busy.yes = True
        try:
            with self._lock:
                lines = self._joiners[name].feed(text)
            self._hand_over(name, lines)
        finally:
            self._busy.yes = False

    def _hand_over(self, name: Name, lines: list[str]) -> None:
        console = Console.CONSOLE_STDOUT if name == "stdout" else Console.CONSOLE_STDERR
        time_us = time.time_ns() // 1000
        for line in lines:
            self._sink(Record(log_line=LogLine(time_us=time_us, console=console, line=_fit(line))))


class _Tap:
    """One stream's `write`, replaced on the object itself, so that handlers which hold the stream are seen too."""

    def __init__(self, stream: Any, write: Callable[[Any], Any]) -> None:
        self._stream, self._write = stream, write

    @classmethod
    def on(cls, stream: Any, name: Name, seen: Callable[[Name, str], None]) -> _Tap | None:
        """Put a tap on a stream; None where the object does not allow it."""
        had = getattr(stream, "__dict__", {}).get("write")
        before = stream.write

        def write(text: Any) -> Any:
            done = before(text)
            if isinstance(text, str):
                seen(name, text)
            return done

        try:
            stream.write = write
        except (AttributeError, TypeError):
            return None
        tap = cls(stream, write)
        tap._had = had
        return tap

    _had: Any = None

    def remove(self) -> None:
        """Put back what was there, unless somebody else has tapped the stream since."""
        if getattr(self._stream, "__dict__", {}).get("write") is not self._write:
            return
        if self._had is None:
            del self._stream.write
        else:
            self._stream.write = self._had


def _last_state(line: str) -> str:
    """What a terminal shows of a line: the text after its last carriage return."""
    line = line.rstrip("\r")
    return line.rpartition("\r")[2] if "\r" in line else line


def _fit(line: str) -> str:
    """Cut a line to the limit and say so; make what is no valid Unicode valid."""
    raw = line.encode("utf-8", "replace")
    if len(raw) <= limits.LOG_LINE_BYTES:
        return raw.decode()
    kept = raw[: limits.LOG_LINE_BYTES - 64].decode("utf-8", "ignore")
    return f"{kept} [... {len(raw) - len(kept.encode())} more bytes cut]"
