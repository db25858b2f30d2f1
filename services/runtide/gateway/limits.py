"""Every limit that a gateway enforces, in one table, and the rates of a project.

The sizes are the wire's: an sdk or agent that keeps to `wire.limits` never meets them. The rates are the operator's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass

from runtide.wire import limits as wire
from runtide.wire.errors import Busy

PROJECTS_REMEMBERED = 10_000
"""Projects whose rates are remembered; the longest silent one is forgotten first, and then has its whole burst."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one gateway takes. Preflight tells all of it to whoever asks."""

    record_bytes: int = wire.RECORD_BYTES
    """One record."""
    batch_bytes: int = wire.BATCH_BYTES
    """The body of one range."""
    range_bytes: int = 1000 * wire.KIB
    """One range with its key sets: what stands on the bus as one message, and Kafka's default there is 1 MiB."""
    push_bytes: int = wire.PUSH_BYTES + wire.RECORD_BYTES
    """All bodies of one Push; an agent that fills one up may end it with a large record."""
    push_ranges: int = wire.PUSH_RANGES
    """Ranges, and so streams, of one Push."""
    push_envelope_bytes: int = wire.MIB
    """What one Push may have beside its bodies."""
    identity_bytes: int = wire.IDENTITY_BYTES
    """A project, run id, stream id or host name."""
    key_set_names: int = wire.KEY_SET_NAMES
    """Metric names of one key set."""
    name_bytes: int = wire.NAME_BYTES
    """One metric name."""
    status_streams: int = 1024
    """Streams of one Status."""
    project_bytes_per_s: int = 128 * wire.MIB
    """Bodies of one project, by this gateway."""
    project_pushes_per_s: int = 2000
    """Pushes of one project, by this gateway."""
    burst_s: int = 2
    """A project that was silent may send this many seconds of its rates at once."""
    in_flight_bytes: int = 64 * wire.MIB
    """Bodies that were taken in and are not on the bus yet."""
    concurrent_calls: int = 2048
    """Calls at once; gRPC itself refuses more."""

    def table(self) -> dict[str, int]:
        """Names and values, as Preflight tells them."""
        return asdict(self)


class Bucket:
    """A token bucket: fills at `rate` per second up to `burst`."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._level, self._at = burst, now

    def missing_s(self, amount: float, now: float) -> float:
        """How long until `amount` is there; 0 if it is. More than a burst never is, so a full bucket is enough."""
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
        return max(0.0, (min(amount, self._burst) - self._level) / self._rate)

    def take(self, amount: float) -> None:
        """Take out; the level may fall below 0 and has to be waited for."""
        self._level -= amount


class Rates:
    """Bytes and Pushes per second of every project."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits, self._clock = limits, clock
        self._projects: OrderedDict[str, tuple[Bucket, Bucket]] = OrderedDict()

    def charge(self, project: str, size: int) -> None:
        """Count one Push of `size` bytes. Raises Busy with the delay, and counts nothing, where it is too much."""
        now = self._clock()
        size_bucket, push_bucket = self._buckets(project, now)
        limits = self._limits
        if wait := size_bucket.missing_s(size, now):
            raise _too_much("project_bytes_per_s", f"a Push of {size} bytes", limits.project_bytes_per_s, project, wait)
        if wait := push_bucket.missing_s(1, now):
            raise _too_much("project_pushes_per_s", "one Push more", limits.project_pushes_per_s, project, wait)
        size_bucket.take(size)
        push_bucket.take(1)

    def _buckets(self, project: str, now: float) -> tuple[Bucket, Bucket]:
        found = self._projects.get(project)
        if found is None:
            rates = (self._limits.project_bytes_per_s, self._limits.project_pushes_per_s)
            bytes_rate, push_rate = rates
            burst = self._limits.burst_s
            found = Bucket(bytes_rate, bytes_rate * burst, now), Bucket(push_rate, push_rate * burst, now)
            self._projects[project] = found
            if len(self._projects) > PROJECTS_REMEMBERED:
                self._projects.popitem(last=False)
        self._projects.move_to_end(project)
        return found


def _too_much(field: str, value: str, limit: int, project: str, wait_s: float) -> Busy:
    return Busy(f"{field}: {value} of project {project!r} is over its limit of {limit}", wait_s)
