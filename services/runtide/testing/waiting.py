"""Waiting in tests: poll with a deadline, never sleep and hope."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

POLL_S = 0.02


def until(found: Callable[[], Found], seconds: float = 20.0, what: str = "it came true") -> Found:
    """Poll until something is true, and return it. Raises AssertionError past the deadline."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(POLL_S)
    return answer


async def until_async(found: Callable[[], Found], seconds: float = 20.0, what: str = "it came true") -> Found:
    """Like `until`, while the event loop goes on."""
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(POLL_S)
    return answer
