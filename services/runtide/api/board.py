"""Leaderboards, groups, what a metric depends on, and the runs that nothing beats. Pure: rows of runs in, rows out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from runtide.api.statistics import eta_squared, pareto, spearman, spread
from runtide.wire.errors import BadInput

Row = dict[str, Any]
ALL_BUT_SEED = "*"
"""As a key to group by: runs whose configurations are equal in everything but the seed."""
SEED = "seed"
GOALS = {"min": 1.0, "max": -1.0}


def direction(goal: str) -> float:
    """What to multiply values with so that less is better. Raises BadInput."""
    if goal not in GOALS:
        raise BadInput("goal", repr(goal), "it is min or max")
    return GOALS[goal]


def last_steps(by: str) -> int | None:
    """N of mean:N; None for best and last. Raises BadInput."""
    if by in {"best", "last"}:
        return None
    kind, _, number = by.partition(":")
    if kind != "mean" or not number.isdigit() or int(number) < 1:
        raise BadInput("by", repr(by), "it is best, last or mean:N, the mean of the last N steps that have a value")
    return int(number)


def board(runs: Sequence[Row], goal: str) -> list[Row]:
    """Runs that have a finite `value`, the best first, each with its place; equal values share one."""
    sign = direction(goal)
    ordered = sorted(
        (row for row in runs if finite(row["value"])), key=lambda row: (sign * row["value"], row["run_id"])
    )
    out: list[Row] = []
    for at, row in enumerate(ordered, 1):
        tied = bool(out) and out[-1]["value"] == row["value"]
        out.append({"place": out[-1]["place"] if tied else at, **row})
    return out


def grouped(runs: Sequence[Row], keys: Sequence[str], goal: str, seed: str = SEED) -> list[Row]:
    """Runs that share the values of these keys of the configuration: n, seeds, mean, deviation, 95 % interval, best.

    Rows have `value` and `config`. `seeds` counts different values of the key `seed`, 0 where no run has it.
    """
    sign = direction(goal)
    groups: dict[str, list[Row]] = {}
    for row in runs:
        if finite(row["value"]):
            groups.setdefault(json.dumps(_shared(row["config"], keys, seed), sort_keys=True), []).append(row)
    out = []
    for shared, members in groups.items():
        values = [row["value"] for row in members]
        seeds = {json.dumps(row["config"][seed]) for row in members if seed in row["config"]}
        best = min(members, key=lambda row: (sign * row["value"], row["run_id"]))
        out.append(
            {
                "group": json.loads(shared),
                **asdict(spread(values)),
                "seeds": len(seeds),
                "best": best["value"],
                "best_run": best["run_id"],
                "duration_s": sum(row["duration_s"] for row in members),
                "process_hours": sum(row["process_hours"] for row in members),
            }
        )
    return sorted(out, key=lambda row: sign * row["mean"])


def _shared(config: Mapping[str, Any], keys: Sequence[str], seed: str) -> Row:
    if list(keys) == [ALL_BUT_SEED]:
        return {key: value for key, value in config.items() if key != seed}
    return {key: config.get(key) for key in keys}


def importance(runs: Sequence[Row]) -> list[Row]:
    """How much of the order of `value` each key of `config` explains, most first.

    Numbers: Spearman's rho squared, its sign in `correlation`. Categories: the corrected eta squared of
    runtide.api.statistics. Keys that have one value, or a category's value for each run, say nothing and are left out.
    It looks at one key at a time: keys that were changed together share what one of them did.
    """
    usable = [row for row in runs if finite(row["value"])]
    out = []
    for key in sorted({key for row in usable for key in row["config"]}):
        pairs = [(row["config"][key], row["value"]) for row in usable if row["config"].get(key) is not None]
        if len(pairs) < 3:
            continue
        settings, values = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        if all(_number(value) for value in settings):
            rho = spearman(settings, values)
            if rho is not None:
                found = {"kind": "number", "importance": rho * rho, "correlation": rho, "n": len(pairs)}
                out.append({"key": key, **found})
        else:
            eta = eta_squared([json.dumps(value, sort_keys=True) for value in settings], values)
            if eta is not None:
                found = {"kind": "category", "importance": eta, "correlation": None, "n": len(pairs)}
                out.append({"key": key, **found})
    return sorted(out, key=lambda row: (-row["importance"], row["key"]))


def not_beaten(runs: Sequence[Row], goals: Mapping[str, str]) -> list[Row]:
    """The Pareto set: runs such that no other one is as good in all columns of `goals` and better in one."""
    signs = {name: direction(goal) for name, goal in goals.items()}
    usable = [row for row in runs if all(finite(row[name]) for name in signs)]
    kept = pareto([[sign * row[name] for name, sign in signs.items()] for row in usable])
    first, sign = next(iter(signs.items()))
    return sorted((usable[place] for place in kept), key=lambda row: (sign * row[first], row["run_id"]))


def finite(value: Any) -> bool:
    """Whether it is a number that can be ordered."""
    return _number(value) and math.isfinite(value)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
