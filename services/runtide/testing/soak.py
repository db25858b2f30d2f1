"""Many short runs and a long one for as long as is asked, while what each part holds is read every few seconds.

Promises nothing by itself: it gives the figures (memory, files, threads, tasks, what is remembered of streams and runs)
and what of the runs is not stored once, for a benchmark to print and a test to judge.
"""

from __future__ import annotations

import random
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil

from runtide.testing.stack import Stack, left_of
from runtide.testing.waiting import until
from runtide.warehouse.client import ClickHouseSettings, connect
from runtide.warehouse.verify import verify_run

PROJECT = "soak"
STEPS = 20
METRICS = 5
LONG_STEPS_PER_S = 50.0
STORED_S = 120.0
"""How long all may take to be stored and derived at the end."""
PARTS = {"runtide.embedded": "clickhouse", "runtide.cli.ingest": "ingest", "runtide.agent": "agent"}
"""Modules by which the processes of a stack are told apart."""
GAUGES = re.compile(r"^(runtide_gateway_tasks|runtide_\w+_remembered_\w+) (\S+)$", re.MULTILINE)

SHORT = f"""
import sys, time, runtide
name, pause, stop = sys.argv[1], float(sys.argv[2]), False
import signal
def told(*_):
    global stop
    stop = True
signal.signal(signal.SIGTERM, told)
began, number = time.monotonic(), 0
while not stop:
    run = runtide.init("{PROJECT}", run_id=f"{{name}}-{{number:07d}}", capture_console=False)
    for step in range({STEPS}):
        run.log({{f"train/m{{k}}": step + k / 16 for k in range({METRICS})}}, step=step)
    run.finish(timeout=0)
    number += 1
    time.sleep(max(0.0, began + number * pause - time.monotonic()))
print(number)
"""
LONG = f"""
import signal, time, runtide
stop = False
def told(*_):
    global stop
    stop = True
signal.signal(signal.SIGTERM, told)
run = runtide.init("{PROJECT}", run_id="long", capture_console=False)
began, step = time.monotonic(), 0
while not stop:
    run.log({{f"train/m{{k}}": step + k / 16 for k in range({METRICS})}}, step=step)
    step += 1
    time.sleep(max(0.0, began + step / {LONG_STEPS_PER_S} - time.monotonic()))
print(step)
run.finish(timeout=0)
"""


@dataclass(frozen=True, slots=True)
class Reading:
    """One part at one time."""

    at_s: float
    mib: float
    files: int
    threads: int


@dataclass
class Outcome:
    """What was read, and how it ended."""

    readings: dict[str, list[Reading]] = field(default_factory=dict)
    remembered: dict[str, list[float]] = field(default_factory=dict)
    """Gauges of the ingest part."""
    runs: int = 0
    points: int = 0
    seconds: float = 0.0
    lag_s: float = 0.0
    """From the end of the last job until all is stored and derived."""
    problems: list[str] = field(default_factory=list)

    def slope(self, part: str, warm_s: float) -> float:
        """MiB an hour by least squares, of what was read after `warm_s`."""
        rows = [row for row in self.readings[part] if row.at_s >= warm_s]
        return 3600 * slope([row.at_s for row in rows], [row.mib for row in rows])


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Of the line with the least squares; 0 for fewer than two points."""
    if len(xs) < 2:
        return 0.0
    x_mean, y_mean = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - x_mean) ** 2 for x in xs)
    return sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, ys, strict=True)) / spread


class Soak:
    """A soak of a stack that is up."""

    def __init__(self, stack: Stack, runs_per_minute: float, workers: int = 4, every_s: float = 5.0) -> None:
        """`workers` processes open the short runs, one after the other."""
        self._stack, self._workers, self._every_s = stack, workers, every_s
        self._pause_s = 60.0 * workers / runs_per_minute
        self._outcome = Outcome()

    def run(self, seconds: float) -> Outcome:
        """Soak for so long, wait until all is in, and judge. Blocks."""
        short = [self._stack.job(SHORT, f"short{k}", str(self._pause_s)) for k in range(self._workers)]
        long = self._stack.job(LONG)
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            self._read(now, {"short runs": short, "long run": [long]})
            time.sleep(min(self._every_s, max(0.0, seconds - now)))
        for job in (*short, long):
            job.send_signal(signal.SIGTERM)
        said = [int(job.communicate(timeout=60)[0]) for job in (*short, long)]
        self._outcome.seconds = time.monotonic() - began
        self._outcome.runs = sum(said[:-1])
        self._outcome.points = METRICS * (STEPS * self._outcome.runs + said[-1])
        self._settle(said[-1])
        return self._outcome

    def _read(self, now: float, jobs: dict[str, list[subprocess.Popen[str]]]) -> None:
        found = {name: [psutil.Process(job.pid) for job in of] for name, of in jobs.items()}
        for process in left_of(self._stack.home):
            words = _words(process)
            for module, part in PARTS.items():
                if module in words:
                    found.setdefault(part, []).append(process)
        for part, processes in found.items():
            reading = _reading(now, processes)
            if reading is not None:
                self._outcome.readings.setdefault(part, []).append(reading)
        url = f"http://127.0.0.1:{self._stack.state.ports.metrics}/metrics"
        with urllib.request.urlopen(url, timeout=10) as reply:
            for name, value in GAUGES.findall(reply.read().decode()):
                self._outcome.remembered.setdefault(name, []).append(float(value))

    def _settle(self, long_steps: int) -> None:
        """Wait until everything is stored and derived, then say what is not there once."""
        began, runs = time.monotonic(), self._outcome.runs + 1
        wanted = [(runs, runs, self._outcome.points)]
        sql = f"""SELECT (SELECT count() FROM runs WHERE project = '{PROJECT}' AND state = 'finished'),
            uniqExact(run_id), sum(count) FROM metric_summary WHERE project = '{PROJECT}' AND rank = 0"""
        try:
            until(lambda: self._stack.sql(sql) == wanted, STORED_S, "all is stored and derived")
        except AssertionError:
            self._outcome.problems.append(f"runs finished, runs, points: {self._stack.sql(sql)}, wanted {wanted}")
        self._outcome.lag_s = time.monotonic() - began
        self._stack.wait_agent(60)
        expected = f"if(run_id = 'long', {long_steps * METRICS}, {STEPS * METRICS})"
        for run_id, rows, apart in self._stack.sql(
            f"SELECT run_id, count(), uniqExact(stream, offset, metric) FROM points WHERE project = '{PROJECT}' "
            f"GROUP BY run_id HAVING count() != {expected} OR uniqExact(stream, offset, metric) != {expected} LIMIT 20"
        ):
            self._outcome.problems.append(f"run {run_id}: {rows} rows of points, {apart} distinct")

    def verify(self, most: int = 20) -> None:
        """Verify the long run and some of the short ones."""
        client = connect(ClickHouseSettings(port=self._stack.state.ports.clickhouse))
        short = self._stack.sql(f"SELECT run_id FROM runs WHERE project = '{PROJECT}' AND run_id != 'long'")
        for (run,) in [("long",), *random.sample(short, min(most, len(short)))]:
            self._outcome.problems += verify_run(client, PROJECT, run).problems
        client.close()


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _reading(now: float, processes: Sequence[psutil.Process]) -> Reading | None:
    """All of them together; None where one has just ended."""
    try:
        return Reading(
            now,
            sum(process.memory_info().rss for process in processes) / 2**20,
            sum(process.num_fds() for process in processes),
            sum(process.num_threads() for process in processes),
        )
    except psutil.NoSuchProcess:
        return None
