"""Experiments: objective, plan, budget, dependencies and decisions of named groups of runs, and the report of them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runtide.cli import options
from runtide.wire.errors import BadInput
from runtide.wire.experiments import parse_budget

if TYPE_CHECKING:
    from runtide.cli.experiments import Row

experiment_app = typer.Typer(
    name="experiment",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Experiments: named groups of runs with an objective, a plan, a budget, dependencies and decisions.

    A run belongs to one by `runtide.init(experiment=NAME)`. What is said here is in the audit trail.
    """,
)


class Needs(StrEnum):
    """What one thing takes from another."""

    DATA = "data"
    MODEL = "model"
    ORDER = "order"


class Decision(StrEnum):
    """What can be decided."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    POSTPONED = "postponed"


class Format(StrEnum):
    """Of a report."""

    MD = "md"
    HTML = "html"


Name = Annotated[str, typer.Argument(metavar="NAME", help="The experiment.", show_default=False)]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for who asks later.")]
Url = Annotated[
    str | None,
    typer.Option("--url", help="The gateway, grpc://HOST:PORT; RUNTIDE_URL, else the home's.", show_default=False),
]
Objective = Annotated[
    str | None, typer.Option("--objective", metavar="TEXT", help="METRIC max|min TARGET.", show_default=False)
]
Hypothesis = Annotated[
    str | None, typer.Option("--hypothesis", metavar="TEXT", help="What is expected.", show_default=False)
]
Owner = Annotated[str | None, typer.Option("--owner", metavar="TEXT", help="Whose it is.", show_default=False)]
Budget = Annotated[
    str | None,
    typer.Option("--budget", metavar="TEXT", help="NUMBER gpu-hours|hours|EUR and so on.", show_default=False),
]
From = Annotated[
    str | None, typer.Option("--from", metavar="DATE", help="Planned start, YYYY-MM-DD.", show_default=False)
]
To = Annotated[str | None, typer.Option("--to", metavar="DATE", help="Planned end.", show_default=False)]
Deadline = Annotated[
    str | None, typer.Option("--deadline", metavar="DATE", help="When the objective has to be met.", show_default=False)
]


@experiment_app.command()
def create(
    name: Name,
    objective: Objective = None,
    hypothesis: Hypothesis = None,
    owner: Owner = None,
    budget: Budget = None,
    from_: From = None,
    to: To = None,
    deadline: Deadline = None,
    project: options.Project = None,
    url: Url = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Create an experiment; all of it can be said later too.

    Example: runtide experiment create wide-nets --objective "val/acc max 0.95" --budget "200 gpu-hours"
    """
    from runtide.cli import experiments

    told = experiments.told_of(objective, hypothesis, owner, budget, {"from": from_, "to": to, "deadline": deadline})
    _show(experiments.create(name, told, experiments.Where(project, url, home, clickhouse)), as_json)


