"""`runtide rebuild`: throw away what is derived and derive it anew from raw rows, run by run."""

from __future__ import annotations

from collections.abc import Callable

from clickhouse_connect.driver.client import Client

from runtide.processor import sql
from runtide.processor.deriver import Deriver
from runtide.processor.dirty import Run

Progress = Callable[[int, int, str], None]
"""Called with the number of runs done, of all, and the name of the next one."""


def rebuild(
    client: Client, project: str | None = None, run_id: str | None = None, progress: Progress | None = None
) -> int:
    """Derive all runs anew, or those of a project, or one; returns how many.

    May run beside the services: both replace rows whole, and the version decides. Raises StoreError.
    """
    runs = [Run(*row) for row in client.query(sql.known_runs(project, run_id)).result_rows]
    deriver = Deriver(lambda: client)
    for done, run in enumerate(runs):
        if progress is not None:
            progress(done, len(runs), f"{run.project}/{run.run_id}")
        deriver.rebuild(run)
    if progress is not None:
        progress(len(runs), len(runs), "")
    return len(runs)
