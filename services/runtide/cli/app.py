"""All commands in one Typer application. Each file of commands registers its own."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from runtide.cli import (
    commands_artifact,
    commands_changes,
    commands_chaos,
    commands_compare,
    commands_costs,
    commands_duplicates,
    commands_experiments,
    commands_kpi,
    commands_letters,
    commands_parts,
    commands_read,
    commands_reproduce,
    commands_token,
    commands_up,
)

app = typer.Typer(
    name="runtide",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Streaming experiment tracking: nothing lost, nothing counted twice, live within a second, all of it in SQL.",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"runtide {version('runtide')}")
        raise typer.Exit


@app.callback()
def _options(
    _version_asked: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    return


for commands in (
    commands_up,
    commands_read,
    commands_duplicates,
    commands_reproduce,
    commands_compare,
    commands_letters,
    commands_kpi,
    commands_changes,
    commands_costs,
    commands_experiments,
    commands_token,
    commands_parts,
    commands_artifact,
    commands_chaos,
):
    commands.register(app)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; errors of runtide are the caller's to print."""
    try:
        app(arguments, prog_name="runtide")
    except SystemExit as ended:
        sys.stdout.flush()
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0
