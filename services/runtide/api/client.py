"""The way in: `runtide.Api`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runtide.api import board, standing
from runtide.api.asking import rows, table
from runtide.api.compare import Comparison, compare
from runtide.api.export import Exported, Progress, export
from runtide.api.facts import facts
from runtide.api.result import Result, plain_rows
from runtide.api.run import Run, found
from runtide.api.selecting import Selection
from runtide.warehouse.client import ClickHouseSettings, Client, connect
from runtide.warehouse.errors import StoreBusy
from runtide.wire.errors import BadInput, Unavailable

_OBJECTS = ("config", "summary")
_COSTS = ("duration_s", "process_hours")
_SHOWN = ("project", "run_id", "name", "state", *_COSTS)


class Api:
    """Everything that is stored, for reading.

    `url` is where ClickHouse's HTTP interface is, `http(s)://host:port`; `runtide up` serves it on port 8123.
    With `project` everything is asked of that project only; it is no protection, since sql() may ask for others: on a
    server give each project a user of its own (docs/security.md).
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8123",
        *,
        user: str = "default",
        password: str = "",
        project: str | None = None,
        client: Client | None = None,
    ) -> None:
        self._client = client or _connected(settings(url, user, password))
        self.project = project

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()

    def sql(self, query: str, parameters: Mapping[str, Any] | None = None) -> Result:
        """The rows of a statement over the public views; `{name:Type}` in it takes a parameter."""
        return Result(table(self._client, query, parameters))

    def runs(
        self,
        filter: str | None = None,  # noqa: A002 - what it is
        order: str | None = None,
        limit: int | None = None,
        *,
        metrics: Sequence[str] = (),
        parameters: Mapping[str, Any] | None = None,
    ) -> Result:
        """Runs with every column of the view runs, the newest first where no order is given.

        `filter` and `order` are SQL expressions over those columns, keys of the configuration and metrics:
        `runs("config.lr > 0.01 AND last('val/acc') > 0.9 AND state = 'finished'", "max('val/acc') DESC", 20)`;
        see runtide.api.filters. Values that they name come as columns too, such as `max(val/acc)`, and the last
        values of `metrics`.
        """
        values = [("last", metric) for metric in metrics]
        return self._select(Selection(self.project, filter, order, limit, values, parameters=dict(parameters or {})))

    def run(self, run_id: str) -> Run:
        """One run, by its id or PROJECT/ID. Raises UnknownRun."""
        project = self.project
        if project is None and "/" in run_id:
            project, _, run_id = run_id.partition("/")
        return Run(self._client, found(self._client, project, run_id))

    def projects(self) -> list[str]:
        """Every project that has a run."""
        sql = "SELECT DISTINCT project FROM runtide.runs ORDER BY project"
        return [row["project"] for row in rows(self._client, sql)]

    def compare(self, runs: Iterable[str | Run], step: int | None = None) -> Comparison:
        """What differs between runs, held against the first: configuration, code, packages, datasets, metrics, figures.

        With `step` metrics have their values at that step too.
        """
        chosen = [run if isinstance(run, Run) else self.run(run) for run in runs]
        if len(chosen) < 2:
            raise BadInput("runs", len(chosen), "there must be two to compare")
        return compare(facts(self._client, [run.info for run in chosen], step))

    def leaderboard(
        self,
        metric: str,
        goal: str | None = None,
        *,
        experiment: str | None = None,
        filter: str | None = None,  # noqa: A002 - what it is
        by: str = "best",
        group: str | Sequence[str] | None = None,
        datasets: Sequence[str] = (),
        seed: str = board.SEED,
        limit: int | None = None,
        parameters: Mapping[str, Any] | None = None,
    ) -> Result:
        """Runs by a metric, the best first; those without a finite value are not on it.

        `goal` is min or max, as define_metric said where it is left out. `by`: best, last, or mean:N over the last N
        steps. `datasets`: only runs that used all of these. With `group`, keys of the configuration, one row for each
        group with mean, deviation, 95 % confidence interval and number of seeds; '*' for everything but the seed.
        """
        goal = goal or standing.goal_of(self._client, self.project, metric)
        board.direction(goal)
        runs = self._standing(metric, goal, by, experiment, filter, datasets, parameters)
        if group is None:
            return Result(plain_rows(board.board(runs, goal)[:limit]), _OBJECTS)
        keys = [group] if isinstance(group, str) else list(group)
        groups = board.grouped(_with_config(runs), keys, goal, seed)[:limit]
        return Result(plain_rows([{**row, "group": _json(row["group"])} for row in groups]), ("group",))

    def importance(
        self,
        metric: str,
        goal: str = "max",
        *,
        experiment: str | None = None,
        filter: str | None = None,  # noqa: A002 - what it is
        by: str = "best",
        parameters: Mapping[str, Any] | None = None,
    ) -> Result:
        """How much of the order of a metric each key of the configuration explains, one key at a time."""
        runs = self._standing(metric, goal, by, experiment, filter, (), parameters)
        return Result(plain_rows(board.importance(_with_config(runs))))

    def pareto(
        self,
        goals: Mapping[str, str],
        *,
        experiment: str | None = None,
        filter: str | None = None,  # noqa: A002 - what it is
        by: str = "best",
        parameters: Mapping[str, Any] | None = None,
    ) -> Result:
        """Runs that no other one beats in all of `goals`: metrics, duration_s, process_hours, each with min or max."""
        told = {name: board.direction(goal) for name, goal in goals.items()}
        metrics = [name for name in told if name not in _COSTS]
        if not metrics:
            raise BadInput("goals", sorted(goals), "one of them must be a metric")
        merged: dict[tuple[str, str], dict[str, Any]] = {}
        for metric in metrics:
            for row in self._standing(metric, goals[metric], by, experiment, filter, (), parameters):
                one = merged.setdefault((row["project"], row["run_id"]), {name: row[name] for name in _SHOWN})
                one[metric] = row["value"]
        runs = [{**dict.fromkeys(metrics), **row} for row in merged.values()]
        return Result(plain_rows(board.not_beaten(runs, goals)))

    def export(
        self, to: str | Path, views: Sequence[str] | None = None, progress: Progress | None = None
    ) -> list[Exported]:
        """Write the views of the project, all or those named, to `to`/VIEW.parquet, streamed."""
        if self.project is None:
            raise BadInput("project", "missing", "one project is exported: Api(project=...)")
        return export(self._client, self.project, Path(to), views, progress)

    def _standing(
        self,
        metric: str,
        goal: str,
        by: str,
        experiment: str | None,
        filter: str | None,  # noqa: A002 - what it is
        datasets: Sequence[str],
        parameters: Mapping[str, Any] | None,
    ) -> list[dict[str, Any]]:
        board.direction(goal)
        told = dict(parameters or {})
        conditions = [f"({filter})"] if filter else []
        if experiment is not None:
            conditions.append("experiment = {experiment_:String}")
            told["experiment_"] = experiment
        columns = "project, run_id, name, state, experiment, config, duration_s, world_size, started_at"
        runs = self._select(Selection(self.project, " AND ".join(conditions) or None, parameters=told, shown=columns))
        return standing.with_values(self._client, self.project, runs.arrow().to_pylist(), metric, goal, by, datasets)

    def _select(self, selection: Selection) -> Result:
        sql, parameters, names = selection.statement()
        got = table(self._client, sql, parameters)
        return Result(got.rename_columns([names.get(name, name) for name in got.column_names]), _OBJECTS)


def settings(url: str, user: str, password: str) -> ClickHouseSettings:
    """Where a URL points. Raises BadInput."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise BadInput("url", repr(url), "it must be http(s)://HOST:PORT, where ClickHouse's HTTP interface is")
    secure = parts.scheme == "https"
    port = parts.port or (8443 if secure else 8123)
    return ClickHouseSettings(parts.hostname, port, parts.username or user, parts.password or password, secure=secure)


def _connected(where: ClickHouseSettings) -> Client:
    try:
        return connect(where)
    except StoreBusy as error:
        text = f"no ClickHouse answers at {where.host}:{where.port}: start `runtide up`, or give Api(url) its address"
        raise Unavailable(text) from error


def _with_config(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "config": json.loads(row["config"] or "{}")} for row in runs]


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)
