"""Commands that compare and take out what is stored: compare, leaderboard, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from runtide.cli import options
from runtide.wire.errors import BadInput

Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", "-m", help="Only this metric counts; may be repeated.", show_default=False),
]


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN RUN...", help="Ids, beginnings of ids, PROJECT/ID, or names.", show_default=False),
    ],
    project: options.Project = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            metavar="T",
            min=0,
            help="Only say whether final values differ by more than T, or that part of them; exit code 1 if so.",
            show_default=False,
        ),
    ] = None,
    metric: Metrics = None,
    step: Annotated[
        int | None, typer.Option("--step", help="Also the values at this step.", show_default=False)
    ] = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Compare runs with the first: configuration, code, packages, datasets, metrics, figures.

    Example: runtide compare 7c2f 91aa --tolerance 0
    """
    from runtide.api import Api
    from runtide.cli import comparing, tables
    from runtide.cli.store import find_run, open_store

    if len(runs) < 2:
        raise BadInput("RUN", runs[0], "compare needs two runs at least")
    with open_store(home, clickhouse) as client:
        keys = [find_run(client, run, project) for run in runs]
        found = Api(client=client).compare([f"{key.project}/{key.run_id}" for key in keys], step)
    if tolerance is None:
        if as_json:
            tables.print_json(found.to_dict())
        else:
            comparing.print_comparison(found)
        return
    outcomes = found.outcomes(tolerance, metric)
    compared = len(metric) if metric else len(found.computed())
    if not compared:
        raise BadInput("RUN", ", ".join(runs), "none of them has a metric, so there is nothing that could be the same")
    if as_json:
        same = {"same": not outcomes, "tolerance": tolerance, "compared": compared}
        tables.print_json({**same, "differ": [vars(outcome) for outcome in outcomes]})
    else:
        comparing.print_outcomes(outcomes, tolerance, compared)
    raise typer.Exit(1 if outcomes else 0)


def leaderboard(
    metric: Annotated[str, typer.Option("--metric", "-m", help="What is compared.", show_default=False)],
    goal: Annotated[
        str | None, typer.Option("--goal", help="min or max; as define_metric said.", show_default=False)
    ] = None,
    experiment: Annotated[
        str | None, typer.Option("--experiment", "-e", help="Only its runs.", show_default=False)
    ] = None,
    filter_: Annotated[
        str | None,
        typer.Option("--filter", help='Only these runs: SQL, such as "config.lr > 0.01".', show_default=False),
    ] = None,
    by: Annotated[str, typer.Option("--by", help="best, last, or mean:N of the last N steps.")] = "best",
    group: Annotated[
        list[str] | None,
        typer.Option(
            "--group",
            help="Key of the configuration; may be repeated. '*': everything but the seed.",
            show_default=False,
        ),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="Only runs that used it; may be repeated.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The best so many.")] = 50,
    project: options.Project = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Order runs, or groups of runs, by a metric.

    Example: runtide leaderboard --metric val/accuracy --goal max --group lr
    """
    from runtide.api import Api
    from runtide.cli import comparing, tables
    from runtide.cli.store import open_store

    with open_store(home, clickhouse) as client:
        api = Api(client=client, project=project)
        found = api.leaderboard(
            metric,
            goal,
            experiment=experiment,
            filter=filter_,
            by=by,
            group=group or None,
            datasets=dataset or (),
            limit=limit,
        ).rows()
    tables.show(found, as_json, comparing.print_groups if group else comparing.print_board)


def export(
    to: Annotated[Path, typer.Option("--to", help="Folder of the files, VIEW.parquet.", show_default=False)],
    project: options.Project = None,
    views: Annotated[
        str | None, typer.Option("--views", help="Names joined by commas; all of them without it.", show_default=False)
    ] = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Write everything of a project, or some views of it, to Parquet files.

    Example: runtide export --project vision --to vision-data --views runs,metric_summary
    """
    from runtide.api import Api
    from runtide.api.export import report
    from runtide.cli import tables
    from runtide.cli.store import open_store

    if project is None:
        raise BadInput("--project", "missing", "one project is exported")
    chosen = [name.strip() for name in views.split(",")] if views else None
    with open_store(home, clickhouse) as client:
        found = report(Api(client=client, project=project).export(to, chosen, _progress))
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    tables.show(found, as_json, tables.print_table)


def _progress(view: str, rows: int) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{view}: {rows:,} rows", end="", flush=True, file=sys.stderr)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (compare, leaderboard, export):
        app.command()(command)
