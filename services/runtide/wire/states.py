"""The states that a run can be in, in one list. The processor decides them; everybody else only reads them."""

from __future__ import annotations

from enum import StrEnum


class RunState(StrEnum):
    """What is known about a run now. A run goes back to running by itself when its processes speak again."""

    RUNNING = "running"
    DEGRADED = "degraded"
    """Some ranks are silent or dead while others go on."""
    STALLED = "stalled"
    """Its processes live but no step has come for a long time."""
    PREEMPTED = "preempted"
    """It was told to stop by the scheduler and may come back as another attempt."""
    CRASHED = "crashed"
    """A process died without a last word, or all of them have been silent."""
    FAILED = "failed"
    """It ended by itself with an exception or an exit code other than 0."""
    FINISHED = "finished"


ENDED = frozenset({RunState.PREEMPTED, RunState.CRASHED, RunState.FAILED, RunState.FINISHED})

HEARTBEAT_SECONDS = 5.0
"""How often an agent says which processes live."""

SILENT_SECONDS = 30.0
"""After this long without a word from process or agent a stream counts as dead."""

STALLED_SECONDS = 300.0
"""After this long without a step, where there had been steps, a living run counts as stalled."""
