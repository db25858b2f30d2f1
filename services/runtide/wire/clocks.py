"""What is made of a clock that may be wrong. Pure.

Two clocks that are right differ by a little and by the time that a message takes; from CLOCK_TOLERANCE_US on the host's
counts as wrong, and what it said is set right by what it was ahead when it sent that.
"""

from __future__ import annotations

from runtide.wire.limits import EARLIEST_US, LATEST_US

CLOCK_TOLERANCE_US = 5_000_000
"""A host whose clock differs by more is told so, and its times are set right where states and durations are judged."""


def ahead(sent_us: int, received_us: int) -> int | None:
    """By how much the sender's clock is ahead; None where it did not say, or nothing that a clock can show."""
    return sent_us - received_us if sent_us and EARLIEST_US <= sent_us <= LATEST_US else None


def set_right(said_us: int, ahead_us: int | None, received_us: int) -> int:
    """The instant at which something was said, by the gateway's clock; never later than it came."""
    wrong = ahead_us if ahead_us is not None and abs(ahead_us) > CLOCK_TOLERANCE_US else 0
    return max(EARLIEST_US, min(said_us - wrong, received_us))
