"""`runtide kpi`: log, import, list."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runtide.cli import options

kpi_app = typer.Typer(
    name="kpi",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Business figures of runs and model versions, however long these are over: say one, import a file, list them.

    A SUBJECT is run:ID or model:NAME@VERSION. Said again for the same subject, name and time, the later value counts.
    """,
)

Project = Annotated[
    str | None,
    typer.Option("--project", "-p", help="The project; RUNTIDE_PROJECT, else the token's.", show_default=False),
]
Url = Annotated[
    str | None,
    typer.Option("--url", help="The gateway, grpc://HOST:PORT; RUNTIDE_URL, else the home's.", show_default=False),
]
Unit = Annotated[str | None, typer.Option("--unit", help="Such as EUR or %.", show_default=False)]
Goal = Annotated[str | None, typer.Option("--goal", help="min, max, or the value to reach.", show_default=False)]


def _column(of: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(f"--{of}-column", metavar="NAME", help=f"What the file calls {of}.")
    return option


@kpi_app.command()
def log(
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="run:ID or model:NAME@VERSION.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as click-through rate, churn or ROI.")],
    value: Annotated[str, typer.Argument(metavar="VALUE", help="A number.")],
    time: Annotated[
        str | None,
        typer.Option("--time", help="When it was true: ISO 8601 in UTC, or seconds; now.", show_default=False),
    ] = None,
    unit: Unit = None,
    goal: Goal = None,
    project: Project = None,
    url: Url = None,
    home: options.Home = None,
) -> None:
    """Say one business figure.

    Example: runtide kpi log model:ranker@3 "click-through rate" 0.041 --time 2026-11-01 --goal max
    """
    from runtide.cli import kpis
    from runtide.sdk.kpis import Figure

    print(kpis.send([Figure.of(subject, name, value, time, unit, goal)], project, url, home))


@kpi_app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV in UTF-8 with a line of names first.")],
    subject_column: Annotated[str, _column("subject")] = "subject",
    name_column: Annotated[str, _column("name")] = "name",
    value_column: Annotated[str, _column("value")] = "value",
    time_column: Annotated[str, _column("time")] = "time",
    unit_column: Annotated[str, _column("unit")] = "unit",
    goal_column: Annotated[str, _column("goal")] = "goal",
    time: Annotated[
        str | None, typer.Option("--time", help="Of lines that say none: ISO 8601, or seconds.", show_default=False)
    ] = None,
    delimiter: Annotated[str, typer.Option("--delimiter", help="What stands between two cells.")] = ",",
    project: Project = None,
    url: Url = None,
    home: options.Home = None,
) -> None:
    """Import business figures from a file: all of it, or nothing where a line cannot be. Once more changes nothing.

    Columns: subject, name, value and time; unit and goal where they are there.

    Example: runtide kpi import november.csv --project shop
    """
    from runtide.cli import kpis
    from runtide.wire.errors import BadInput

    if len(delimiter) != 1:
        raise BadInput("--delimiter", repr(delimiter), "it is one character")
    names = (subject_column, name_column, value_column, time_column, unit_column, goal_column)
    found = kpis.read(file, dict(zip(kpis.COLUMNS, names, strict=True)), time, delimiter)
    print(kpis.send(found, project, url, home))


@kpi_app.command("list")
def list_(
    project: options.Project = None,
    subject: Annotated[str | None, typer.Option("--subject", help="Only of this one.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option("--name", help="Only this figure.", show_default=False)] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The latest so many.")] = 100,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """List business figures, the latest first.

    Example: runtide kpi list --subject model:ranker@3
    """
    from runtide.cli import kpis, tables
    from runtide.cli.store import open_store

    with open_store(home, clickhouse) as client:
        found = kpis.find(client, project, subject, name, limit)
    tables.show(found, as_json, lambda rows: tables.print_table(rows, empty="no KPIs"))


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(kpi_app)
