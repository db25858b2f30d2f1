"""The words that the canary and those who read its rows share: its project, its metrics, how old is too old."""

from __future__ import annotations

PROJECT = "runtide-canary"
"""A project of its own: it stands in no list that is not asked for it by name."""

DAYS = 7
"""Its raw rows go after so many days, whatever the retention of the others is."""

BEAT = "canary/beat"
"""Number of the beat. A beat is logged twice: when it begins, and with what became of it."""
LOGGED = "canary/logged"
"""Points that this process has logged by now, those of this record included."""
DELAY = "canary/delay_s"
"""Seconds from log() to rows that can be queried; NaN where it is not known (yet)."""
AGREES = "canary/agrees"
"""1 where everything logged is stored once or declared, 0 where not; NaN where it is not known (yet)."""
INTERVAL = "canary/interval_s"
"""Seconds between two beats."""
METRICS = (BEAT, LOGGED, DELAY, AGREES, INTERVAL)
"""All of them are in every record, so a lost record is as many points."""


def patience_s(interval_s: float) -> float:
    """How long a beat may take: with one a minute a loss is seen within two minutes."""
    return 15.0 + interval_s / 2


def oldest_s(interval_s: float) -> float:
    """The age from which a last beat says that no canary runs, or that nothing comes through any more."""
    return interval_s + patience_s(interval_s)
