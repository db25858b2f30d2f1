"""Every limit that a gateway enforces, in one table, and the rates of a project. Each gateway counts for itself.

The sizes are the wire's: an sdk or agent that keeps to `wire.limits` never meets them. The rates are the operator's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass

from runtide.wire import limits as wire
from runtide.wire.errors import BadInput, Busy

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
    project_points_per_s: int = 1_000_000
    """Metric values of one project, by this gateway."""
    project_new_names_per_h: int = 200_000
    """Metric names that are new to their run, of all runs of one project, by this gateway."""
    project_open_runs: int = 5000
    """Runs of one project of which this gateway took something within the last minute."""
    run_metric_names: int = wire.RUN_METRIC_NAMES
    """Distinct metric names of one run that this gateway has seen."""
    burst_s: int = 2
    """A project that was silent may send this many seconds of its rates at once."""
    in_flight_bytes: int = 64 * wire.MIB
    """Bodies that were taken in and are not on the bus yet."""
    project_in_flight_bytes: int = 16 * wire.MIB
    """Those of one project."""
    artifact_bytes: int = 50 * 1024 * wire.MIB
    """One file of an artifact."""
    project_artifact_calls: int = 8
    """Uploads and downloads of one project at once, by this gateway."""
    artifact_calls: int = 32
    """Those of all projects; each may hold a part of 8 MiB in memory."""
    concurrent_calls: int = 2048
    """Calls at once; gRPC itself refuses more."""

    def __post_init__(self) -> None:
        """Raises BadInput for a limit that would let nothing pass, or that a rate cannot be divided by."""
        for name, value in self.table().items():
            if value < 1:
                raise BadInput(f"limit {name}", value, "it must be at least 1")

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


class OverLimit(Busy):
    """A limit of a project is met for now. Says which, whose, what was asked for and what to do."""

    def __init__(self, limit: str, most: int, project: str, value: str, wait_s: float) -> None:
        super().__init__(over(limit, most, project, value, wait_s), wait_s)
        self.limit = limit


def over(limit: str, most: int, project: str, value: str, wait_s: float) -> str:
    """What is said where a limit is met: the agent keeps what it has and comes again, a person may raise the limit."""
    what_to_do = f"raise it with RUNTIDE_GATEWAY_LIMITS='{{\"{limit}\": N}}' or send less"
    return f"{limit}: {value} of project {project!r}, limit {most}; wait {wait_s:.3g} s, nothing is lost; {what_to_do}"


@dataclass(slots=True)
class _Buckets:
    """What one project has left."""

    bytes: Bucket
    pushes: Bucket
    points: Bucket
    names: Bucket


class Rates:
    """What every project sends in a second, or an hour."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits, self._clock = limits, clock
        self._projects: OrderedDict[str, _Buckets] = OrderedDict()

    def charge(self, project: str, size: int) -> None:
        """Count one Push of `size` bytes. Raises OverLimit with the delay, and counts nothing, where it is too much.

        How many points it has is known only when it was looked through. So a project that has sent more of them than it
        may is refused until it has made up for that, before anything is spent on its Push.
        """
        now, limits = self._clock(), self._limits
        has = self._buckets(project, now)
        if wait := has.bytes.missing_s(size, now):
            raise OverLimit("project_bytes_per_s", limits.project_bytes_per_s, project, f"a Push of {size} bytes", wait)
        if wait := has.pushes.missing_s(1, now):
            raise OverLimit("project_pushes_per_s", limits.project_pushes_per_s, project, "one Push more", wait)
        if wait := has.points.missing_s(1, now):
            raise OverLimit("project_points_per_s", limits.project_points_per_s, project, "more points", wait)
        has.bytes.take(size)
        has.pushes.take(1)

    def spent(self, project: str, points: int) -> None:
        """Count points that were taken in, if more than there was room for."""
        self._buckets(project, self._clock()).points.take(points)

    def names(self, project: str, count: int) -> float:
        """Count new names and return 0; where they are too many, count nothing and return how long to wait."""
        now = self._clock()
        has = self._buckets(project, now).names
        wait = has.missing_s(count, now)
        if not wait:
            has.take(count)
        return wait

    def _buckets(self, project: str, now: float) -> _Buckets:
        found = self._projects.get(project)
        if found is None:
            limits, burst = self._limits, self._limits.burst_s
            found = _Buckets(
                Bucket(limits.project_bytes_per_s, limits.project_bytes_per_s * burst, now),
                Bucket(limits.project_pushes_per_s, limits.project_pushes_per_s * burst, now),
                Bucket(limits.project_points_per_s, limits.project_points_per_s * burst, now),
                Bucket(limits.project_new_names_per_h / 3600, limits.project_new_names_per_h, now),
            )
            self._projects[project] = found
            if len(self._projects) > PROJECTS_REMEMBERED:
                self._projects.popitem(last=False)
        self._projects.move_to_end(project)
        return found
