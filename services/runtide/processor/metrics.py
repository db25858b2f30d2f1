"""What a processor remembers, as a collector for whichever registry is served."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from runtide.processor.deriver import Deriver


class ProcessorCollector(Collector):
    """Reads the deriver when it is asked."""

    def __init__(self, deriver: Deriver) -> None:
        self._deriver = deriver

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now."""
        for name, number in self._deriver.remembered.items():
            yield GaugeMetricFamily(
                f"runtide_processor_remembered_{name}", f"How many {name} are in memory: bounded", value=number
            )
