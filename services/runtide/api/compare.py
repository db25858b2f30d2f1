"""What differs between runs. Pure: facts in, differences out. All others are held against the first run."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from runtide.api.facts import Facts, MetricFacts

ABSENT = None
"""Stands where a run does not have what another one has."""

Differences = dict[str, list[Any]]
"""Name to the value of each run, for names whose values are not all the same."""


@dataclass(frozen=True)
class Outcome:
    """A metric that did not come out the same."""

    metric: str
    run: str
    first: float | None
    value: float | None

    def __str__(self) -> str:
        return f"{self.metric}: {_shown(self.first)} in the first, {_shown(self.value)} in {self.run}"


@dataclass(frozen=True)
class Comparison:
    """Differences between runs, each with the values in the order of `runs`."""

    runs: list[str]
    """PROJECT/ID of each."""
    info: Differences
    config: Differences
    commits: Differences
    """Under the name commit, where the runs were on different ones."""
    code: dict[str, dict[str, str]]
    """Run to path to unified diff against the first run, of files that differ."""
    packages: Differences
    environment: Differences
    datasets: Differences
    """'role name' to digests."""
    metrics: dict[str, dict[str, list[Any]]]
    """Metric to final, last_step, best and at_step of each run; all metrics, equal ones too."""
    figures: Differences
    """'kind name' to step and digest of what was shown last."""

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)

    def computed(self) -> list[str]:
        """The metrics that code and data decide: all but percentiles of latencies, which are never the same twice."""
        parts = ("p50", "p95", "p99", "count")
        bases = [name.removesuffix("count") for name in self.metrics if name.endswith("/count")]
        latencies = {base + part for base in bases for part in parts if all(base + p in self.metrics for p in parts)}
        return [name for name in self.metrics if name not in latencies]

    def outcomes(self, tolerance: float = 0.0, metrics: Iterable[str] | None = None) -> list[Outcome]:
        """Metrics whose final values are not the same as in the first run.

        Two are the same where they differ by at most `tolerance`, or by that part of the greater one; NaN is the same
        as NaN. A metric that one of them lacks differs. `metrics` names those that count; `computed()` without it.
        """
        out = []
        for metric in self.computed() if metrics is None else metrics:
            finals = self.metrics.get(metric, {}).get("final") or [ABSENT] * len(self.runs)
            out += [
                Outcome(metric, run, finals[0], value)
                for run, value in zip(self.runs[1:], finals[1:], strict=True)
                if not same(finals[0], value, tolerance)
            ]
        return out


def compare(runs: Sequence[Facts]) -> Comparison:
    """Hold runs against the first of them."""
    return Comparison(
        runs=[one.key for one in runs],
        info=differences([one.info for one in runs]),
        config=differences([one.config for one in runs]),
        commits=differences([{"commit": one.commit} for one in runs]),
        code={one.key: _diffs(runs[0], one) for one in runs[1:]},
        packages=differences([one.packages for one in runs]),
        environment=differences([one.environment for one in runs]),
        datasets=differences([one.datasets for one in runs]),
        metrics=_metrics(runs),
        figures=differences([one.figures for one in runs]),
    )


def differences(values: Sequence[Mapping[str, Any]]) -> Differences:
    """Names, in order, whose values are not the same in all."""
    names = sorted({name for each in values for name in each})
    columns = {name: [each.get(name, ABSENT) for each in values] for name in names}
    return {
        name: column
        for name, column in columns.items()
        if not all(name in each and _equal(column[0], each[name]) for each in values)
    }


def same(first: float | None, second: float | None, tolerance: float) -> bool:
    """Whether two final values are the same for who accepts such a tolerance; see Comparison.outcomes."""
    if first is None or second is None:
        return False
    if math.isnan(first) or math.isnan(second):
        return math.isnan(first) and math.isnan(second)
    return first == second or math.isclose(first, second, rel_tol=tolerance, abs_tol=tolerance)


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, bool) != isinstance(second, bool):
        return False
    return bool(first == second) or (first != first and second != second)


def _diffs(first: Facts, other: Facts) -> dict[str, str]:
    out = {}
    for path in sorted({*first.files, *other.files}):
        before, after = (one.files.get(path, "").splitlines(keepends=True) for one in (first, other))
        if before != after:
            old, new = (f"{one.key}/{path}" if path in one.files else "/dev/null" for one in (first, other))
            out[path] = "".join(_ended(difflib.unified_diff(before, after, old, new)))
    return out


def _ended(lines: Iterable[str]) -> Iterable[str]:
    """A last line without an end is said, as diff does."""
    for line in lines:
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _metrics(runs: Sequence[Facts]) -> dict[str, dict[str, list[Any]]]:
    names = sorted({name for one in runs for name in one.metrics})
    return {
        name: {
            "final": [_of(one, name, "final") for one in runs],
            "last_step": [_of(one, name, "last_step") for one in runs],
            "best": [_of(one, name, "best") for one in runs],
            "at_step": [_of(one, name, "at_step") for one in runs],
        }
        for name in names
    }


def _of(one: Facts, metric: str, what: str) -> Any:
    known: MetricFacts | None = one.metrics.get(metric)
    return ABSENT if known is None else getattr(known, what)


def _shown(value: float | None) -> str:
    return "nothing" if value is None else repr(value)
