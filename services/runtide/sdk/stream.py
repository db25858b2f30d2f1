"""One process's stream to one run: the lock, the key sets, the steps.

`log` is the hot path: it encodes with one struct call and appends with one write, and makes no protobuf object. All
methods may be called from any thread, and from a signal handler that interrupts one of them.
"""

from __future__ import annotations

import operator
import os
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runtide.spool.writer import Count, KeySetUse, SpoolWriter, Worth
from runtide.v1.records_pb2 import Record, StreamClosed
from runtide.wire import limits
from runtide.wire.errors import BadInput
from runtide.wire.framing import StepEncoder

MAX_PLANS = 20_000
"""Key sets remembered; a job that makes up new names in every step must not grow without bound."""
_KEY_SET_BYTES = limits.RECORD_BYTES - 16 * limits.KIB
_MIN_STEP, _MAX_STEP = -(2**63), 2**63 - 1
_STEP_LIMIT = "a step, and the one after it, fit into 64 bits"


class _Plan:
    """How to write the steps of one set of keys."""

    __slots__ = ("encode", "use")

    def __init__(self, key_set: int, names: tuple[str, ...]) -> None:
        self.use = KeySetUse.of(key_set, names)
        self.encode = StepEncoder(key_set, len(names)).encode


class Stream:
    """Appends what a process says to its stream."""

    def __init__(self, writer: SpoolWriter, opened: Record, next_step: int = 0) -> None:
        """`opened` is the stream's first record, `next_step` the step of a log() that says none."""
        self.writer = writer
        self.pid = os.getpid()
        self.opened_at = time.monotonic()
        self.next_step = next_step
        self._lock = threading.RLock()  # reentrant: a signal handler may log while log() holds it
        self._plans: dict[tuple[str, ...], _Plan] = {}
        self._key_sets = 0
        self._final: Count | None = None
        writer.append_record(opened)

    @property
    def name(self) -> str:
        """The stream's id."""
        return self.writer.folder.name

    def log_known(self, data: Mapping[str, Any], step: int | None) -> bool:
        """Write a step whose keys were seen before and whose values are all numbers; False says that it was not."""
        time_us = time.time_ns() // 1000
        with self._lock:
            at = self.next_step if step is None else step
            try:
                plan = self._plans.get(tuple(data))
                if plan is None:
                    return False
                element = plan.encode(at, time_us, data.values())  # type: ignore[arg-type]  # it unpacks them
            except (struct.error, TypeError, ValueError, OverflowError, RuntimeError, Warning):
                return False
            if at >= _MAX_STEP:
                return False
            self.next_step = at + 1
            self.writer.append_step(element, plan.use)
        return True

    def log(
        self, names: Sequence[str], values: Sequence[float], step: int | None, time_us: int, moves: bool = True
    ) -> None:
        """Write a step of checked names and values, as several Steps where it has too many names for one.

        With `moves=False` the next log() that says no step goes on as if this had not been.
        """
        with self._lock:
            at = self.next_step if step is None else step
            if at >= _MAX_STEP:
                raise BadInput("step", at, _STEP_LIMIT)
            for start, end in _chunks(names):
                plan = self._plan(tuple(names[start:end]))
                self.writer.append_step(plan.encode(at, time_us, list(values[start:end])), plan.use)
            if moves:
                self.next_step = at + 1

    def say(self, record: Record, worth: Worth = Worth.DATA) -> bool:
        """Append any record but a Step. Raises BadInput where it is too large."""
        with self._lock:
            return self.writer.append_record(record, worth)

    def close(self, closed: StreamClosed) -> Count:
        """Say the last word, with what was declared before it, and return that. Only the first call writes."""
        with self._lock:
            if self._final is None:
                self.writer.settle()
                self._final = Count(self.writer.records, self.writer.points)
                closed.records, closed.points = self._final
                self.writer.append_record(Record(stream_closed=closed), Worth.LAST)
                self.writer.close()
                self._plans.clear()  # log_known takes nothing more
            return self._final

    def _plan(self, names: tuple[str, ...]) -> _Plan:
        plan = self._plans.get(names)
        if plan is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            plan = _Plan(self._key_sets + 1, names)
            self._key_sets += 1
            self._plans[names] = plan
        return plan


def as_step(step: Any) -> int:
    """Read a step that a user gave: any whole number that fits 64 bits. Raises BadInput."""
    if isinstance(step, float) and step.is_integer():
        step = int(step)
    try:
        found = operator.index(step)
    except TypeError:
        found = _from_scalar(step)
    if not _MIN_STEP <= found < _MAX_STEP:
        raise BadInput("step", found, _STEP_LIMIT)
    return found


def _from_scalar(step: Any) -> int:
    item = getattr(step, "item", None)
    value = item() if callable(item) else step
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int):
        return value
    raise BadInput("step", repr(step)[:80], "a step is a whole number")


def _chunks(names: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Cut names so that each part fits one key set."""
    start = size = 0
    for at, name in enumerate(names):
        length = len(name.encode()) + 4
        if at - start >= limits.KEY_SET_NAMES or size + length > _KEY_SET_BYTES:
            yield start, at
            start, size = at, 0
        size += length
    if start < len(names):
        yield start, len(names)
