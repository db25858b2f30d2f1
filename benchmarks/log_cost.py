"""What log() costs: 10 metrics with changing values, numpy scalars among them, beside an empty loop and a plain write.

    python benchmarks/log_cost.py [--calls N] [--json]

Each call is timed by itself with perf_counter_ns. The plain write is what a careful person would do by hand: one JSON
line to an unbuffered file, which survives a kill as log() does.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import runtide

NAMES = [f"train/metric_{index}" for index in range(10)]
WARM_UP = 2000
MEDIAN_LIMIT_US = 10.0
P99_LIMIT_US = 40.0


def rows(count: int) -> list[dict[str, object]]:
    """Steps whose values change: Python floats and ints, numpy float64, float32 and int64."""
    values = np.random.default_rng(7).random((count, len(NAMES)))
    made: list[dict[str, object]] = []
    for index, row in enumerate(values):
        mixed = [*row[:4].tolist(), index, row[5], row[6], np.float32(row[7]), np.float32(row[8]), np.int64(index)]
        made.append(dict(zip(NAMES, mixed, strict=True)))
    return made


def timed(call: Callable[[dict[str, object], int], object], data: list[dict[str, object]]) -> dict[str, float]:
    """Time each call; the first ones only warm up."""
    clock = time.perf_counter_ns
    taken = []
    gc.collect()
    for step, row in enumerate(data):
        began = clock()
        call(row, step)
        taken.append(clock() - began)
    taken = sorted(taken[WARM_UP:])
    return {
        "median_us": statistics.median(taken) / 1000,
        "p99_us": taken[int(len(taken) * 0.99)] / 1000,
        "max_us": taken[-1] / 1000,
    }


def measure(calls: int) -> dict[str, dict[str, float]]:
    """Run the three loops over the same rows."""
    data = rows(calls + WARM_UP)
    with tempfile.TemporaryDirectory() as folder:
        plain = os.open(Path(folder) / "plain.jsonl", os.O_CREAT | os.O_WRONLY | os.O_APPEND)

        def write_line(row: dict[str, object], step: int) -> None:
            line = {name: float(value) for name, value in row.items()}  # type: ignore[arg-type]
            os.write(plain, json.dumps({"step": step, **line}).encode() + b"\n")

        os.environ["RUNTIDE_CAPTURE"] = "0"  # what is collected beside a job would be measured too
        run = runtide.init("bench", mode="offline", dir=folder, capture_console=False)
        found = {
            "empty loop": timed(lambda row, step: None, data),
            "runtide log()": timed(lambda row, step: run.log(row, step=step), data),
            "runtide log(), no step": timed(lambda row, step: run.log(row), data),
            "JSON line to a file": timed(write_line, data),
        }
        run.finish()
        os.close(plain)
    plain_median = found["JSON line to a file"]["median_us"]
    for figures in found.values():
        figures["of_plain_write"] = figures["median_us"] / plain_median
    return found


def main() -> int:
    """Print the figures; exit 1 where log() is slower than promised."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=50_000)
    parser.add_argument("--json", action="store_true")
    told = parser.parse_args()
    found = measure(told.calls)
    if told.json:
        print(json.dumps(found, indent=2))
    else:
        print(f"{'10 metrics a call':<24}{'median us':>11}{'p99 us':>9}{'max us':>10}{'of plain write':>16}")
        for name, row in found.items():
            print(
                f"{name:<24}{row['median_us']:>11.2f}{row['p99_us']:>9.2f}{row['max_us']:>10.1f}"
                f"{row['of_plain_write']:>16.2f}"
            )
    cost = found["runtide log()"]
    return 0 if cost["median_us"] <= MEDIAN_LIMIT_US and cost["p99_us"] <= P99_LIMIT_US else 1


if __name__ == "__main__":
    raise SystemExit(main())
