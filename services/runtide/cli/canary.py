"""The canary: a small run, logged for ever on the way that jobs take, that says how long it takes and what is missing.

It logs through the sdk, with a spool and an agent of its own, and looks with SQL whether it arrives. What it finds
stands in its /metrics, and, being logged too, in ClickHouse for `runtide status` and the pages. It says itself that a
beat does not come; that no beats come at all is said by their age (`wire.canary.oldest_s`).
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import logging
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clickhouse_connect.driver.exceptions import ClickHouseError
from prometheus_client import CollectorRegistry, Counter, Gauge

from runtide.cli.demo import agent_ended
from runtide.cli.home import Home
from runtide.cli.parts import start_logging, stop_on_signals, until_told
from runtide.cli.settings import Settings, read_settings
from runtide.gateway.pages import Pages
from runtide.sdk.api import init
from runtide.sdk.run import Run
from runtide.warehouse.client import ClickHouseSettings, Client, connect
from runtide.warehouse.errors import StoreError
from runtide.warehouse.queries import Canary, beat_stored, canary
from runtide.wire import canary as words
from runtide.wire.errors import BadInput

POLL_S = (0.02, 0.5)
"""First and longest wait between two looks whether a beat has come."""
ANSWER_S = 10.0
"""How long ClickHouse may take to answer."""
FINISH_S = 2.0
AGENT_S = 3.0
"""How long the agent may take to ship the last word when the canary stops; what is left goes with the next start."""

log = logging.getLogger("runtide.canary")


class CanaryMetrics:
    """What /metrics shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.beats = Counter(
            "runtide_canary_beats", "Beats, by what became of them", ("became",), registry=self.registry
        )
        self.delay = self._gauge("delay_seconds", "From log() to rows that can be queried, of the last beat that came")
        self.last = self._gauge("last_beat_timestamp_seconds", "When the last beat that came was logged")
        self.agrees = self._gauge("agrees", "1 while all points of a day are stored once or declared")
        self.well = self._gauge("well", "1 while beats come and the points agree: alarm on 0, and on absence")
        self.points = self._gauge("points", "Points of this process, by how far they have come", "hop")
        self.day = self._gauge("day_points", "Points of a day, by what became of them", "became")
        self.records = self._gauge("day_lost_records", "Records of a day that were declared as lost", "declared")

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(f"runtide_canary_{name}", meaning, labels, registry=self.registry)

    def show(self, found: Canary) -> None:
        """What the base tables say."""
        self.agrees.set(found.agrees)
        for name in ("logged", "stored", "lost", "duplicates"):
            self.day.labels(name).set(getattr(found, name))
        for name in ("gaps", "dead"):
            self.records.labels(name).set(getattr(found, name))


@dataclass(frozen=True, slots=True)
class Way:
    """The way that beats go: in at a gateway, out of a ClickHouse."""

    url: str
    token: str
    folder: Path
    """Spool of its own."""
    store: ClickHouseSettings


