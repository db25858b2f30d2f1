"""The statement that finds runs: a filter, an order, and values of metrics as columns beside those of the view runs."""

# ruff: noqa: S608 - values are bound parameters or quoted; expressions went through runtide.api.filters

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from runtide.api.filters import Wanted, expression, literal, ordering
from runtide.wire.canary import PROJECT as CANARY

_SUMMARIES = {
    "last": "avgArgMaxIf(last, last_step, {of})",
    "min": "if(sumIf(count, {of}) = 0, nan, minIf(min, {of} AND count > 0))",
    "max": "if(sumIf(count, {of}) = 0, nan, maxIf(max, {of} AND count > 0))",
    "mean": "if(sumIf(count, {of}) = 0, nan, sumIf(sum, {of}) / sumIf(count, {of}))",
}
"""Over the rows of the ranks, for one metric: what the view metric_summary has for rank -1; one pass for all."""
_DEFINED = {"best": ("min", "max"), "value": ("last", "min", "max", "mean")}
"""What needs the definition of its metric, and which summaries it is made of."""
NEWEST = "started_at DESC, project, run_id"


@dataclass
class Selection:
    """Which runs, in which order, with which values."""

    project: str | None = None
    filter: str | None = None
    order: str | None = None
    limit: int | None = None
    values: Sequence[tuple[str, str]] = ()
    """(function, metric) of values wanted beside those that filter and order name."""
    shown: str = "*"
    """Columns of the view runs that come."""
    parameters: dict[str, Any] = field(default_factory=dict)

    def statement(self) -> tuple[str, dict[str, Any], dict[str, str]]:
        """SQL, parameters, and for each column with a value of a metric what it is called, such as last(val/acc)."""
        wanted = Wanted()
        where = expression(self.filter, wanted) if self.filter else "1"
        order = f"{ordering(self.order, wanted)}, {NEWEST}" if self.order else NEWEST
        for function, metric in self.values:
            wanted.column(function, metric)
        names = {column: f"{function}({metric})" for (function, metric), column in wanted.columns.items()}
        metrics = sorted({metric for _, metric in wanted.columns})
        values = "".join(
            f", {_value(function, metrics.index(metric))} AS {column}"
            for (function, metric), column in wanted.columns.items()
        )
        source = f"(SELECT * FROM runtide.runs WHERE {self._scope()}) AS r"
        if metrics:
            source += self._summaries(wanted, metrics)
        if any(function in _DEFINED for function, _ in wanted.columns):
            source += self._definitions(metrics)
        limit = f" LIMIT {int(self.limit)}" if self.limit is not None else ""
        shown = "r.*" if self.shown == "*" else self.shown
        sql = f"SELECT {shown}{values} FROM {source} WHERE ({where}) ORDER BY {order}{limit}"
        return sql, {**self.parameters, "project_": self.project or CANARY}, names

    def _scope(self) -> str:
        return f"project {'=' if self.project else '!='} {{project_:String}}"

    def _summaries(self, wanted: Wanted, metrics: Sequence[str]) -> str:
        needed = {
            (summary, metric) for function, metric in wanted.columns for summary in _DEFINED.get(function, (function,))
        }
        columns = ", ".join(
            f"if(countIf({_is(metric)}) = 0, NULL, {_SUMMARIES[summary].format(of=_is(metric))})"
            f" AS {summary}_of_{metrics.index(metric)}"
            for summary, metric in sorted(needed)
        )
        return (
            f" LEFT JOIN (SELECT project AS s_project, run_id AS s_run, {columns}"
            f" FROM runtide.metric_summary_rows FINAL WHERE {self._scope()}"
            f" AND metric IN ({', '.join(map(literal, metrics))}) AND count + non_finite > 0"
            " GROUP BY project, run_id) AS s ON s.s_project = r.project AND s.s_run = r.run_id"
        )

    def _definitions(self, metrics: Sequence[str]) -> str:
        columns = ", ".join(
            f"argMaxIf((one.goal, one.summary), (attempt, time, stream, offset), one.name = {literal(metric)})"
            f" AS defined_{place}"
            for place, metric in enumerate(metrics)
        )
        return (
            f" LEFT JOIN (SELECT project AS d_project, run_id AS d_run, {columns} FROM (SELECT *, JSONExtract(json,"
            " 'Tuple(name String, goal String, summary String)') AS one FROM runtide.events"
            f" WHERE {self._scope()} AND kind = 'metric_defined')"
            f" WHERE one.name IN ({', '.join(map(literal, metrics))}) GROUP BY project, run_id) AS d"
            " ON d.d_project = r.project AND d.d_run = r.run_id"
        )


def _is(metric: str) -> str:
    return f"metric = {literal(metric)}"


def _value(function: str, place: int) -> str:
    """What a function gives of the metric at this place, as the view run_metrics has it."""
    low, high = f"min_of_{place}", f"max_of_{place}"
    by_goal = f"multiIf(defined_{place}.1 = 'min', {low}, defined_{place}.1 = 'max', {high}, NULL)"
    if function == "best":
        return by_goal
    if function == "value":
        how = f"defined_{place}.2"
        return (
            f"multiIf({how} = 'best', {by_goal}, {how} = 'mean', mean_of_{place}, {how} = 'min', {low},"
            f" {how} = 'max', {high}, last_of_{place})"
        )
    return f"{function}_of_{place}"
