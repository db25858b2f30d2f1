"""How many points a second go from log() to rows that can be queried and are derived, jobs and all parts included.

    python benchmarks/throughput.py [--kafka HOST:PORT] [--processes 4] [--steps 100000] [--json]

Prints points per second over the whole time from the first log() to the last derived row, and the processor time per
point of every stage.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time

from runtide.testing.waiting import until
from stack import Stack, agents, embedded, kafka, report

METRICS = 10

JOB = f"""
import sys, time, runtide
steps = int(sys.argv[1])
run = runtide.init(project="bench", run_id=sys.argv[2])
values = {{f"train/m{{i}}": i / 7 for i in range({METRICS})}}
began = time.process_time()
for step in range(steps):
    values["train/m0"] = step * 0.5
    run.log(values, step=step)
print(time.process_time() - began)
run.finish(timeout=300)
"""


def measure(stack: Stack, processes: int, steps: int) -> dict[str, object]:
    """Run the jobs against a stack and return the figures."""
    client = stack.client()
    expected = processes * steps * METRICS
    before = stack.cpu_seconds()
    shipping: dict[int, float] = {}
    done = threading.Event()

    def watch_agents() -> None:
        while not done.wait(0.2):
            for process in agents(stack):
                times = process.cpu_times()
                shipping[process.pid] = times.user + times.system

    watcher = threading.Thread(target=watch_agents)
    watcher.start()
    began = time.monotonic()
    jobs = []
    for rank in range(processes):
        env = stack.environment(rank) | {"RANK": str(rank), "WORLD_SIZE": str(processes)}
        command = [sys.executable, "-c", JOB, str(steps), "bench"]
        jobs.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
    outputs = [job.communicate(timeout=900)[0] for job in jobs]
    logged = sum(float(output.split()[-1]) for output in outputs)

    def stored() -> bool:
        return bool(client.query("SELECT count() FROM runtide.points WHERE run_id = 'bench'").first_row[0] >= expected)

    def derived() -> bool:
        query = "SELECT sum(count) FROM runtide.metric_summary WHERE run_id = 'bench' AND rank >= 0"
        return bool(client.query(query).first_row[0] == expected)

    until(stored, 600, "all rows stored")
    to_stored = time.monotonic() - began
    until(derived, 600, "all rows derived")
    to_derived = time.monotonic() - began
    done.set()
    watcher.join()
    figures: dict[str, object] = {
        "processes": processes,
        "points": expected,
        "seconds to stored": round(to_stored, 2),
        "seconds to derived": round(to_derived, 2),
        "points/s to stored": round(expected / to_stored),
        "points/s to derived": round(expected / to_derived),
        "us/point log": round(logged / expected * 1e6, 3),
        "us/point agent": round(sum(shipping.values()) / expected * 1e6, 3),
    }
    for part, spent in stack.cpu_seconds().items():
        figures[f"us/point {part}"] = round((spent - before[part]) / expected * 1e6, 3)
    return figures


def main() -> None:
    """Parse the command line, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kafka", metavar="HOST:PORT", help="measure through this Kafka instead of `runtide up`")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with kafka(arguments.kafka) if arguments.kafka else embedded() as stack:
        report(measure(stack, arguments.processes, arguments.steps), arguments.json)


if __name__ == "__main__":
    main()
