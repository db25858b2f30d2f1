"""The statement that finds runs: a filter, an order, and values of metrics as columns beside those of the view runs."""

# ruff: noqa: S608 - values are bound parameters or quoted; expressions went through runtide.api.filters

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from runtide.api.filters import Wanted, expression, literal, ordering
from runtide.wire.canary import PROJECT as CANARY

_SQL = {
    "best": "multiIf(goal = '', NULL, goal = 'min', min, max)",
    "value": (
        "multiIf(summary = 'best', if(goal = 'min', min, max), summary = 'mean', mean, summary = 'min', min,"
        " summary = 'max', max, last)"
    ),
}
"""What needs the definition of a metric, as the view run_metrics has it."""
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
        values = "".join(f", {column}" for column in wanted.columns.values())
        names = {column: f"{function}({metric})" for (function, metric), column in wanted.columns.items()}
        inner = f"SELECT * FROM runtide.runs WHERE {self._scope()}"
        source = f"({inner}) AS r{self._values(wanted)}" if wanted.columns else f"({inner}) AS r"
        limit = f" LIMIT {int(self.limit)}" if self.limit is not None else ""
        shown = "r.*" if self.shown == "*" else self.shown
        sql = f"SELECT {shown}{values} FROM {source} WHERE ({where}) ORDER BY {order}{limit}"
        return sql, {**self.parameters, "project_": self.project or CANARY}, names

    def _scope(self) -> str:
        return f"project {'=' if self.project else '!='} {{project_:String}}"

    def _values(self, wanted: Wanted) -> str:
        """One pass over the summaries for all values; over the definitions too where one of them needs it."""
        columns = ", ".join(
            f"anyOrNullIf({_SQL.get(function, function)}, metric = {literal(metric)}) AS {column}"
            for (function, metric), column in wanted.columns.items()
        )
        metrics = ", ".join(sorted({literal(metric) for _, metric in wanted.columns}))
        those = f"WHERE {self._scope()} AND metric IN ({metrics})"
        source = f"(SELECT * FROM runtide.metric_summary {those} AND rank = -1) AS s"
        if any(function in _SQL for function, _ in wanted.columns):
            source += (
                " LEFT JOIN (SELECT project AS d_project, run_id AS d_run, metric AS d_metric, goal, summary"
                f" FROM runtide.metric_definitions {those}) AS d"
                " ON d.d_project = s.project AND d.d_run = s.run_id AND d.d_metric = s.metric"
            )
        return (
            f" LEFT JOIN (SELECT project AS project_of, run_id AS run_of, {columns} FROM {source}"
            " GROUP BY project, run_id) AS v ON v.project_of = r.project AND v.run_of = r.run_id"
        )
