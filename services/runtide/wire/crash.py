"""Places at which a test may have a process die, as SIGKILL at just that moment would, or freeze as by SIGSTOP.

They do nothing unless RUNTIDE_CRASH_POINT names one. The first RUNTIDE_CRASH_AFTER passes of a process are let go by.
Who dies, once and nobody after it, is settled by who creates the file that RUNTIDE_CRASH_MARK names: so a part that is
started again goes on. With RUNTIDE_CRASH_SIGNAL=SIGSTOP it freezes instead, and goes on from there when it is woken.
"""

from __future__ import annotations

import os
import signal
import threading

POINTS = {
    "agent.acknowledged": "the gateway has said so, position.json does not yet",
    "gateway.received": "nothing is published yet",
    "gateway.published": "the caller has not heard",
    "sink.polled": "nothing is stored",
    "sink.planned": "it has read what is stored, and stored nothing",
    "sink.chained": "changes are in the audit trail, and not stored as events",
    "sink.inserted": "one table has its rows, others may not",
    "sink.stored": "all tables have theirs, the ledger does not say so",
    "sink.entered": "the ledger says so, nothing is committed",
    "sink.committed": "the processor has not heard",
    "processor.derived": "rows are replaced, the coverage does not say so",
    "processor.covered": "it does",
    "migrate.statement": "in the midst of a migration",
}
"""All of them, and how things stand there."""

_POINT = os.environ.get("RUNTIDE_CRASH_POINT", "")
_SIGNAL = signal.Signals[os.environ.get("RUNTIDE_CRASH_SIGNAL", "SIGKILL")]
_passes = int(os.environ.get("RUNTIDE_CRASH_AFTER", "0"))


def crash_point(name: str) -> None:
    """Die, or freeze, here if this point was asked for and nobody has yet."""
    if name == _POINT:
        _pass()


def _pass() -> None:
    global _passes
    _passes -= 1
    if _passes >= 0:
        return
    try:
        os.close(os.open(os.environ["RUNTIDE_CRASH_MARK"], os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    # to this thread, which so does not run on; a process that is to stop may have another thread see to it, later
    signal.pthread_kill(threading.get_ident(), _SIGNAL)
