"""One run: what it was told, what it said, what it ran on."""

# ruff: noqa: S608 - values are bound parameters; only names and numbers of our own are put into the text

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from runtide.api.asking import rows, table
from runtide.api.result import Result
from runtide.warehouse import queries
from runtide.warehouse.client import Client
from runtide.wire.errors import BadInput, RuntideError

_OF_IT = "WHERE project = {project:String} AND run_id = {run:String}"
_AXES = ("step", "time")


class UnknownRun(RuntideError):
    """No run has this id, or runs of several projects have it."""

    code = "unknown_run"


class Run:
    """A run that is stored. What is read is read when it is asked for; `reload()` asks for its row again."""

    def __init__(self, client: Client, row: dict[str, Any]) -> None:
        self._client = client
        self._row = row
        self.project: str = row["project"]
        self.id: str = row["run_id"]

    def __repr__(self) -> str:
        return f"Run({self.project}/{self.id}, {self.state})"

    @property
    def info(self) -> dict[str, Any]:
        """Its row of the view runs."""
        return dict(self._row)

    @property
    def name(self) -> str:
        """Name for people."""
        return str(self._row["name"])

    @property
    def state(self) -> str:
        """State as of the last reload."""
        return str(self._row["state"])

    @property
    def config(self) -> dict[str, Any]:
        """Configuration, nested: what was joined by dots is taken apart."""
        return nested(_object(self._row["config"]))

    @property
    def summary(self) -> dict[str, Any]:
        """Last value of each metric, and what run.summary holds; keys as they were said."""
        return _object(self._row["summary"])

    def reload(self) -> Run:
        """Ask for its row again, and return itself."""
        self._row = found(self._client, self.project, self.id)
        return self

    def metrics(self) -> Result:
        """Every metric with its summary over all ranks: the rows of the view run_metrics."""
        return self._all("SELECT * EXCEPT (project, run_id) FROM runtide.run_metrics", "ORDER BY metric")

    def history(
        self,
        metrics: str | Sequence[str] | None = None,
        x: str = "step",
        buckets: int | None = None,
        exact: bool | None = None,
    ) -> Result:
        """Values of metrics, all of them without names.

        Exact, which is what comes without `buckets`: every value that was logged, of every rank, none sampled away:
        metric, rank, step, time, value; with a metric as `x` also x, its value at the same step and rank.
        With `buckets` at most so many rows for each metric over all ranks, each with mean, min, max and last.
        """
        if exact and buckets is not None:
            raise BadInput("buckets", buckets, "exact values come one by one")
        if exact is False and buckets is None:
            buckets = 800
        names = [metrics] if isinstance(metrics, str) else metrics
        if buckets is None:
            return self._exact(names, x)
        if buckets < 1:
            raise BadInput("buckets", buckets, "there must be one at least")
        return self._buckets(names, buckets) if x in _AXES else self._buckets_over(names, x, buckets)

    def _exact(self, names: Sequence[str] | None, x: str) -> Result:
        sql, parameters = self._points(names, x)
        return Result(table(self._client, f"{sql} ORDER BY metric, {'x' if x not in _AXES else x}, rank", parameters))

    def _points(self, names: Sequence[str] | None, x: str) -> tuple[str, dict[str, Any]]:
        chosen = " AND metric IN {metrics:Array(String)}" if names is not None else ""
        parameters = {**self._key, "metrics": list(names or ())}
        points = f"SELECT metric, rank, step, time, value FROM runtide.metrics {_OF_IT}{chosen}"
        if x in _AXES:
            return points, parameters
        over = (
            "SELECT rank AS x_rank, step AS x_step, argMax(value, (attempt, time)) AS x FROM runtide.metrics "
            f"{_OF_IT} AND metric = {{x:String}} GROUP BY rank, step"
        )
        sql = (
            f"SELECT metric, rank, x, step, time, value FROM ({points}) AS p INNER JOIN ({over}) AS o"
            " ON o.x_rank = p.rank AND o.x_step = p.step"
        )
        return sql, {**parameters, "x": x}

    def _buckets(self, names: Sequence[str] | None, buckets: int) -> Result:
        known = queries.extents(self._client, self.project, self.id)
        wanted = [extent for extent in known if names is None or extent.metric in names]
        return Result(queries.series(self._client, self.project, self.id, wanted, queries.Window(buckets=buckets)))

    def _buckets_over(self, names: Sequence[str] | None, x: str, buckets: int) -> Result:
        """Parts of equal width of the metric that is the axis."""
        points, parameters = self._points(names, x)
        sql = f"""
        WITH shown AS ({points})
        SELECT
            metric,
            least(toUInt32(if(high > low, floor((x - low) / (high - low) * {buckets}), 0)), {buckets - 1}) AS bucket,
            min(x) AS x_from, max(x) AS x_to, avgIf(value, isFinite(value)) AS mean,
            if(count = 0, nan, minIf(value, isFinite(value))) AS min,
            if(count = 0, nan, maxIf(value, isFinite(value))) AS max,
            argMax(value, (x, step)) AS last, countIf(isFinite(value)) AS count,
            countIf(NOT isFinite(value)) AS non_finite
        FROM (SELECT * FROM shown WHERE isFinite(x)) AS a
        CROSS JOIN (SELECT min(x) AS low, max(x) AS high FROM shown WHERE isFinite(x)) AS b
        GROUP BY metric, bucket ORDER BY metric, bucket
        """
        return Result(table(self._client, sql, parameters))

    @property
    def files(self) -> Result:
        """Files that say what ran: attempt, kind, path, size, digest, truncated, note. `read_file` has the content."""
        return self._all(
            "SELECT attempt, kind, path, size, digest, truncated, note FROM runtide.files",
            "ORDER BY attempt, kind, path",
        )

    def read_file(self, path: str) -> str:
        """Content of a file of the last attempt that has it, secrets masked. Raises BadInput where there is none."""
        sql = f"SELECT content FROM runtide.files {_OF_IT} AND path = {{path:String}} ORDER BY attempt DESC LIMIT 1"
        for row in rows(self._client, sql, {**self._key, "path": path}):
            return str(row["content"])
        raise BadInput("path", repr(path), f"run {self.id} has no such file; see .files")

    @property
    def environment(self) -> dict[str, Any]:
        """What rank 0 of the last attempt ran on, packages among it; empty where nothing was kept."""
        sql = f"SELECT json FROM runtide.environments {_OF_IT} ORDER BY attempt DESC LIMIT 1"
        for row in rows(self._client, sql, self._key):
            return _object(row["json"])
        return {}

    @property
    def figures(self) -> Result:
        """Which figures there are: kind, name, step, rank, time. The views of each kind have what they show."""
        return self._all(
            "SELECT kind, name, step, rank, max(time) AS time FROM runtide.figures",
            "GROUP BY kind, name, step, rank ORDER BY kind, name, step, rank",
        )

    @property
    def logs(self) -> Result:
        """What its processes printed: time, rank, stream, line."""
        return self._all("SELECT time, rank, stream, line FROM runtide.logs", "ORDER BY time, rank")

    @property
    def attempts(self) -> Result:
        """Its starts."""
        return self._all("SELECT * EXCEPT (project, run_id) FROM runtide.attempts", "ORDER BY attempt")

    @property
    def _key(self) -> dict[str, Any]:
        return {"project": self.project, "run": self.id}

    def _all(self, select: str, rest: str) -> Result:
        return Result(table(self._client, f"{select} {_OF_IT} {rest}", self._key))


def found(client: Client, project: str | None, run_id: str) -> dict[str, Any]:
    """The row of a run. Raises UnknownRun."""
    where = "" if project is None else " AND project = {project:String}"
    sql = f"SELECT * FROM runtide.runs WHERE run_id = {{run:String}}{where} ORDER BY project LIMIT 2"
    known = rows(client, sql, {"run": run_id, "project": project or ""})
    if len(known) == 1:
        return known[0]
    if known:
        raise UnknownRun(f"runs of several projects have the id {run_id}: write PROJECT/{run_id}")
    raise UnknownRun(f"there is no run {run_id}" + (f" in project {project}" if project else ""))


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Keys joined by dots as dictionaries in dictionaries; one that is below a plain value stays joined."""
    out: dict[str, Any] = {}
    for key, value in sorted(flat.items()):
        *folders, name = key.split(".")
        place = out
        for folder in folders:
            inner = place.setdefault(folder, {})
            if not isinstance(inner, dict):
                break
            place = inner
        else:
            place[name] = value
            continue
        out[key] = value
    return out


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text) if text else {}
    return value if isinstance(value, dict) else {"": value}
