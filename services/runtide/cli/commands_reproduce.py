"""`runtide reproduce`: a run once more, and whether it came out the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtide.cli import options
from runtide.wire.errors import BadInput

if TYPE_CHECKING:
    from runtide.cli.reproduce import Prepared
    from runtide.cli.store import RunKey

ARRIVES_S = 60.0
"""How long the end of the new run may take to be stored."""
_COMPLETENESS = """
SELECT score, met, missing FROM runtide.completeness WHERE project = {project:String} AND run_id = {run:String}
"""
_NEW = """
SELECT run_id, finished_at IS NOT NULL AS ended FROM runtide.runs
WHERE project = {project:String} AND has(tags, {tag:String}) ORDER BY started_at DESC LIMIT 1
"""
_COUNT = "SELECT count() AS n FROM runtide.runs WHERE project = {project:String} AND has(tags, {tag:String})"


def reproduce(
    run: options.Run,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="New or empty folder; reproduce-RUN without it.", show_default=False),
    ] = None,
    start: Annotated[bool, typer.Option("--run", help="Start it too, in the environment of this command.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only say what is known and what is missing.")] = False,
    tolerance: Annotated[
        float, typer.Option("--tolerance", metavar="T", min=0, help="With --run: how far final values may be apart.")
    ] = 0.0,
    project: options.Project = None,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Put a run's code, packages and command into a folder, start it again, and compare what comes out.

    With --run the exit code is 0 if all final values are the same, 1 if not. The new run has the tag reproduces:RUN.

    Example: runtide reproduce 7c2f --dir again --run
    """
    from runtide.cli import tables
    from runtide.cli.reproduce import prepare, read_recipe
    from runtide.cli.store import find_run, open_store, rows

    if check and (start or folder):
        raise BadInput("--check", "with --dir or --run", "it writes and starts nothing")
    with open_store(home, clickhouse) as client:
        key = find_run(client, run, project)
        known = rows(client, _COMPLETENESS, project=key.project, run=key.run_id)
        said: dict[str, Any] = {"run_id": key.run_id, "completeness": dict(known[0]) if known else {"score": 0.0}}
        recipe = None if check else read_recipe(client, key)
    if recipe is not None:
        made = prepare(recipe, folder or Path(f"reproduce-{key.run_id}"))
        said |= {"folder": str(made.folder), "notes": made.notes, "wrong": made.wrong}
    if not as_json or start:
        _say(said)
    if recipe is None or not start:
        if as_json:
            tables.print_json(said)
        return
    outcome = _start(made, key, home, clickhouse, tolerance)
    if as_json:
        tables.print_json(said | outcome)
    raise typer.Exit(0 if outcome["same"] else 1)


def _say(said: dict[str, Any]) -> None:
    complete = said["completeness"]
    print(f"run {said['run_id']} is {complete['score']:.0f} % complete")
    for text in complete.get("missing", ()):
        print(f"  missing: {text}")
    for text in said.get("notes", ()):
        print(f"  note: {text}")
    for text in said.get("wrong", ()):
        print(f"  wrong: {text}")
    if "folder" in said:
        print(f"in {said['folder']}: setup.sh makes its environment, run.sh starts it")


def _start(made: Prepared, key: RunKey, home: Path | None, clickhouse: str | None, tolerance: float) -> dict[str, Any]:
    """Run it, wait for its end to be stored, and hold it against the first."""
    import os
    import time

    from runtide.api import Api
    from runtide.cli import comparing
    from runtide.cli.reproduce import NotReproducible, start
    from runtide.cli.store import open_store, rows

    tag = {"project": key.project, "tag": f"reproduces:{key.run_id}"}
    with open_store(home, clickhouse) as client:
        before = rows(client, _COUNT, **tag)[0]["n"]
        env = dict(os.environ)
        if home is not None:
            env["RUNTIDE_HOME"] = str(home.absolute())
        code = start(made, key, env=env)
        if code != 0:
            raise NotReproducible(f"it ended with exit code {code}; its code is in {made.folder}")
        deadline = time.monotonic() + ARRIVES_S
        while not (
            (found := rows(client, _NEW, **tag)) and found[0]["ended"] and rows(client, _COUNT, **tag)[0]["n"] > before
        ):
            if time.monotonic() >= deadline:
                raise NotReproducible(
                    f"it ran, but no finished run with the tag {tag['tag']} came to project {key.project} "
                    f"within {ARRIVES_S:g} s: does it send to another gateway?"
                )
            time.sleep(0.2)
        new = found[0]["run_id"]
        compared = Api(client=client).compare([f"{key.project}/{key.run_id}", f"{key.project}/{new}"])
    outcomes = compared.outcomes(tolerance)
    print(f"run {new} reproduces {key.run_id}")
    for role, digests in compared.datasets.items():
        print(f"dataset {role} is not the same: {', '.join(str(each)[:12] for each in digests)}")
    comparing.print_outcomes(outcomes, tolerance, len(compared.computed()))
    same = not outcomes and bool(compared.computed()) and not compared.datasets
    return {"new_run": new, "same": same, "differ": [vars(each) for each in outcomes], "datasets": compared.datasets}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(reproduce)
