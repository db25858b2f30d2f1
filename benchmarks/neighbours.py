"""What a project that floods does to the delay of another one, through `runtide up`.

    python benchmarks/neighbours.py [--seconds 20] [--processes 4] [--flood 400000] [--limit 50000] [--json]

Project quiet logs the time ten times a second and a client asks the view metrics for it without pause, as delay.py
does: first alone, then while the processes of project loud log `--flood` points a second together, which is far over
what the gateway takes of one project (`--limit`; 0 leaves the default). The two projects have spools and agents of
their own, as on two machines. Prints both distributions and their ratio, and what loud was told.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from stack import Stack, embedded, report

QUIET = """
import sys, time, runtide
run = runtide.init(project="quiet", run_id=sys.argv[1])
end = time.time() + float(sys.argv[2])
while time.time() < end:
    run.log({"now": time.time()})
    time.sleep(0.1)
run.finish()
"""

LOUD = """
import sys, time, runtide
rate = float(sys.argv[1])
run = runtide.init(project="loud", run_id="flood")
values = {f"train/m{k}": k / 7 for k in range(10)}
began, step = time.monotonic(), 0
while True:
    for _ in range(50):
        values["train/m0"] = step * 0.5
        run.log(values, step=step)
        step += 1
    time.sleep(max(0.0, began + step * 10 / rate - time.monotonic()))
"""

QUESTION = "SELECT step, value FROM runtide.metrics WHERE run_id = {run:String} AND step > {seen:Int64} ORDER BY step"


def delays(stack: Stack, run: str, seconds: float) -> list[float]:
    """Milliseconds from log() to SQL of the values of one run of project quiet."""
    client = stack.client()
    env = stack.environment() | {"RUNTIDE_DIR": str(stack.home / "quiet")}
    job = subprocess.Popen([sys.executable, "-c", QUIET, run, str(seconds)], env=env)
    seen, found = -1, []
    while job.poll() is None:
        rows = client.query(QUESTION, parameters={"run": run, "seen": seen}).result_rows
        now = time.time()
        if rows and seen >= 0:
            found.extend((now - value) * 1e3 for _, value in rows)
        if rows:
            seen = rows[-1][0]
        time.sleep(0.01)
    return sorted(found)


def measure(stack: Stack, seconds: float, processes: int, flood: float) -> dict[str, object]:
    """Return both distributions, and what was stored and refused of project loud."""
    delays(stack, "warm", 3)
    alone = delays(stack, "alone", seconds)
    jobs = []
    for rank in range(processes):
        env = stack.environment() | {
            "RUNTIDE_DIR": str(stack.home / "loud"),
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
        }
        env["WORLD_SIZE"] = str(processes)
        jobs.append(subprocess.Popen([sys.executable, "-c", LOUD, str(flood / processes)], env=env))
    try:
        time.sleep(5)  # its burst is over, and the flood is on
        client = stack.client()
        count = "SELECT sum(points) FROM runtide.ledger FINAL WHERE project = 'loud'"
        before, began = client.query(count).first_row[0], time.monotonic()
        beside = delays(stack, "beside", seconds)
        stored = (client.query(count).first_row[0] - before) / (time.monotonic() - began)
    finally:
        for job in jobs:
            job.kill()
            job.wait()
    figures: dict[str, object] = {"points/s stored of loud": round(stored)}
    for name, of in (("median", statistics.median), ("p95", lambda ordered: ordered[int(len(ordered) * 0.95)])):
        first, second = of(alone), of(beside)
        figures[f"delay ms {name} alone"] = round(first)
        figures[f"delay ms {name} beside the flood"] = round(second)
        figures[f"ratio {name}"] = round(second / first, 2)
    return figures | {"values": (len(alone), len(beside))}


def main() -> None:
    """Parse the command line, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--flood", type=float, default=400_000, help="points a second that loud logs")
    parser.add_argument("--limit", type=int, default=50_000, help="points a second that the gateway takes of a project")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.limit:
        os.environ["RUNTIDE_GATEWAY_LIMITS"] = json.dumps({"project_points_per_s": arguments.limit})
    with embedded() as stack:
        report(measure(stack, arguments.seconds, arguments.processes, arguments.flood), arguments.json)


if __name__ == "__main__":
    main()
