"""How comparisons, leaderboards and exports look to people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from runtide.api.compare import Comparison, Differences, Outcome
from runtide.cli.tables import print_table

_LONGEST_DIFF = 400
"""Lines of a file's diff; --json has all of it."""


def print_comparison(found: Comparison) -> None:
    """Show what differs; equal metrics are counted, not listed."""
    names = [run.rpartition("/")[2] for run in found.runs]
    same_names = len(set(names)) < len(names)
    columns = found.runs if same_names else names
    for title, differences in (
        ("run", found.info),
        ("config", found.config),
        ("commit", found.commits),
        ("packages", found.packages),
        ("environment", found.environment),
        ("datasets", found.datasets),
        ("figures", found.figures),
    ):
        _print_differences(title, differences, columns)
    for run, files in found.code.items():
        for path, diff in files.items():
            print(f"code of {run}: {path}")
            lines = diff.splitlines()
            print("\n".join(lines[:_LONGEST_DIFF]))
            if len(lines) > _LONGEST_DIFF:
                print(f"... {len(lines) - _LONGEST_DIFF} lines more; --json has all of them")
    _print_metrics(found, columns)


def _print_differences(title: str, found: Differences, columns: Sequence[str]) -> None:
    if found:
        print_table(
            [{title: name, **dict(zip(columns, map(_told, values), strict=True))} for name, values in found.items()]
        )


def _print_metrics(found: Comparison, columns: Sequence[str]) -> None:
    rows = []
    for metric, values in found.metrics.items():
        for what in ("final", "best", "at_step"):
            each = values[what]
            if any(value is not None for value in each) and any(value != each[0] for value in each):
                rows.append({"metric": metric, "value": what, **dict(zip(columns, each, strict=True))})
    if rows:
        print_table(rows)
    equal = len(found.metrics) - len({row["metric"] for row in rows})
    print(f"{equal} of {len(found.metrics)} metrics are equal")


def _told(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)


def print_outcomes(found: Sequence[Outcome], tolerance: float, compared: int) -> None:
    """Say whether runs came out the same."""
    for one in found:
        print(one)
    if found:
        differing = len({one.metric for one in found})
        print(f"not the same: {differing} of {compared} metrics differ by more than {tolerance:g}")
    else:
        print(f"the same: final values of {compared} metrics, within {tolerance:g}")


def print_board(found: Sequence[dict[str, Any]]) -> None:
    """Show a leaderboard."""
    names = ("place", "run_id", "name", "value", "step", "state", "duration_s", "process_hours", "coverage")
    print_table([{name: row[name] for name in names} for row in found], empty="no run has such a metric")


def print_groups(found: Sequence[dict[str, Any]]) -> None:
    """Show a leaderboard of groups."""
    shown = []
    for row in found:
        group = ", ".join(f"{key}={value}" for key, value in row["group"].items())
        names = ("n", "seeds", "mean", "std", "ci_low", "ci_high", "best", "best_run", "process_hours")
        shown.append({"group": group, **{name: row[name] for name in names}})
    print_table(shown, empty="no run has such a metric")
