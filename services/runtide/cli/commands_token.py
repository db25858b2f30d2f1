"""Commands about who may do what: token create, token list, token revoke."""

from __future__ import annotations

from typing import Annotated

import typer

from runtide.cli import options
from runtide.wire.roles import Role

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Who may do what: make, list and revoke tokens.

    A token belongs to one project and has one role: writer (a job: pushes and asks), reader (a page or a check: only
    asks), admin (a person: all of that, and alone may replay and discard dead letters). It is shown once and kept as a
    hash: in the home, or on Kafka where RUNTIDE_KAFKA_BOOTSTRAP is set and no --home is given. Gateways hear of every
    change within seconds. As long as no token was ever made, a gateway on loopback lets everybody in; from the first
    one on every call needs one.

    Example: runtide token create --project vision --role writer --expires 30d
    """,
)

Home = options.Home


@app.command()
def create(
    project: Annotated[str, typer.Option("--project", "-p", help="What the token is for.", show_default=False)],
    role: Annotated[Role, typer.Option("--role", "-r", help="What its holder may do.", show_default=False)],
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="WHEN", help="30d, 12h, or a date: 2030-01-31.", show_default=False),
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Who has it, for people.", show_default=False)] = "",
    as_json: options.AsJson = False,
    home: Home = None,
) -> None:
    """Make a token and print it, this once, on a line of its own. Jobs take it from RUNTIDE_TOKEN.

    Example: export RUNTIDE_TOKEN=$(runtide token create --project vision --role writer --expires 30d)
    """
    from runtide.cli import tables, tokens

    made, text = tokens.create(home, project, role, name, expires)
    if as_json:
        tables.print_json({"token": text, **tokens.row(made)})
        return
    typer.echo(f"{made.role} token {made.id} of project {made.project}; it is not shown again:", err=True)
    print(text)


@app.command("list")
def list_(
    project: options.Project = None,
    as_json: options.AsJson = False,
    home: Home = None,
) -> None:
    """List tokens, the newest first, without their text: id, project, role, name, times, state.

    Example: runtide token list --project vision --json
    """
    from runtide.cli import tables, tokens

    found = [tokens.row(token) for token in tokens.listed(home, project)]
    if as_json:
        tables.print_json(found)
    else:
        tables.print_table(found, empty="no tokens: a gateway on loopback lets everybody in")


@app.command()
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `runtide token list` shows it.")],
    home: Home = None,
) -> None:
    """End a token for good, within seconds on every gateway. What was taken in before stays.

    Example: runtide token revoke 4f1c9a0b77d2
    """
    from runtide.cli import tokens

    ended = tokens.revoke(home, token_id)
    print(f"token {ended.id} of project {ended.project} is revoked")


def register(into: typer.Typer) -> None:
    """Add the commands of this file."""
    into.add_typer(app, name="token")
