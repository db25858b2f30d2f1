"""`runtide dead-letters`: list, show, replay, discard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runtide.cli import options

if TYPE_CHECKING:
    from runtide.cli.letters import Choice

letters_app = typer.Typer(
    name="dead-letters",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Records that could not be understood: list them, show one, store them after a fix, or give them up.

    Where the gateway asks for tokens, replay and discard need one of role admin, in RUNTIDE_TOKEN; the ruling is kept
    with who, when and why (view dead_letter_rulings).
    """,
)

Run = Annotated[
    str | None, typer.Argument(metavar="[RUN]", help="A run's id or name; - for letters of no run.", show_default=False)
]
All = Annotated[bool, typer.Option("--all", help="Of all runs and projects.")]
Stream = Annotated[
    str | None,
    typer.Option("--stream", help="Only this stream; the beginning of its id is enough.", show_default=False),
]
Offset = Annotated[int | None, typer.Option("--offset", help="Only the one here; needs --stream.", show_default=False)]
Url = Annotated[
    str | None,
    typer.Option("--url", help="The gateway, grpc://HOST:PORT; RUNTIDE_URL, else the home's.", show_default=False),
]
Wait = Annotated[float, typer.Option("--wait", metavar="SECONDS", min=0, help="How long to wait for the sink.")]


@letters_app.command("list")
def list_(
    run: Run = None,
    project: options.Project = None,
    stream: Stream = None,
    done: Annotated[bool, typer.Option("--all", "--done", help="Those too that were replayed or discarded.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")] = 100,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """List dead letters with the reason of each, newest first; of all runs, unless one is given.

    --json tells of each letter what became of it so far: by whose word, with which token, when and why.

    Example: runtide dead-letters list 7c2f --all --json
    """
    from runtide.cli import letters, tables
    from runtide.cli.store import open_store

    with open_store(home, clickhouse) as client:
        found = letters.find(client, _choice(run, project, False, stream, None), done=done, limit=limit)
        told = letters.with_rulings(client, found) if as_json else []
    if as_json:
        tables.print_json(told)
    else:
        tables.print_table([letters.brief(letter) for letter in found], empty="no dead letters")


@letters_app.command()
def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's id or name; - for letters of no run.")],
    stream: Annotated[str, typer.Argument(metavar="STREAM", help="The stream; the start of its id is enough.")],
    offset: Annotated[int, typer.Argument(metavar="OFFSET", min=0, help="Where it begins in the stream.")],
    project: options.Project = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Show one dead letter: why it is one, what can be read of it, and its bytes.

    Example: runtide dead-letters show 7c2f 0192f0 4711
    """
    from runtide.cli import letters, tables
    from runtide.cli.store import open_store
    from runtide.warehouse.queries.letters import dump

    with open_store(home, clickhouse) as client:
        found = letters.whole(client, letters.Choice(run, project, stream=stream, offset=offset))
    if as_json:
        tables.print_json(found)
        return
    records, raw, rulings = found.pop("records"), bytes.fromhex(found.pop("hex")), found.pop("rulings")
    tables.print_table([{"dead letter": name, "": value} for name, value in found.items()])
    if rulings:
        tables.print_table(rulings)
    tables.print_json(records)
    for line in dump(raw, "--json has all"):
        print(line)


@letters_app.command()
def replay(
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for who asks later.")] = "",
    run: Run = None,
    project: options.Project = None,
    everything: All = False,
    stream: Stream = None,
    offset: Offset = None,
    wait: Wait = 60,
    url: Url = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Have dead letters judged again by the sink, after a fix. What it takes now falls into its place in the stream.

    What fails again stays a dead letter with the new reason; exit code 1 where that is so, or where the sink has not
    answered. RUNTIDE_TOKEN must be an admin token of the project where the gateway asks for tokens.

    Example: runtide dead-letters replay 7c2f --reason "fixed in 1.4.2"
    """
    _rule(_choice(run, project, everything, stream, offset), reason, False, wait, url, as_json, home, clickhouse)


@letters_app.command()
def discard(
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; `runtide verify` tells it.")],
    run: Run = None,
    project: options.Project = None,
    everything: All = False,
    stream: Stream = None,
    offset: Offset = None,
    wait: Wait = 60,
    url: Url = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Give dead letters up for good: a declared loss, with who, when and why. Their bytes are kept.

    RUNTIDE_TOKEN must be an admin token of the project where the gateway asks for tokens.

    Example: runtide dead-letters discard 7c2f --reason "written by a test"
    """
    _rule(_choice(run, project, everything, stream, offset), reason, True, wait, url, as_json, home, clickhouse)


def _choice(run: str | None, project: str | None, everything: bool, stream: str | None, offset: int | None) -> Choice:
    from runtide.cli.letters import Choice

    return Choice(run, project, everything, stream, offset)


def _rule(
    choice: Choice,
    reason: str,
    discard: bool,
    wait: float,
    url: str | None,
    as_json: bool,
    home: Path | None,
    clickhouse: str | None,
) -> None:
    from runtide.cli import letters, tables
    from runtide.cli.store import open_store
    from runtide.warehouse.rulings import Word, account

    choice.check()
    word = Word(account(), reason, discard)
    with open_store(home, clickhouse) as client:
        done = letters.rule(client, letters.find(client, choice), home, url, word, wait)
    if as_json:
        tables.print_json([letters.plain(outcome) for outcome in done])
    else:
        tables.print_table(letters.summed(done), empty="no dead letters that are still open")
    raise typer.Exit(0 if all(outcome.done for outcome in done) else 1)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(letters_app)
