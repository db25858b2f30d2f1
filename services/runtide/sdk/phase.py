"""A timed span of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Phase:
    """A span that is running until it is ended; `said` is told once, then."""

    def __init__(self, name: str, said: Callable[[Phase], None]) -> None:
        self.name = name
        self.started_us = time.time_ns() // 1000
        self.duration_us = 0
        self.nested = False
        """Whether it belongs to a `with` block, which ends it."""
        self._said = said
        self._began = time.monotonic_ns()
        self._ended = False

    def end(self) -> None:
        """End the span; the second call does nothing."""
        if not self._ended:
            self._ended = True
            self.duration_us = (time.monotonic_ns() - self._began) // 1000
            self._said(self)

    def __enter__(self) -> Self:
        self.nested = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