class Heart:
    """Beats in a thread of its own until it is told to stop."""

    def __init__(self, way: Way, interval_s: float, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since the epoch."""
        self._way, self._interval_s, self._clock = way, interval_s, clock
        self._store = dataclasses.replace(way.store, answer_timeout_s=ANSWER_S)
        self.metrics = CanaryMetrics()
        self.trouble = "no beat yet"
        self._stop = threading.Event()
        self._client: Client | None = None
        self._beat = self._logged = 0

    def stop(self) -> None:
        """Make `run` return soon; may be called from any thread."""
        self._stop.set()

    def run(self) -> None:
        """Beat until told to stop. Blocks."""
        run = init(
            words.PROJECT,
            run_id=f"canary-{socket.gethostname()}".replace("/", "-")[:200],
            resume="allow",
            url=self._way.url,
            token=self._way.token,
            dir=self._way.folder,
            capture_console=False,
        )
        due = time.monotonic()
        while not self._stop.is_set():
            self.beat(run)
            due = max(due + self._interval_s, time.monotonic())
            self._stop.wait(due - time.monotonic())
        run.finish(timeout=FINISH_S)
        until = time.monotonic() + AGENT_S
        while not agent_ended(self._way.folder) and time.monotonic() < until:
            time.sleep(POLL_S[0])
        self._forget_client()

    def beat(self, run: Run) -> None:
        """Log one beat, wait until it can be queried, judge, and log what was found."""
        self._beat += 1
        step = 2 * int(self._clock() % 86_400 / self._interval_s)
        began, at = time.monotonic(), self._clock()
        self._log(run, step, math.nan, math.nan)
        delay, said = self._arrival(run, step, began)
        found, unknown = self._judged()
        if delay is not None:
            self.metrics.delay.set(delay)
            self.metrics.last.set(at)
        if not self._stop.is_set():
            self.metrics.beats.labels("late" if delay is None else "came").inc()
            self._tell(said or unknown or (found.trouble if found else ""))
        self._log(run, step + 1, math.nan if delay is None else delay, float(found.agrees) if found else math.nan)
        self._show_hops(run)

    def _log(self, run: Run, step: int, delay_s: float, agrees: float) -> None:
        self._logged += len(words.METRICS)
        values = (self._beat, self._logged, delay_s, agrees, self._interval_s)
        run.log(dict(zip(words.METRICS, values, strict=True)), step=step)

    def _arrival(self, run: Run, step: int, began: float) -> tuple[float | None, str]:
        """Seconds that it took until the beat could be queried; else None, and why as far as it is known."""
        wait, said = POLL_S[0], ""
        while (waited := time.monotonic() - began) < words.patience_s(self._interval_s):
            try:
                if beat_stored(self._connected(), run.id, run.stream, step, self._beat):
                    return time.monotonic() - began, ""
                said = run.stats().error
            except (ClickHouseError, StoreError, OSError) as error:
                said = self._away(error)
            if self._stop.wait(wait):
                break
            wait = min(1.5 * wait, POLL_S[1])
        return None, f"beat {self._beat} has not come after {waited:.1f} s" + (f": {said}" if said else "")

    def _judged(self) -> tuple[Canary | None, str]:
        try:
            found = canary(self._connected())
        except (ClickHouseError, StoreError, OSError) as error:
            return None, self._away(error)
        if found is not None:
            self.metrics.show(found)
        return found, ""

    def _tell(self, trouble: str) -> None:
        """Say once a beat what is wrong, and once that nothing is any more."""
        self.metrics.well.set(not trouble)
        if trouble:
            log.warning("canary alarm trouble=%s", trouble)
        elif self.trouble:
            log.info("canary is well")
        self.trouble = trouble

    def _show_hops(self, run: Run) -> None:
        stats = run.stats()
        for hop in ("written", "acknowledged", "dropped"):
            self.metrics.points.labels(hop).set(getattr(stats, hop).points)

    def _connected(self) -> Client:
        if self._client is None:
            self._client = connect(self._store)
        return self._client

    def _away(self, error: Exception) -> str:
        self._forget_client()
        return f"ClickHouse: {' '.join(str(error).split())[:200]}"

    def _forget_client(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None


async def serve(way: Way, settings: Settings) -> None:
    """Beat and serve the pages until SIGTERM or SIGINT. Raises BadInput where the port cannot be had."""
    told = settings.canary
    stop = stop_on_signals()
    heart = Heart(way, told.interval_s)
    pages = Pages(heart.metrics.registry, lambda: heart.trouble)
    try:
        await pages.start(told.metrics_host, told.metrics_port)
    except OSError as error:
        raise BadInput(
            "RUNTIDE_CANARY_METRICS_PORT", told.metrics_port, f"it cannot be listened on ({error.strerror})"
        ) from error
    log.info("canary beats url=%s every_s=%g metrics_port=%d", way.url, told.interval_s, pages.port)
    beating = asyncio.create_task(asyncio.to_thread(heart.run), name="canary")
    try:
        await until_told(stop, beating)
    finally:
        heart.stop()
        await asyncio.wait([beating])
        await pages.stop()


def run_canary(way: Way, settings: Settings) -> None:
    """Serve. Blocks. The agent that the sdk starts reads no sensors and goes when it has shipped everything."""
    os.environ.update(
        {"RUNTIDE_SAMPLE_SECONDS": "0", "RUNTIDE_AGENT_LINGER_S": "0.5", "RUNTIDE_SILENT": "1", "RUNTIDE_CAPTURE": "0"}
    )
    for name in ("RUNTIDE_MODE", "RUNTIDE_AGENT"):
        os.environ.pop(name, None)
    start_logging()
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # what is wrong is said once a beat
    asyncio.run(serve(way, settings))


def main(argv: list[str]) -> int:
    """The canary of `runtide up`: read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m runtide.cli.canary", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--url", required=True)
    for name in ("--clickhouse-port", "--metrics-port"):
        parser.add_argument(name, type=int, required=True)
    told = parser.parse_args(argv)
    settings = read_settings(told.home)
    port = {"metrics_host": "127.0.0.1", "metrics_port": told.metrics_port}
    settings = settings.model_copy(update={"canary": settings.canary.model_copy(update=port)})
    store = ClickHouseSettings(host="127.0.0.1", port=told.clickhouse_port)
    run_canary(Way(told.url, settings.canary.token, Home(told.home).canary, store), settings)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
