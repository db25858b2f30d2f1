"""Changing runs afterwards, tag, note, comment, rename, delete, restore, and the audit trail that all of it is in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from runtide.cli import options
from runtide.wire.errors import BadInput

audit_app = typer.Typer(
    name="audit",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Who changed what, when and why, before and after: a chain of hashes for each project, that only grows.

    Whoever has write access to ClickHouse could write a whole chain anew: keep its head, which `runtide audit verify`
    prints, somewhere else, and ask for it later with --head.
    """,
)

Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for who asks later.")]
Text = Annotated[str, typer.Argument(metavar="TEXT", help="The words.", show_default=False)]
Url = Annotated[
    str | None,
    typer.Option("--url", help="The gateway, grpc://HOST:PORT; RUNTIDE_URL, else the home's.", show_default=False),
]


def tag(
    run: options.Run,
    tags: Annotated[list[str], typer.Argument(metavar="TAG...", help="Tags.", show_default=False)],
    remove: Annotated[bool, typer.Option("--remove", help="Take them away.")] = False,
    reason: Reason = "",
    project: options.Project = None,
    url: Url = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Give tags to a run, or take them away.

    Example: runtide tag 7c2f baseline paper
    """
    _change(run, "tag_remove" if remove else "tag_add", tags, reason, project, url, as_json, home, clickhouse)


def note(
    run: options.Run,
    text: Text,
    reason: Reason = "",
    project: options.Project = None,
    url: Url = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Set the notes of a run, in place of what they were.

    Example: runtide note 7c2f "diverges after step 3000"
    """
    _change(run, "notes", text, reason, project, url, as_json, home, clickhouse)


def comment(
    run: options.Run,
    text: Text,
    project: options.Project = None,
    url: Url = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Say something of a run, beside what others said (view comments).

    Example: runtide comment 7c2f "the loader was slow here"
    """
    _change(run, "comment", text, "", project, url, as_json, home, clickhouse)


def rename(
    run: options.Run,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new name.", show_default=False)],
    reason: Reason = "",
    project: options.Project = None,
    url: Url = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Give a run another name. Its id stays.

    Example: runtide rename 7c2f baseline-2
    """
    _change(run, "rename", name, reason, project, url, as_json, home, clickhouse)


def delete(
    run: options.Run,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it stays in the audit trail.")],
    project: options.Project = None,
    url: Url = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Hide a run: the view runs is without it, the view deleted_runs has it, and its data stays.

    RUNTIDE_TOKEN must be an admin token of the project where the gateway asks for tokens.

    Example: runtide delete 7c2f --reason "started by mistake"
    """
    _change(run, "delete", None, reason, project, url, as_json, home, clickhouse)


def restore(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's id, whole, or PROJECT/ID.", show_default=False)],
    reason: Reason = "",
    project: options.Project = None,
    url: Url = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Bring a deleted run back.

    Example: runtide restore 0192f3a1 --reason "it was the right one"
    """
    _change(run, "restore", None, reason, project, url, as_json, home, clickhouse)


def _change(
    run: str,
    kind: str,
    after: Any,
    reason: str,
    project: str | None,
    url: str | None,
    as_json: bool,
    home: Path | None,
    clickhouse: str | None,
) -> None:
    from runtide.cli import changing, tables

    kept = changing.change_run(run, kind, after, reason, project, url, home, clickhouse)
    if as_json:
        tables.print_json(kept)
    else:
        print(f"{kept['kind']} of {kept['subject']}: change {kept['seq']} of project {kept['project']}")


@audit_app.command("list")
def list_(
    subject: Annotated[
        str | None, typer.Argument(metavar="[SUBJECT]", help="Only of run:ID, model:NAME ...", show_default=False)
    ] = None,
    project: options.Project = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")] = 100,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """List changes, newest first.

    Example: runtide audit list run:7c2f --json
    """
    from runtide.cli import changing, tables
    from runtide.cli.store import open_store

    with open_store(home, clickhouse) as client:
        found = changing.listed(client, project, subject, limit)
    if as_json:
        tables.print_json(found)
    else:
        tables.print_table([{**row, "hash": row["hash"][:12]} for row in found], empty="no changes")


@audit_app.command()
def verify(
    head: Annotated[
        str | None,
        typer.Option("--head", metavar="HASH", help="A head that was kept: it must be in a chain.", show_default=False),
    ] = None,
    project: options.Project = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Recompute every chain and print its head; exit code 1, naming the first row that does not fit, if one does not.

    Example: runtide audit verify --project vision --head 4be1...
    """
    from runtide.cli import changing, tables
    from runtide.cli.store import open_store

    with open_store(home, clickhouse) as client:
        found = changing.verified(client, project, head)
    if as_json:
        tables.print_json([changing.of_verified(each) for each in found])
    else:
        changing.show_verified(found)
    raise typer.Exit(1 if any(each.problems for each in found) else 0)


@audit_app.command()
def export(
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="Into a new file; else it is printed.", show_default=False),
    ] = None,
    project: options.Project = None,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Write the whole trail as JSON lines, with everything that the hashes are made of.

    Example: runtide audit export --project vision --to vision-audit.jsonl
    """
    from runtide.cli import changing
    from runtide.cli.store import open_store

    with open_store(home, clickhouse) as client:
        found = changing.lines(client, project)
        if to is None:
            for line in found:
                print(line)
            return
        try:
            with to.open("x", encoding="utf-8") as file:
                number = sum(bool(file.write(f"{line}\n")) for line in found)
        except OSError as error:
            raise BadInput("--to", str(to), f"it cannot be written: {error.strerror}") from error
    print(f"wrote {number} changes to {to}")


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (tag, note, comment, rename, delete, restore):
        app.command()(command)
    app.add_typer(audit_app)
