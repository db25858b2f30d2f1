"""Watches how far the sinks are behind Kafka's retention: metrics, warnings, and lines of `runtide status`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from runtide.bus.kafka import KafkaSettings
from runtide.bus.kafka.lag import Lag, measure
from runtide.wire.errors import Unavailable

log = logging.getLogger("runtide.sink")

LOOK_EVERY_S = 30.0
WARN_AGAIN_S = 600.0


class LagWatch(Collector):
    """Measures while its task runs; tells what it found last."""

    def __init__(
        self, kafka: KafkaSettings, every_s: float = LOOK_EVERY_S, clock: Callable[[], float] = time.time
    ) -> None:
        self._kafka, self._every_s, self._clock = kafka, every_s, clock
        self.lags: Sequence[Lag] = ()
        self._warned: dict[int, float] = {}

    async def run(self) -> None:
        """Measure for ever. Brokers that are away are the consumer's to tell of."""
        while True:
            try:
                self.lags = await measure(self._kafka, self._clock)
            except Unavailable as error:
                log.info("lag_not_known error=%s", error)
            self._warn(asyncio.get_running_loop().time())
            await asyncio.sleep(self._every_s)

    def _warn(self, now: float) -> None:
        for lag in self.lags:
            if not lag.alarm:
                self._warned.pop(lag.partition, None)
            elif now - self._warned.get(lag.partition, -WARN_AGAIN_S) >= WARN_AGAIN_S:
                self._warned[lag.partition] = now
                log.warning("lag %s", lag.alarm)

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they were measured last."""
        for name, meaning, value in (
            ("seconds", "Age of the oldest message that is not stored", lambda lag: lag.seconds),
            ("messages", "Messages that are not stored", lambda lag: lag.messages),
            ("retention_share", "That age as a share of the topic's retention; at 1 messages are lost", _share),
            ("deleted_messages", "Messages that retention deleted before they were stored", _deleted),
        ):
            family = GaugeMetricFamily(f"runtide_sink_lag_{name}", meaning, labels=["partition"])
            for lag in self.lags:
                if (known := value(lag)) is not None:
                    family.add_metric([str(lag.partition)], known)
            yield family


def _share(lag: Lag) -> float | None:
    return lag.share


def _deleted(lag: Lag) -> float:
    return max(0, lag.first - lag.wanted)


def read_lag(kafka: KafkaSettings) -> dict[str, Any]:
    """What `runtide status` says of Kafka, as plain values."""
    try:
        lags = asyncio.run(measure(kafka))
    except Unavailable as error:
        return {"partitions": [], "alarms": [], "error": str(error)}
    return {
        "partitions": [
            {
                "partition": lag.partition,
                "messages": lag.messages,
                "oldest_s": None if lag.seconds is None else round(lag.seconds, 1),
                "retention_share": None if lag.share is None else round(lag.share, 3),
            }
            for lag in lags
        ],
        "alarms": [lag.alarm for lag in lags if lag.alarm],
        "error": "",
    }
