"""Hours of many short runs and one long run through `runtide up`: does any part grow?

    python benchmarks/soak.py [--minutes 120] [--runs 1000] [--json]

Prints for each part the memory after the warm-up and at the end, the slope between by least squares, and open files and
threads at both; what the ingest part remembers of streams and runs; the lag at the end; and what is not stored once: by
SQL of all runs, by verify of the long one and of twenty short ones.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from runtide.testing.soak import METRICS, STEPS, Outcome, Soak
from runtide.testing.stack import Stack
from stack import report

WARM = 0.2
"""The part of the time that is not counted in slopes."""


def measure(minutes: float, runs_per_minute: float) -> dict[str, object]:
    """Soak a stack of its own and return the figures."""
    with tempfile.TemporaryDirectory(prefix="runtide-soak-") as folder:
        stack = Stack(Path(folder) / "home")
        try:
            stack.up("--no-dashboard")
            soak = Soak(stack, runs_per_minute)
            outcome = soak.run(60 * minutes)
            soak.verify()
        finally:
            stack.end()
    return figures(outcome)


def figures(outcome: Outcome) -> dict[str, object]:
    """What people look at."""
    warm_s = WARM * outcome.seconds
    found: dict[str, object] = {
        "seconds": round(outcome.seconds),
        f"short runs of {STEPS * METRICS} points": outcome.runs,
        "short runs a minute": round(60 * outcome.runs / outcome.seconds),
        "points": outcome.points,
        "seconds until all is derived, from the end": round(outcome.lag_s, 1),
    }
    for part, readings in outcome.readings.items():
        warm, last = next(row for row in readings if row.at_s >= warm_s), readings[-1]
        found[f"{part}: MiB warm, last, MiB/h"] = f"{warm.mib:.0f}, {last.mib:.0f}, {outcome.slope(part, warm_s):.1f}"
        found[f"{part}: files warm, last; threads"] = f"{warm.files}, {last.files}; {warm.threads}, {last.threads}"
    for name, values in outcome.remembered.items():
        found[f"{name}: middle, last"] = f"{values[len(values) // 2]:.0f}, {values[-1]:.0f}"
    found["problems"] = "; ".join(outcome.problems) or "none"
    return found


def main() -> None:
    """Parse the command line, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--runs", type=float, default=1000, help="short runs a minute")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    report(measure(arguments.minutes, arguments.runs), arguments.json)


if __name__ == "__main__":
    main()
