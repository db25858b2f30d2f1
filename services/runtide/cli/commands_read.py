"""Commands that read what is stored: runs, show, tail, sql, verify, rebuild."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from runtide.cli import options
from runtide.wire.errors import BadInput


def runs(
    project: options.Project = None,
    state: Annotated[str | None, typer.Option("--state", help="Only runs in this state.", show_default=False)] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")] = 50,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """List runs, newest first.

    Example: runtide runs --project vision --state running
    """
    from runtide.cli import reading, tables
    from runtide.cli.store import open_store
    from runtide.wire.states import RunState

    if state is not None and state not in set(RunState):
        raise BadInput("--state", repr(state), f"it is one of {', '.join(RunState)}")
    with open_store(home, clickhouse) as client:
        found = reading.list_runs(client, project, state, limit)
    tables.show(found, as_json, reading.print_runs)


def show(
    run: options.Run,
    project: options.Project = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Show one run: state, configuration, metrics, what it ran on and which files say so, datasets, streams.

    Example: runtide show 7c2f --json
    """
    from runtide.cli import reading, tables
    from runtide.cli.store import find_run, open_store

    with open_store(home, clickhouse) as client:
        found = reading.whole_run(client, find_run(client, run, project))
    tables.show(found, as_json, reading.print_run)


def tail(
    run: options.Run,
    project: options.Project = None,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Follow a run: console lines and last values as they come, until it ends or Ctrl-C.

    Example: runtide tail 7c2f
    """
    from runtide.cli.store import find_run, open_store
    from runtide.cli.tail import follow

    with open_store(home, clickhouse) as client:
        state = follow(client, find_run(client, run, project), print)
    print(f"run {run} {state}")


def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="One statement; - reads it from standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a row.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV with a header.")] = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Ask ClickHouse. The views are runs, metrics, metric_summary, step_stats, resources, logs, streams, attempts,
    dead_letter_rulings, environments, files, fingerprints, confusion_matrices, curves, curve_areas, histograms, images,
    metric_definitions, run_metrics, duplicates, explored, completeness, dataset_uses, datasets, kpis, calibrations,
    artifacts, artifact_files, artifact_uses, artifact_words, costs, run_costs, audit, run_changes, deleted_runs,
    comments, claims, saved_views, experiments, experiment_runs, experiment_dependencies.

    A statement that ends in FORMAT and a name is answered in that format.

    Example: runtide sql "SELECT run_id, metric, last FROM metric_summary WHERE rank = -1"
    """
    from runtide.cli import tables
    from runtide.cli.store import open_store, rows

    text = (sys.stdin.read() if query == "-" else query).strip().rstrip(";")
    if not text:
        raise BadInput("QUERY", "empty", "it is one SQL statement")
    own_format = re.search(r"\bFORMAT\s+\w+\s*\Z", text, re.IGNORECASE) is not None
    with open_store(home, clickhouse) as client:
        if as_json or as_csv or own_format:
            name = None if own_format else "CSVWithNames" if as_csv else "JSONEachRow"
            with client.raw_stream(text, fmt=name) as stream:
                for chunk in stream:
                    sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
        else:
            tables.print_table(rows(client, text), empty="no rows")


def verify(
    run: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="A run's id, the beginning of one, PROJECT/ID, or a name."),
    ] = None,
    project: options.Project = None,
    every: Annotated[bool, typer.Option("--all", help="All runs of all projects.")] = False,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Compare what each stream of a run declared with what is stored; exit code 1 if they differ.

    Without RUN all runs of a project (--project) or of all projects (--all) are judged, a line each.

    Example: runtide verify 7c2f
    """
    from runtide.cli import checking, tables
    from runtide.cli.store import find_run, known_runs, open_store

    if run is None and project is None and not every:
        raise BadInput("RUN", "missing", "verify needs a run, --project or --all")
    with open_store(home, clickhouse) as client:
        if run is not None:
            found = checking.check(client, find_run(client, run, project))
            tables.show(found, as_json, checking.show)
            raise typer.Exit(0 if found["clean"] else 1)
        of_all = [checking.check(client, key) for key in known_runs(client, project)]
    tables.show(of_all, as_json, checking.show_all)
    raise typer.Exit(0 if all(found["clean"] for found in of_all) else 1)


def rebuild(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run's id or name; all runs without it.")] = None,
    project: options.Project = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also runs whose raw rows have gone: what they said is lost.")
    ] = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Make all derived rows again from the raw ones, of one run, one project or everything.

    Runs of which raw rows have gone, by retention or otherwise, are left as they are.

    Example: runtide rebuild 7c2f
    """
    from runtide.cli.store import find_run, open_store
    from runtide.processor.rebuild import rebuild as rebuild_rows

    with open_store(home, clickhouse, writer=True) as client:
        key = find_run(client, run, project) if run else None
        done = rebuild_rows(client, key.project if key else project, key.run_id if key else None, _progress, force)
    print(f"made the derived rows of {done.made} runs again")
    if done.kept:
        names = ", ".join(f"{kept.project}/{kept.run_id}" for kept in done.kept)
        print(f"left {len(done.kept)} as they are, raw rows of them have gone (--force insists): {names}")


def _progress(done: int, total: int, name: str) -> None:
    if name:
        print(f"{done + 1}/{total} {name}", flush=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (runs, show, tail, sql, verify, rebuild):
        app.command()(command)
