"""What dashboards and the command line ask the warehouse: plain functions of a client, bounded in what they return.

Each function takes a clickhouse-connect client first. Nothing here writes, and nothing pulls a long series into Python.
"""

from runtide.warehouse.queries.canary import Canary, beat_stored, canary
from runtide.warehouse.queries.logs import LogRow, log_tail
from runtide.warehouse.queries.resources import resources
from runtide.warehouse.queries.runs import (
    RunRow,
    Selection,
    content_version,
    count_runs,
    last_values,
    projects,
    run,
    runs,
    usual_metrics,
)
from runtide.warehouse.queries.series import Extent, Window, extents, series
from runtide.warehouse.queries.streams import StreamRow, streams

__all__ = [
    "Canary",
    "Extent",
    "LogRow",
    "RunRow",
    "Selection",
    "StreamRow",
    "Window",
    "beat_stored",
    "canary",
    "content_version",
    "count_runs",
    "extents",
    "last_values",
    "log_tail",
    "projects",
    "resources",
    "run",
    "runs",
    "series",
    "streams",
    "usual_metrics",
]
