"""Books: what is said of a project rather than of one of its runs, under run ids that no run can have. Pure."""

from __future__ import annotations

MARK = "@"
"""What the id of every book begins with; ids that people give must not."""

CHANGES = "@changes"
"""What people and programs alter afterwards; the sink chains it."""

KPIS = "@kpis"
"""Business figures, which come after the run that they are about has ended."""


UNREADABLE = "unreadable"
"""What the streams begin with that a sink makes up for messages which it cannot read; no job's stream may."""


def is_book(run_id: str) -> bool:
    """Say whether this is a book rather than a run: it has no state, no attempts and no row in `runs`."""
    return run_id.startswith(MARK)
