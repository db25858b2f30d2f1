"""`runtide chaos`: anyone may try whether something can be lost."""

from __future__ import annotations

import secrets
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from runtide.cli import options


def chaos(
    seconds: Annotated[float, typer.Option("--seconds", min=1, help="How long to do harm.")] = 60.0,
    kills: Annotated[int, typer.Option("--kills", min=0, help="Until so many were killed, instead of a time.")] = 0,
    seed: Annotated[
        int | None, typer.Option("--seed", help="What to do to whom; drawn and printed by default.", show_default=False)
    ] = None,
    writers: Annotated[int, typer.Option("--writers", min=1, help="Runs of three processes that log at a time.")] = 2,
    kafka: Annotated[
        str | None,
        typer.Option("--kafka", metavar="HOST:PORT", help="Through this Kafka, two of each part.", show_default=False),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Run a stack of its own under load, kill and freeze its parts at random, then check that everything is there once.

    Everything is stopped and removed at the end. Exit code 1 if anything was lost or is there twice.

    Example: runtide chaos --seconds 120 --seed 7
    """
    from runtide.cli import tables
    from runtide.cli.home import Home
    from runtide.testing.chaos import Chaos, KafkaTarget, Target, UpTarget
    from runtide.testing.kafka_stack import KafkaStack
    from runtide.testing.stack import Stack

    def say(line: str) -> None:
        print(line, file=sys.stderr if as_json else sys.stdout, flush=True)

    chosen = secrets.randbelow(1_000_000) if seed is None else seed
    say(f"seed {chosen}")
    with tempfile.TemporaryDirectory(prefix="runtide-chaos-") as folder:
        home = Home(Path(folder) / "home")
        home.make()
        target: Target
        target = KafkaTarget(KafkaStack(home.folder, bootstrap=kafka)) if kafka else UpTarget(Stack(home.folder))
        try:
            outcome = Chaos(target, chosen, say).run(seconds, kills, writers)
        finally:
            target.stack.end()
    if as_json:
        tables.print_json(outcome.as_dict())
    else:
        tables.print_table(outcome.by_fault(), empty="no faults")
        print(outcome.told())
        for problem in outcome.problems[:50]:
            print(problem)
        print("clean: everything that log() returned for is stored, once" if outcome.clean else "NOT clean")
    raise typer.Exit(0 if outcome.clean else 1)


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(chaos)
