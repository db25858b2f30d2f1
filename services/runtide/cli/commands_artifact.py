"""`runtide artifact`: list, get, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from runtide.cli import options

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Files and folders that runs made: list versions, fetch them, check what is stored.",
)

Which = Annotated[
    str, typer.Argument(metavar="NAME[:VERSION]", help="A version, v3 or 3, or an alias; else the latest.")
]
Url = Annotated[
    str | None,
    typer.Option("--url", help="The gateway, grpc://HOST:PORT; RUNTIDE_URL, else the home's.", show_default=False),
]


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only of this name.", show_default=False)] = None,
    project: options.Project = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """List versions of artifacts.

    Example: runtide artifact list model --project vision
    """
    from runtide.cli import artifacts, tables
    from runtide.cli.store import open_store

    with open_store(home, clickhouse) as client:
        found = artifacts.versions(client, project, name or "")
    tables.show(found, as_json, artifacts.print_versions)


@app.command()
def get(
    which: Which,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder that the files go to.")] = Path(),
    project: options.Project = None,
    url: Url = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Fetch the files of a version, each checked by its digest. What was cut off goes on where it was.

    Needs a token in RUNTIDE_TOKEN where the gateway asks for one; every role may read.

    Example: runtide artifact get model:best --to models
    """
    from runtide.cli import artifacts, tables
    from runtide.cli.store import open_store

    with open_store(home, clickhouse) as client, artifacts.store(home, url) as gateway:
        found = artifacts.get(client, gateway, artifacts.find(client, which, project), to)
    tables.show(found, as_json, tables.print_table)


@app.command()
def verify(
    which: Annotated[
        str | None, typer.Argument(metavar="[NAME[:VERSION]]", help="Only this one.", show_default=False)
    ] = None,
    project: options.Project = None,
    url: Url = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Read what is stored of artifacts and compare it with the digests; exit code 1 where something is damaged.

    Example: runtide artifact verify --project vision
    """
    from runtide.cli import artifacts, tables
    from runtide.cli.store import open_store

    with open_store(home, clickhouse) as client, artifacts.store(home, url) as gateway:
        chosen = [artifacts.find(client, which, project)] if which else artifacts.versions(client, project)
        found = artifacts.check(client, gateway, chosen)
    tables.show(found, as_json, lambda judged: tables.print_table(judged, empty="no artifacts"))
    if any(row["state"] == "damaged" for row in found):
        raise typer.Exit(1)


def register(into: typer.Typer) -> None:
    """Add the commands of this file."""
    into.add_typer(app, name="artifact")
