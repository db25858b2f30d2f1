"""What a gateway counts, in one table, in a registry of its own."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

PUSH_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

LIMITS = (
    "project_bytes_per_s",
    "project_pushes_per_s",
    "project_points_per_s",
    "project_new_names_per_h",
    "project_open_runs",
    "project_in_flight_bytes",
    "in_flight_bytes",
    "run_metric_names",
    "project_artifact_calls",
    "artifact_calls",
    "bus",
)
"""Labels of `limited`: names of limits, and "bus" where the bus itself has no room."""


class Metrics:
    """The gateway's metrics. No label has a project or run in it: their number has no bound."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = self._counter("calls", "Calls answered", "method", "code")
        self.push_seconds = Histogram(
            "runtide_gateway_push_seconds",
            "Time from a Push to its answer",
            buckets=PUSH_SECONDS,
            registry=self.registry,
        )
        self.ranges = self._counter("ranges", "Ranges acknowledged")
        self.records = self._counter("records", "Records in acknowledged ranges")
        self.points = self._counter("points", "Metric values in acknowledged ranges")
        self.bytes = self._counter("bytes", "Bytes of bodies in acknowledged ranges")
        self.gaps = self._counter("gaps", "Declared gaps in acknowledged ranges")
        self.refusals = self._counter("refusals", "Ranges refused for good", "code")
        self.limited = self._counter("limited", "Pushes or ranges that a limit sent away", "limit")
        for limit in LIMITS:
            self.limited.labels(limit)
        self.joined = self._counter("joined", "Ranges that came again while they were under way")
        self.artifact_bytes = self._counter("artifact_bytes", "Bytes of artifacts that came in or went out", "way")
        for way in ("in", "out"):
            self.artifact_bytes.labels(way)
        self.in_flight_bytes = self._gauge("in_flight_bytes", "Bytes taken in and not on the bus yet")
        self.serving = self._gauge("serving", "1 while Pushes are taken")
        self._gauge("tasks", "Tasks of the event loop that serves this page").set_function(_tasks)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"runtide_gateway_{name}", meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(f"runtide_gateway_{name}", meaning, registry=self.registry)


def _tasks() -> float:
    try:
        return float(len(asyncio.all_tasks()))
    except RuntimeError:  # read by a thread without a loop
        return 0.0
