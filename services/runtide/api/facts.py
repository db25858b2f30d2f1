"""What is known of runs that are compared, asked for all of them at once."""

# ruff: noqa: S608 - values are bound parameters

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from runtide.api.asking import rows
from runtide.warehouse.client import Client

_THESE = "WHERE (project, run_id) IN {keys:Array(Tuple(String, String))}"
_FILES = f"""
SELECT project, run_id, path, kind, digest, content FROM runtide.files {_THESE} AND path != ''
ORDER BY project, run_id, attempt
"""
_ENVIRONMENTS = f"SELECT project, run_id, json FROM runtide.environments {_THESE} ORDER BY project, run_id, attempt"
_METRICS = f"""
SELECT project, run_id, metric, last, last_step, best FROM runtide.run_metrics {_THESE} ORDER BY metric
"""
_AT_STEP = f"""
SELECT project, run_id, metric, avg(later) AS value
FROM
(
    SELECT project, run_id, metric, rank, argMax(value, (attempt, time)) AS later FROM runtide.metrics
    {_THESE} AND step = {{step:Int64}} GROUP BY project, run_id, metric, rank
)
GROUP BY project, run_id, metric
"""
_FIGURES = f"""
SELECT project, run_id, kind, name, max(step) AS last_step, argMax(digest, step) AS latest
FROM
(
    SELECT
        project, run_id, kind, name, step,
        lower(hex(SHA256(arrayStringConcat(arraySort(groupUniqArray(hex(SHA256(concat(json, content))))))))) AS digest
    FROM runtide.figures {_THESE} GROUP BY project, run_id, kind, name, step
)
GROUP BY project, run_id, kind, name
ORDER BY kind, name
"""
_DATASETS = f"""
SELECT project, run_id, role, name, argMax(digest, (attempt, time)) AS latest
FROM runtide.dataset_uses {_THESE} GROUP BY project, run_id, role, name ORDER BY role, name
"""
_NO_PACKAGES = frozenset({"packages", "variables", "git", "notes"})


@dataclass(frozen=True)
class MetricFacts:
    """One metric of one run."""

    final: float
    """Value at the last step, the mean over the ranks that have it."""
    last_step: int
    best: float | None
    """As define_metric says which values are better; None where it does not."""
    at_step: float | None = None


@dataclass
class Facts:
    """One run."""

    key: str
    """PROJECT/ID."""
    info: dict[str, Any]
    config: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    commit: str = ""
    files: dict[str, str] = field(default_factory=dict)
    """Path to content, or to a line that names the digest where the content was not kept."""
    datasets: dict[str, str] = field(default_factory=dict)
    """'role name' to digest."""
    metrics: dict[str, MetricFacts] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)
    """'kind name' to digest of what it showed last."""


def facts(client: Client, runs: Sequence[dict[str, Any]], step: int | None = None) -> list[Facts]:
    """Facts of runs whose rows are given, in their order."""
    keys = [(row["project"], row["run_id"]) for row in runs]
    made = {key: _of_row(row) for key, row in zip(keys, runs, strict=True)}

    def ask(sql: str) -> list[tuple[Facts, dict[str, Any]]]:
        told = {"keys": keys, "step": step or 0}
        return [(made[row["project"], row["run_id"]], row) for row in rows(client, sql, told)]

    for one, row in ask(_ENVIRONMENTS):
        _add_environment(one, json.loads(row["json"]))
    for one, row in ask(_FILES):
        one.files[row["path"]] = row["content"] or f"sha256 {row['digest']}\n"
    for one, row in ask(_DATASETS):
        one.datasets[f"{row['role']} {row['name']}"] = row["latest"]
    at_step = {(one.key, row["metric"]): row["value"] for one, row in ask(_AT_STEP)} if step is not None else {}
    for one, row in ask(_METRICS):
        metric = row["metric"]
        one.metrics[metric] = MetricFacts(row["last"], row["last_step"], row["best"], at_step.get((one.key, metric)))
    for one, row in ask(_FIGURES):
        one.figures[f"{row['kind']} {row['name']}"] = f"step {row['last_step']} {row['latest'][:16]}"
    return [made[key] for key in keys]


def _of_row(row: dict[str, Any]) -> Facts:
    config = json.loads(row["config"]) if row["config"] else {}
    names = ("name", "state", "world_size", "attempt", "duration_s", "user", "host", "last_step")
    return Facts(
        f"{row['project']}/{row['run_id']}", {name: row[name] for name in names}, config, commit=row["git_commit"]
    )


def _add_environment(one: Facts, said: dict[str, Any]) -> None:
    one.packages = dict(said.get("packages") or {})
    git = said.get("git") or {}
    one.commit = git.get("commit") or one.commit
    one.environment = {name: value for name, value in said.items() if name not in _NO_PACKAGES}
