"""Lets a signal end a process whose main thread hangs outside of Python, as it would without our handler.

A Python handler runs only when the main thread comes back to Python. A rank that waits in a collective operation for a
dead one never does, and its launcher would have to wait until it may kill. So a thread watches, through the wakeup
descriptor, for a signal that stays unhandled.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable

GRACE_SECONDS = 2.0
LAST_WORD_SECONDS = 1.0


class StuckWatch:
    """Watches for one signal, whose action was the default before our handler."""

    def __init__(
        self, number: signal.Signals, handler: object, handled: threading.Event, last: Callable[[], None]
    ) -> None:
        """`handled` is set by the handler; `last` says the last word and may hang."""
        self._number, self._handler, self._handled, self._last = number, handler, handled, last
        self._read = self._write = -1
        self._main = threading.main_thread().ident or 0

    def start(self) -> None:
        """Begin, from the main thread. Does nothing where somebody else, an event loop, uses the wakeup descriptor."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        if before != -1:
            signal.set_wakeup_fd(before)
            self._close()
            return
        os.register_at_fork(after_in_child=self._in_child)
        threading.Thread(target=self._watch, args=(self._read,), name="runtide-signals", daemon=True).start()

    def _watch(self, descriptor: int) -> None:
        while got := os.read(descriptor, 512):
            if self._number in got and signal.getsignal(self._number) is self._handler and self._hangs():
                word = threading.Thread(target=self._last, name="runtide-last-word", daemon=True)
                word.start()
                word.join(LAST_WORD_SECONDS)  # the main thread may hold the lock that it needs
                self._die()

    def _hangs(self) -> bool:
        before = self._where()
        return not self._handled.wait(GRACE_SECONDS) and self._where() == before

    def _where(self) -> tuple[int, int]:
        frame = sys._current_frames().get(self._main)
        return (id(frame), frame.f_lasti) if frame else (0, 0)

    def _die(self) -> None:
        import ctypes

        # signal.signal() is the main thread's alone; the C function is not
        libc = ctypes.CDLL(None)
        libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
        libc.signal(int(self._number), None)
        os.kill(os.getpid(), self._number)

    def _in_child(self) -> None:
        """The pipe is the parent's. The thread that forked is the child's main thread, so this is allowed."""
        if self._write < 0:
            return
        before = signal.set_wakeup_fd(-1)
        if before not in (-1, self._write):
            signal.set_wakeup_fd(before)
        self._close()

    def _close(self) -> None:
        for descriptor in (self._read, self._write):
            os.close(descriptor)
        self._read = self._write = -1
