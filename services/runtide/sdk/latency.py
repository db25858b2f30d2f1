"""How long things take: each time is counted in the job, and what percentiles say is logged as metrics.

Promises: one time costs about a microsecond and no record; memory does not grow with the number of times: at most
1,800 counts for each name; percentiles are off by at most 1 %. A job that is killed loses what was not logged yet: the
times of the last `EVERY_SECONDS`.
"""

from __future__ import annotations

import math
import threading
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

from runtide.sdk import values
from runtide.sdk.speaking import Speaker
from runtide.wire.errors import BadInput

EVERY_SECONDS = 10.0
PERCENTILES = (50, 95, 99)
NAMES = 1000
"""A job that makes up new names must not grow without bound."""
_GROWTH = 1.02
"""Each bucket ends so much later than it begins; the middle is off from its edges by less than 1 %."""
_SCALE = 1.0 / math.log(_GROWTH)
_LEAST, _MOST = 1e-9, 1e6
"""Seconds; what is shorter or longer counts as that."""


class Histogram:
    """Counts of times in buckets that grow with them."""

    __slots__ = ("count", "counts")

    def __init__(self) -> None:
        """No times yet."""
        self.counts: Counter[int] = Counter()
        self.count = 0

    def add(self, seconds: float) -> None:
        """Count a time."""
        self.counts[math.floor(math.log(min(max(seconds, _LEAST), _MOST)) * _SCALE)] += 1
        self.count += 1

    def merge(self, other: Histogram) -> None:
        """Count all of another one's times too."""
        self.counts.update(other.counts)
        self.count += other.count

    def percentiles(self, wanted: tuple[int, ...] = PERCENTILES) -> Iterator[tuple[int, float]]:
        """Each percentile and its seconds: the least time that so many of all do not exceed."""
        ordered = sorted(self.counts.items())
        for percent in wanted:
            left = math.ceil(self.count * percent / 100)
            for bucket, count in ordered:
                left -= count
                if left <= 0:
                    yield percent, _middle(bucket)
                    break

    def metrics(self) -> dict[str, float]:
        """What is logged of it."""
        return {f"p{percent}": seconds for percent, seconds in self.percentiles()} | {"count": float(self.count)}


def _middle(bucket: int) -> float:
    """Equally far from both edges of a bucket, in proportion to them."""
    return float(2 * _GROWTH**bucket * _GROWTH / (1 + _GROWTH))


class Latency:
    """The times of one name. Not locked."""

    __slots__ = ("all", "due", "new", "shown", "step")

    def __init__(self, now: float) -> None:
        """No times yet; the first are due after `EVERY_SECONDS`."""
        self.new, self.shown, self.all = Histogram(), Histogram(), Histogram()
        self.due = now + EVERY_SECONDS
        self.step: int | None = None
        """The step that `shown` was logged at."""

    def window(self, step: int | None) -> tuple[int, dict[str, float]]:
        """What is to be logged now, and at which step: without steps the number of times so far takes their place.

        At a step that has its percentiles already they are said again, of all times since the step before.
        """
        self.all.merge(self.new)
        at = self.all.count if step is None else step
        if at == self.step:
            self.shown.merge(self.new)
        else:
            self.shown = self.new
        self.new, self.step = Histogram(), at
        return at, self.shown.metrics()


class Latencies(Speaker):
    """The part of a run that measures how long things take."""

    _latencies: dict[str, Latency]
    _latency_lock: threading.RLock
    """Held for counting only, never while anything is written."""

    def log_latency(self, name: str, seconds: float) -> None:
        """Count how long something took.

        Every 10 s and at the end of the run the times since then are logged as metrics: NAME/p50, NAME/p95, NAME/p99 in
        seconds, off by at most 1 %, and NAME/count, at the last step that was logged; in a run without steps at the
        number of times so far. The run's summary has them over all times.
        """
        try:
            self._count_latency(name, seconds)
        except Exception as error:
            self._guard(_raise, error)

    def latency(self, name: str) -> Timer:
        """Time a `with` block, as `log_latency` does; a block that raises is not counted."""
        return Timer(lambda seconds: self.log_latency(name, seconds))

    def _count_latency(self, name: str, seconds: Any) -> None:
        if self._disabled:
            return
        found = seconds if type(seconds) is float else _seconds(seconds)
        if not 0 <= found < math.inf:
            raise BadInput("seconds", found, "a time is a finite number from 0 on")
        now, due = time.monotonic(), None
        with self._latency_lock:
            one = self._latencies.get(name) or self._new_latency(name, now)
            one.new.add(found)
            if now >= one.due:
                one.due = now + EVERY_SECONDS
                due = one.window(self._step_now())
        if due is not None:
            self._show_latency(name, *due)

    def _new_latency(self, name: str, now: float) -> Latency:
        if problem := values.name_problem("a metric", name):
            raise problem
        if len(self._latencies) >= NAMES:
            raise BadInput(f"latency {name[:60]!r}", "under one name more", f"a process has at most {NAMES}")
        one = self._latencies[name] = Latency(now)
        return one

    def _show_latency(self, name: str, step: int, shown: dict[str, float]) -> None:
        self._log_beside({f"{name}/{part}": value for part, value in shown.items()}, step)

    def _end_latencies(self) -> None:
        """Log what is left, and what all times of the run say."""
        with self._latency_lock:
            latencies, self._latencies = self._latencies, {}
        for name, one in latencies.items():
            if one.new.count:
                self._show_latency(name, *one.window(self._step_now()))
            self._sum_up({f"{name}/{part}": value for part, value in one.all.metrics().items()})

    @abstractmethod
    def _step_now(self) -> int | None:
        """The last step that was logged; None where there is none."""

    @abstractmethod
    def _log_beside(self, metrics: dict[str, float], step: int) -> None:
        """Log at a step without moving on from where log() is."""

    @abstractmethod
    def _sum_up(self, figures: dict[str, float]) -> None:
        """Put figures into the run's summary."""


class Timer:
    """Measures one `with` block; the seconds go to `told`."""

    __slots__ = ("_began", "_told")

    def __init__(self, told: Callable[[float], object]) -> None:
        """Nothing is measured yet."""
        self._told, self._began = told, 0.0

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._told(time.perf_counter() - self._began)


def _seconds(given: Any) -> float:
    try:
        return values.number(given)
    except values.NotANumber as error:
        raise BadInput("seconds", str(error), "a time is a number of seconds") from error


def _raise(error: Exception) -> None:
    raise error
