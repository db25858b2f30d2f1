"""How the process leaves: exit codes, exceptions and signals, noticed without taking anything away from anybody.

Hooks and handlers that were there before are called as before; a handler that is set later simply replaces ours. A
signal whose action was the default still ends the process by that signal.
"""

from __future__ import annotations

import atexit
import dis
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any, NoReturn

from runtide.sdk.stuck import StuckWatch

_BY_SIGNAL = 128
_RETURNS = frozenset({"RETURN_VALUE", "RETURN_CONST"})


@dataclass(frozen=True, slots=True)
class Leaving:
    """Why the process ends."""

    exit_code: int = 0
    reason: str = "exit"
    """exit, exception or signal."""
    signal: str = ""

    @property
    def preempted(self) -> bool:
        """Whether a scheduler took the machine away, as far as the process can know.

        torchelastic sends SIGTERM to healthy ranks when another one failed, so under it a signal says nothing.
        """
        scheduled = "SLURM_JOB_ID" in os.environ or "KUBERNETES_SERVICE_HOST" in os.environ
        return self.signal == "SIGTERM" and scheduled and "TORCHELASTIC_RUN_ID" not in os.environ


class Watch:
    """Notices the end of the process and calls `ended` once, in the process that made it and in its forked children."""

    def __init__(self, ended: Callable[[Leaving], None]) -> None:
        self._ended = ended
        self.signal = ""
        """A signal that a handler of the job's own has caught; the job may go on, or leave as it likes."""
        self._crashed: Leaving | None = None
        self._exit: tuple[Any, FrameType] | None = None
        self._excepthook: Callable[..., Any] | None = None
        self._started = False

    def start(self) -> None:
        """Put the hooks in place; the second call does nothing."""
        if self._started:
            return
        self._started = True
        atexit.register(self._at_exit)
        self._excepthook = sys.excepthook
        sys.excepthook = self._on_exception
        self._watch_sys_exit()
        if threading.current_thread() is threading.main_thread():
            self._watch_signal(signal.SIGTERM)
            if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:  # else KeyboardInterrupt comes to the exception hook
                self._watch_signal(signal.SIGINT)

    def _at_exit(self) -> None:
        if self._crashed:
            self._ended(self._crashed)
        else:
            self._ended(Leaving(self._exit_code(), "signal" if self.signal else "exit", self.signal))

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            self._crashed = Leaving(_BY_SIGNAL + signal.SIGINT, "signal", "SIGINT")
        else:
            self._crashed = Leaving(1, "exception")
        (self._excepthook or sys.__excepthook__)(kind, error, trace)

    def _watch_sys_exit(self) -> None:
        """No hook tells the code of sys.exit, so it is noted; `raise SystemExit(3)` stays unseen."""
        before = sys.exit

        def leave(status: Any = None, /) -> NoReturn:
            if threading.current_thread() is threading.main_thread():
                self._exit = (status, _outermost(sys._getframe()))
            before(status)

        sys.exit = leave

    def _exit_code(self) -> int:
        """The code of the sys.exit that ends the process; one that somebody caught on the way does not count."""
        if self._exit is None:
            return 0
        status, outermost = self._exit
        if dis.opname[outermost.f_code.co_code[outermost.f_lasti]] in _RETURNS:
            return 0  # the program came to its end, so nothing was raised through it
        return status if isinstance(status, int) else 0 if status is None else 1

    def _watch_signal(self, number: signal.Signals) -> None:
        before = signal.getsignal(number)
        if before in (signal.SIG_IGN, None):  # None: a handler that is not Python's
            return

        def noticed(received: int, frame: FrameType | None) -> Any:
            if callable(before):
                self.signal = number.name
                return before(received, frame)
            handled.set()
            self._ended(leaving)
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return None

        handled = threading.Event()
        leaving = Leaving(_BY_SIGNAL + number, "signal", number.name)
        signal.signal(number, noticed)
        if not callable(before):
            StuckWatch(number, noticed, handled, lambda: self._ended(leaving)).start()
            _not_in_children(number, noticed)


def _not_in_children(number: signal.Signals, handler: Callable[[int, FrameType | None], Any]) -> None:
    """Give forked children the default action back, from their first moment on.

    Python forgets a signal that comes between fork and the child's first instruction, so a child that is terminated at
    once would live on.
    """

    def before() -> None:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(number) is handler:
            signal.signal(number, signal.SIG_DFL)
            lifted.append(True)

    def after_in_parent() -> None:
        if lifted:
            lifted.clear()
            signal.signal(number, handler)

    lifted: list[bool] = []
    os.register_at_fork(before=before, after_in_parent=after_in_parent, after_in_child=lifted.clear)


def _outermost(frame: FrameType) -> FrameType:
    while frame.f_back is not None:
        frame = frame.f_back
    return frame
