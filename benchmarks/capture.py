"""What it costs to keep what ran: the time of init() with and without it, and what is done beside the job.

    python benchmarks/capture.py [--rounds N] [--lines N]

Each round is a new process that runs a script of so many lines, offline, from this repository's folder: the first
init() of a process is the dear one. Without a gateway there is no agent to wait for, so init() is the same otherwise.
Beside the time on the clock stands the processor's, which other work on the machine changes little.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runtide.agent.collect import collect
from runtide.spool.capture import CaptureTask

LIMIT_MS = 50.0
ROOT = Path(__file__).parents[1]
SCRIPT = """
import json, sys, time
import runtide, runtide.sdk.opening
began, spent = time.perf_counter(), time.process_time()
run = runtide.init("bench", mode="offline", dir=sys.argv[1], capture_console=False, config={"lr": 0.1})
print(json.dumps([(time.perf_counter() - began) * 1000, (time.process_time() - spent) * 1000]))
sys.stdout.flush()
"""


def init_ms(script: Path, capture: str) -> tuple[float, float]:
    """Milliseconds of init() in a new process, by the clock and of the processor."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as spool:
        done = subprocess.run(
            [sys.executable, str(script), spool],
            env=os.environ | {"RUNTIDE_CAPTURE": capture, "RUNTIDE_SILENT": "1"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    clock, processor = json.loads(done.stdout)
    return clock, processor


def main() -> int:
    """Print the figures; exit 1 where keeping it costs init() more than promised."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--lines", type=int, default=1000)
    told = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "train.py"
        script.write_text(SCRIPT + _filling(told.lines))
        rounds = [(init_ms(script, "0"), init_ms(script, "1")) for _ in range(told.rounds)]
        size = script.stat().st_size
    print(f"init() with a script of {size / 1000:.0f} kB, {told.rounds} processes, ms: median, greatest")
    cost = 0.0
    for at, by in enumerate(("by the clock", "of the processor")):
        without, kept = ([pair[which][at] for pair in rounds] for which in (0, 1))
        cost = statistics.median(kept) - statistics.median(without)
        for name, values in (("nothing kept", without), ("what ran is kept", kept)):
            print(f"{name:<18}{by:<18}{statistics.median(values):>8.1f}{max(values):>8.1f}")
    print(f"keeping it costs init() {cost:.1f} ms of the processor")
    began = time.perf_counter()
    records = list(collect(CaptureTask(time.time_ns() // 1000, str(ROOT), tuple(sys.path))))
    size = sum(record.ByteSize() for record in records)
    print(
        f"beside the job: {(time.perf_counter() - began) * 1000:.0f} ms, {len(records)} records, {size / 1000:.0f} kB"
    )
    return 0 if cost <= LIMIT_MS else 1


def _filling(lines: int) -> str:
    """Code that is never run, with names that masking has to look at."""
    return "if False:\n" + "".join(f"    token_{at} = compute(api_key=args.key, at={at})\n" for at in range(lines))


if __name__ == "__main__":
    raise SystemExit(main())
