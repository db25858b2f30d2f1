"""Commands about what was run before: duplicates and the space explored."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from runtide.cli import options

_DUPLICATES = """
SELECT project, experiment, first_run, first_at, runs, run_ids, seconds, finished, code, config, data
FROM runtide.duplicates WHERE {project:String} = '' OR project = {project:String}
ORDER BY seconds DESC, first_at LIMIT {limit:UInt32}
"""
_EXPLORED = """
SELECT project, experiment, key, value, runs, finished, under_way, last_at FROM runtide.explored
WHERE ({project:String} = '' OR project = {project:String})
    AND ({experiment:String} = '' OR experiment = {experiment:String})
ORDER BY project, experiment, key, value
"""
_OF_A_GROUP = ("project", "first_run", "runs", "finished", "seconds", "run_ids")
_OF_A_VALUE = ("experiment", "key", "value", "runs", "finished", "under_way")


def duplicates(
    project: options.Project = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The dearest so many groups.")] = 50,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """List what was run more than once with the same code, configuration and data, and what repeating it cost.

    Example: runtide duplicates --project vision
    """
    from runtide.cli import tables
    from runtide.cli.store import open_store, rows

    with open_store(home, clickhouse) as client:
        found = rows(client, _DUPLICATES, project=project or "", limit=limit)

    def show(found: Any) -> None:
        tables.print_table([{name: row[name] for name in _OF_A_GROUP} for row in found])
        seconds = sum(row["seconds"] for row in found)
        print(f"{len(found)} groups; repeating cost {seconds / 3600:.3g} process-hours")

    tables.show(found, as_json, show)


def explored(
    project: options.Project = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", help="Only of this one.", show_default=False)
    ] = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Show the space explored so far: each value of each key of the configuration, and how many runs tried it.

    Example: runtide explored --project vision --experiment baseline
    """
    from runtide.cli import tables
    from runtide.cli.store import open_store, rows

    with open_store(home, clickhouse) as client:
        found = rows(client, _EXPLORED, project=project or "", experiment=experiment or "")
    tables.show(found, as_json, _show_explored)


def _show_explored(found: Any) -> None:
    from runtide.cli import tables

    tables.print_table([{name: row[name] for name in _OF_A_VALUE} for row in found])


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(duplicates)
    app.command()(explored)
