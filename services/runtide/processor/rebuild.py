"""`runtide rebuild`: throw away what is derived and derive it anew from raw rows, run by run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from clickhouse_connect.driver.client import Client

from runtide.processor import sql
from runtide.processor.deriver import Deriver
from runtide.processor.dirty import Run
from runtide.warehouse.verify import verify_run

Progress = Callable[[int, int, str], None]
"""Called with the number of runs done, of all, and the name of the next one."""


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild did."""

    made: int = 0
    """Runs that were derived anew."""
    kept: list[Run] = field(default_factory=list)
    """Runs left as they are: raw rows have gone, and what was derived of them cannot be made again."""


def rebuild(
    client: Client,
    project: str | None = None,
    run_id: str | None = None,
    progress: Progress | None = None,
    force: bool = False,
) -> Rebuilt:
    """Derive all runs anew, or those of a project, or one; with `force` also those whose raw rows have gone in part.

    May run beside the services: both replace rows whole, and the version decides. Raises StoreError.
    """
    runs = client.query(sql.known_runs(project, run_id)).result_rows
    deriver = Deriver(lambda: client)
    done = Rebuilt()
    for place, run in enumerate(Run(*names) for names in runs):
        if progress is not None:
            progress(place, len(runs), f"{run.project}/{run.run_id}")
        if not force and verify_run(client, *run).gone:
            done.kept.append(run)
            continue
        deriver.rebuild(run)
        done.made += 1
    if progress is not None:
        progress(len(runs), len(runs), "")
    return done
