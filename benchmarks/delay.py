"""How long a value takes from log() to SQL at light load.

    python benchmarks/delay.py [--kafka HOST:PORT] [--seconds 20] [--json]

A job logs the time ten times a second; a client asks the view metrics for the highest step without pause.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from stack import Stack, embedded, kafka, report

JOB = """
import sys, time, runtide
run = runtide.init(project="bench", run_id="delay")
end = time.time() + float(sys.argv[1])
while time.time() < end:
    run.log({"now": time.time()})
    time.sleep(0.1)
run.finish()
"""


def measure(stack: Stack, seconds: float) -> dict[str, object]:
    """Return the distribution of delays in milliseconds."""
    client = stack.client()
    job = subprocess.Popen([sys.executable, "-c", JOB, str(seconds)], env=stack.environment())
    seen: int | None = None
    delays: list[float] = []
    question = "SELECT step, value FROM runtide.metrics WHERE run_id = 'delay' AND step > {seen:Int64} ORDER BY step"
    while job.poll() is None:
        rows = client.query(question, parameters={"seen": -1 if seen is None else seen}).result_rows
        now = time.time()
        if rows and seen is not None:
            delays.extend((now - value) * 1e3 for _, value in rows)
        if rows:
            seen = rows[-1][0]
        time.sleep(0.01)
    ordered = sorted(delays)
    return {
        "values": len(ordered),
        "delay ms median": round(statistics.median(ordered)),
        "delay ms p95": round(ordered[int(len(ordered) * 0.95)]),
        "delay ms max": round(ordered[-1]),
    }


def main() -> None:
    """Parse the command line, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kafka", metavar="HOST:PORT", help="measure through this Kafka instead of `runtide up`")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with kafka(arguments.kafka) if arguments.kafka else embedded() as stack:
        report(measure(stack, arguments.seconds), arguments.json)


if __name__ == "__main__":
    main()
