"""ClickHouse away for minutes while jobs go on at 20,000 points a second, through `runtide up`.

    python benchmarks/outage.py [--seconds 600] [--processes 4] [--rate 500] [--json]

The engine is stopped (SIGSTOP) after ten seconds and goes on `--seconds` later; the jobs log all the while and ten
seconds more. Prints the most memory that each part had before, meanwhile and afterwards, the slowest call of log(), how
long it took until everything was in, and what verify says.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import threading
import time

import psutil
from runtide.testing.waiting import until
from stack import Stack, agents, embedded, report

METRICS = 10
RUN = "outage"
EDGE_S = 10.0
"""Time under load before and after."""

JOB = f"""
import json, sys, time, runtide
rate, seconds = float(sys.argv[1]), float(sys.argv[2])
run = runtide.init("bench", run_id="{RUN}")
began, step, slowest = time.monotonic(), 0, 0.0
while (now := time.monotonic()) - began < seconds:
    run.log({{f"train/m{{k}}": step + k / 16 for k in range({METRICS})}}, step=step)
    slowest = max(slowest, time.monotonic() - now)
    step += 1
    time.sleep(max(0.0, began + step / rate - time.monotonic()))
print(json.dumps([step, slowest]))
run.finish(timeout=0)
"""


class Memory(threading.Thread):
    """Looks at the memory of every part twice a second, and keeps the most."""

    def __init__(self, stack: Stack, jobs: list[subprocess.Popen[str]]) -> None:
        super().__init__(daemon=True)
        self._stack, self._jobs = stack, jobs
        self.most: dict[str, dict[str, float]] = {}
        self.phase = "before"
        self.over = threading.Event()

    def run(self) -> None:
        """Until `over`."""
        while not self.over.wait(0.5):
            parts = {name: processes for name, processes in self._stack.parts.items() if name != "clickhouse"}
            parts["agent"] = agents(self._stack)
            parts["job"] = [psutil.Process(job.pid) for job in self._jobs if job.poll() is None]
            most = self.most.setdefault(self.phase, {})
            for name, processes in parts.items():
                for process in processes:
                    try:
                        size = process.memory_info().rss / 2**20
                    except psutil.NoSuchProcess:
                        continue
                    most[name] = max(most.get(name, 0.0), size)


def measure(stack: Stack, seconds: float, processes: int, rate: float) -> dict[str, object]:
    """Run it and return the figures."""
    client = stack.client()
    jobs = []
    for rank in range(processes):
        env = stack.environment() | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        command = [sys.executable, "-c", JOB, str(rate), str(seconds + 2 * EDGE_S)]
        jobs.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
    memory = Memory(stack, jobs)
    memory.start()
    time.sleep(EDGE_S)
    memory.phase = "meanwhile"
    store = stack.parts["clickhouse"][0]
    store.send_signal(signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        store.send_signal(signal.SIGCONT)
    memory.phase = "afterwards"
    back = time.monotonic()
    said = [json.loads(job.communicate()[0]) for job in jobs]
    expected = METRICS * sum(steps for steps, _ in said)

    def stored() -> int:
        return int(client.query(f"SELECT sum(points) FROM runtide.ledger FINAL WHERE run_id = '{RUN}'").first_row[0])

    until(lambda: stored() >= expected, 1200, "all points stored")
    caught_up = time.monotonic() - back
    until(lambda: not agents(stack), 120, "the agent has ended")
    memory.over.set()
    memory.join()
    verify = [sys.executable, "-m", "runtide.cli", "verify", RUN, "--home", str(stack.home)]
    judged = subprocess.run(verify, capture_output=True, text=True, check=False)
    figures: dict[str, object] = {
        "seconds away": seconds,
        "points": expected,
        "points/s": round(expected / (seconds + 2 * EDGE_S)),
        "exit codes of the jobs": sorted({job.returncode for job in jobs}),
        "slowest log() ms": round(1000 * max(slowest for _, slowest in said), 1),
        "seconds until all is in, from its return": round(caught_up, 1),
        "verify": judged.stdout.strip().splitlines()[-1] if judged.stdout else judged.stderr,
    }
    for phase, parts in memory.most.items():
        for name, size in sorted(parts.items()):
            figures[f"MiB {phase}, {name}"] = round(size)
    return figures


def main() -> None:
    """Parse the command line, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--rate", type=float, default=500, help="steps a second of each process")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with embedded() as stack:
        report(measure(stack, arguments.seconds, arguments.processes, arguments.rate), arguments.json)


if __name__ == "__main__":
    main()