@experiment_app.command("list")
def list_(
    project: options.Project = None,
    alerts: Annotated[
        bool, typer.Option("--alerts", help="Only those that have used 80 % of their budget; exit code 1 if any has.")
    ] = False,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """List experiments with progress, blocked or ready, and what is used of the budget.

    With --alerts it is for cron and the like: it exits with 1 before a limit is reached, and from then on.

    Example: runtide experiment list --json
    """
    from runtide.cli import experiment_pages, experiments, tables
    from runtide.cli.store import open_store

    with open_store(home, clickhouse) as client:
        found, edges = experiments.listed(client, project), experiments.edges(client, project)
    rows = [
        row | {"blocked_by": experiment_pages.blocked_by(row, edges)}
        for row in found
        if row["budget_alert"] or not alerts
    ]
    if as_json:
        tables.print_json(rows)
    else:
        tables.print_table(
            [experiment_pages.line(row) for row in rows], empty="no alerts" if alerts else "no experiments"
        )
    if alerts and rows:
        raise typer.Exit(1)


@experiment_app.command()
def show(
    name: Name,
    project: options.Project = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Show one: its runs in order, with the best value so far and the budget burning down, dependencies, decisions.

    Example: runtide experiment show wide-nets
    """
    from runtide.cli import experiment_pages, experiments, tables
    from runtide.cli.store import open_store

    with open_store(home, clickhouse) as client:
        found = experiments.whole(client, name, project)
    tables.show(found, as_json, experiment_pages.print_whole)
    _warn(found["experiment"])


@experiment_app.command()
def plan(
    name: Name,
    objective: Objective = None,
    hypothesis: Hypothesis = None,
    owner: Owner = None,
    from_: From = None,
    to: To = None,
    deadline: Deadline = None,
    reason: Reason = "",
    project: options.Project = None,
    url: Url = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Plan an experiment, or change what was planned; what is not told stays.

    Example: runtide experiment plan wide-nets --from 2026-03-01 --to 2026-03-20 --reason "the data came late"
    """
    from runtide.cli import experiments

    told = experiments.told_of(objective, hypothesis, owner, None, {"from": from_, "to": to, "deadline": deadline})
    _show(experiments.plan(name, told, reason, experiments.Where(project, url, home, clickhouse)), as_json)


@experiment_app.command()
def depend(
    what: Annotated[
        str, typer.Argument(metavar="NAME", help="The experiment, or run:ID of a run.", show_default=False)
    ],
    on: Annotated[str, typer.Argument(metavar="ON", help="experiment:NAME or run:ID.", show_default=False)],
    needs: Annotated[Needs, typer.Option("--needs", help="What it takes from there.")] = Needs.ORDER,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="Why.")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="It does not wait for it any more.")] = False,
    project: options.Project = None,
    url: Url = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Say that an experiment or a run waits for another experiment or run.

    It is ready when the other has met its objective or was accepted, or the run has finished.

    Example: runtide experiment depend fine-tune experiment:wide-nets --needs model
    """
    from runtide.cli import experiment_pages, experiments, tables

    where = experiments.Where(project, url, home, clickhouse)
    found = experiments.depend(what, on, needs.value, why, remove, where)
    tables.show(found, as_json, experiment_pages.print_one)


@experiment_app.command()
def decide(
    name: Name,
    decision: Annotated[Decision, typer.Argument(help="What was decided.", show_default=False)],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it stays in the audit trail.")],
    project: options.Project = None,
    url: Url = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Record a decision. The last one counts, all of them are kept.

    Example: runtide experiment decide wide-nets accepted --reason "0.96 on three seeds"
    """
    from runtide.cli import experiments

    if not reason.strip():
        raise BadInput("--reason", repr(reason), "it must say why it was decided")
    where = experiments.Where(project, url, home, clickhouse)
    _show(experiments.say(name, "decision", decision.value, reason, where), as_json)


@experiment_app.command()
def budget(
    name: Name,
    amount: Annotated[
        str, typer.Argument(metavar="BUDGET", help="NUMBER gpu-hours|hours|EUR and so on.", show_default=False)
    ],
    reason: Reason = "",
    project: options.Project = None,
    url: Url = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Set the budget, in place of what it was. It is said when 80 % and when all of it are used; nothing is stopped.

    Example: runtide experiment budget wide-nets "200 gpu-hours"
    """
    from runtide.cli import experiments

    after = parse_budget(amount)
    where = experiments.Where(project, url, home, clickhouse)
    _show(experiments.say(name, "budget", after, reason, where), as_json)


@experiment_app.command()
def report(
    project: options.Project = None,
    format_: Annotated[Format, typer.Option("--format", help="md for Markdown, or html.")] = Format.MD,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Into a new file; else it is printed.", show_default=False),
    ] = None,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Write a report: objectives met, best runs and models, plan and actual, cost to date, decisions, dependencies.

    Example: runtide experiment report --project vision --format html --out report.html
    """
    from runtide.cli import experiment_report
    from runtide.cli.store import open_store

    with open_store(home, clickhouse) as client:
        made = experiment_report.made(client, project)
    text = experiment_report.as_html(made) if format_ is Format.HTML else experiment_report.as_markdown(made)
    if out is None:
        print(text, end="")
        return
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise BadInput("--out", str(out), f"it cannot be written: {error.strerror}") from error
    print(f"wrote {out}")


def _show(row: Row, as_json: bool) -> None:
    from runtide.cli import experiment_pages, tables

    tables.show(row, as_json, experiment_pages.print_one)
    _warn(row)


def _warn(row: Row) -> None:
    """Say beside the answer, JSON or not, that a budget is nearly or wholly used up."""
    from runtide.cli import experiment_pages

    if says := experiment_pages.alert(row):
        typer.echo(f"runtide: {says}", err=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(experiment_app)
