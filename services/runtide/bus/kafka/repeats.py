"""A filter for the logs of a chatty library: what repeats is said once in a while, with the number of times.

While brokers are away aiokafka logs ten errors a second for each client; the first one, and one every `every_s`, tell
all that there is to know.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

AIOKAFKA_LOGGERS = (
    "aiokafka",
    "aiokafka.conn",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
    "aiokafka.producer.sender",
)
"""Filters act on the logger that a record is made with, so each of them needs it."""


class Repeats(logging.Filter):
    """Passes the first of equal messages, and then one every `every_s`."""

    def __init__(self, every_s: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_s, self._clock = every_s, clock
        self._seen: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Judge by the message before its values are filled in: those differ by a port or a number."""
        now, template = self._clock(), str(record.msg)
        last, held_back = self._seen.get(template, (-self._every_s, 0))
        if now - last < self._every_s:
            self._seen[template] = (last, held_back + 1)
            return False
        self._seen[template] = (now, 0)
        if held_back:
            record.msg = f"{template} (and {held_back} times since)"
        return True


def quieten(loggers: tuple[str, ...] = AIOKAFKA_LOGGERS) -> None:
    """Put the filter on loggers that do not have it."""
    for name in loggers:
        logger = logging.getLogger(name)
        if not any(isinstance(each, Repeats) for each in logger.filters):
            logger.addFilter(Repeats())
