"""How long the page of a run with one series of ten million points takes to open, and how long a refresh takes.

    python benchmarks/page.py [points]

Starts an embedded ClickHouse, fills it and derives. Then each round starts the dashboard and a headless Chromium with a
new profile, and opens the run: as the first visitor ever, again with the browser's cache emptied, and once more with
all of it cached. Open means, counted from the navigation: the chart is drawn and its last step shown.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from runtide.processor.rebuild import rebuild
from runtide.testing import browser, sample_data
from runtide.testing.embedded import start_embedded, stop_embedded
from runtide.warehouse import queries
from runtide.warehouse.client import ClickHouseSettings, connect
from runtide.warehouse.migrate import migrate

_ROUNDS = 8
_CASES = ("first after the start", "empty cache", "warm cache")
_READY = """
const head = document.querySelector('[data-metric="train/loss"] [data-step]');
const plot = document.querySelector('[data-testid="stVegaLiteChart"] canvas, [data-testid="stVegaLiteChart"] svg');
return Boolean(head && plot && plot.getBoundingClientRect().height > 50) && head.getAttribute('data-step');
"""


def main() -> None:
    """Measure and print."""
    points = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    with tempfile.TemporaryDirectory() as folder:
        server = start_embedded(Path(folder) / "home")
        try:
            client = connect(ClickHouseSettings(port=server.port, username="writer", password=server.password))
            migrate(client)
            run = sample_data.SampleRun("long", "long", steps=1, world_size=1, state="running", exit_code=None)
            sample_data.fill(client, (run,))
            began = time.monotonic()
            sample_data.long_series(client, run.project, run.run_id, "train/loss", points)
            print(f"{points:,} points written in {time.monotonic() - began:.1f} s")
            began = time.monotonic()
            rebuild(client, force=True)  # made-up rows do not lie end to end
            print(f"derived in {time.monotonic() - began:.1f} s")
            _queries(server.port, run)
            path = f"/run?project={run.project}&run={run.run_id}&like=train/loss"
            _open(server.port, Path(folder), path, points)
        finally:
            stop_embedded(server)


def _queries(port: int, run: sample_data.SampleRun) -> None:
    reader = connect(ClickHouseSettings(port=port))
    times = []
    for _ in range(10):
        began = time.perf_counter()
        found = [e for e in queries.extents(reader, run.project, run.run_id) if e.metric == "train/loss"]
        table = queries.series(reader, run.project, run.run_id, found, queries.Window(buckets=600))
        times.append(time.perf_counter() - began)
    print(f"extents and series: median {statistics.median(times) * 1000:.0f} ms, {table.num_rows} buckets")
    times = []
    for _ in range(10):
        began = time.perf_counter()
        window = queries.Window(4_999_000, 5_001_000, 600)
        table = queries.series(reader, run.project, run.run_id, found, window)
        times.append(time.perf_counter() - began)
    print(f"2,000 steps in the middle: median {statistics.median(times) * 1000:.0f} ms, {table.num_rows} buckets")


def _open(clickhouse_port: int, folder: Path, path: str, points: int) -> None:
    times: dict[str, list[float]] = {case: [] for case in _CASES}
    loads = []
    for _ in range(_ROUNDS):
        loads.append(os.getloadavg()[0])
        with browser.dashboard(clickhouse_port, folder / "dashboard.log") as address, browser.browser() as driver:
            for case in _CASES:
                driver.get("about:blank")
                if case == "empty cache":
                    driver.execute_cdp_cmd("Network.clearBrowserCache", {})
                times[case].append(_seconds(driver, address + path, points))
    print(f"load before each round: {' '.join(f'{load:.1f}' for load in loads)}")
    for case, seconds in times.items():
        least, usual, most = min(seconds), statistics.median(seconds), max(seconds)
        print(f"open, {case}: least {least:.2f}, median {usual:.2f}, greatest {most:.2f} s of {_ROUNDS}")


def _seconds(driver: Any, address: str, points: int) -> float:
    began = time.monotonic()
    driver.get(address)
    browser.until(lambda: driver.execute_script(_READY) == str(points - 1), 60)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
