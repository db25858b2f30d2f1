"""What dashboards and the command line ask the warehouse: plain functions of a client, bounded in what they return.

Each function takes a clickhouse-connect client first. Nothing here writes, and nothing pulls a long series into Python.
"""

from runtide.warehouse.dead_letters import (
    Letter,
    Ruled,
    Which,
    count_letters,
    found_letters,
    letters_of,
    rulings_of,
)
from runtide.warehouse.queries.canary import Canary, beat_stored, canary
from runtide.warehouse.queries.letters import dump, records_in
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
    "Letter",
    "LogRow",
    "Ruled",
    "RunRow",
    "Selection",
    "StreamRow",
    "Which",
    "Window",
    "beat_stored",
    "canary",
    "content_version",
    "count_letters",
    "count_runs",
    "dump",
    "extents",
    "found_letters",
    "last_values",
    "letters_of",
    "log_tail",
    "projects",
    "records_in",
    "resources",
    "rulings_of",
    "run",
    "runs",
    "series",
    "streams",
    "usual_metrics",
]
