"""What a sink counts, as a collector for whichever registry is served."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from runtide.sink.sink import Sink

_COUNTED = {
    "flushes": "Flushes stored",
    "records": "Records stored",
    "points": "Points stored",
    "duplicate_ranges": "Ranges of which everything was stored already",
    "dead": "Dead letters",
    "gaps": "Declared losses",
    "recalls": "Streams read back from ledger and tables",
    "retries": "Flushes begun anew after an unknown result",
}


class SinkCollector(Collector):
    """Reads the sink when it is asked."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now."""
        counters = self._sink.stats
        for name, meaning in _COUNTED.items():
            yield CounterMetricFamily(f"runtide_sink_{name}", meaning, value=getattr(counters, name))
        yield GaugeMetricFamily(
            "runtide_sink_stopped_partitions",
            "Partitions that are stopped: a person has to look at /readyz, which says why",
            value=self._sink.stopped_partitions,
        )
        yield GaugeMetricFamily(
            "runtide_sink_remembered_streams", "How many streams are in memory: bounded", value=self._sink.remembered
        )
