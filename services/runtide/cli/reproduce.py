"""A run once more: its code, its packages and its command in a folder of their own, as far as they are known.

Promises: only an empty folder is written to; what cannot be the same as it was is said; a script whose bytes are not
those that ran is never started. The run's words are data here: its command is started without a shell, and the files
for people quote what they take from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from runtide.cli.store import RunKey, rows
from runtide.warehouse.client import Client
from runtide.wire.errors import BadInput, RuntideError
from runtide.wire.secrets import MASK

REPRODUCES = "RUNTIDE_REPRODUCES"
"""Tells the job which run it repeats; it becomes the tag `reproduces:RUN`."""
CODE = "code"
LOCK = "requirements.lock"
GIT_S = 600.0

_ENVIRONMENT = """
SELECT attempt, json, command, working_dir, python, git_commit, git_remote, variables FROM runtide.environments
WHERE project = {project:String} AND run_id = {run:String} ORDER BY attempt DESC LIMIT 1
"""
_FILES = """
SELECT kind, path, digest, content, truncated, note FROM runtide.files
WHERE project = {project:String} AND run_id = {run:String} AND attempt = {attempt:UInt16}
"""
_WORLD = "SELECT world_size FROM runtide.runs WHERE project = {project:String} AND run_id = {run:String}"


class NotReproducible(RuntideError):
    """Too little is known of the run, or its code is not to be had."""

    code = "not_reproducible"


@dataclass(frozen=True)
class Recipe:
    """What is known of a run."""

    run: RunKey
    environment: Mapping[str, Any]
    """A row of the view environments, with `json` parsed as `all`."""
    files: tuple[Mapping[str, Any], ...]
    """Rows of the view files."""
    world_size: int = 1

    @property
    def root(self) -> Path | None:
        """Where the repository lay; None where the code was in none."""
        found = self.environment["all"].get("git", {}).get("root", "")
        return Path(found) if found and self.environment["git_commit"] else None

    def of_kind(self, kind: str) -> Iterator[Mapping[str, Any]]:
        """Files of one kind."""
        return (file for file in self.files if file["kind"] == kind)


@dataclass
class Prepared:
    """A folder in which the run can be started again."""

    folder: Path
    start_in: Path = Path()
    arguments: list[str] = field(default_factory=list)
    """Of the interpreter."""
    variables: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What is not as it was."""
    wrong: list[str] = field(default_factory=list)
    """Why it must not be started."""


def read_recipe(client: Client, run: RunKey) -> Recipe:
    """What is known of a run's last attempt. Raises NotReproducible where that is nothing."""
    told = {"project": run.project, "run": run.run_id}
    found = rows(client, _ENVIRONMENT, **told)
    if not found:
        raise NotReproducible(f"nothing is known of what {run.run_id} ran on: it was captured with RUNTIDE_CAPTURE=0")
    environment = dict(found[0]) | {"all": json.loads(found[0]["json"])}
    files = rows(client, _FILES, **told, attempt=environment["attempt"])
    world = rows(client, _WORLD, **told)
    return Recipe(run, environment, tuple(files), int(world[0]["world_size"]) if world else 1)


def prepare(recipe: Recipe, folder: Path) -> Prepared:
    """Write code, lock and scripts into an empty folder. Raises BadInput and NotReproducible."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput("--dir", str(folder), "it is a new or an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    made = Prepared(folder.absolute())
    code = made.folder / CODE
    if recipe.root is not None:
        _check_out(recipe, code)
        _patch(recipe, code, made)
    else:
        code.mkdir()
    _write_files(recipe, code, made)
    _command(recipe, code, made)
    _check_entry(recipe, code, made)
    _environment(recipe, made)
    if recipe.world_size > 1:
        made.notes.append(f"it had {recipe.world_size} processes; run.sh starts one: put the launcher before it")
    return made


def start(made: Prepared, run: RunKey, python: str = sys.executable, env: Mapping[str, str] = os.environ) -> int:
    """Start it, and return its exit code. Raises NotReproducible where its code is not what ran."""
    if made.wrong:
        raise NotReproducible("; ".join(made.wrong))
    told = {**env, **made.variables, REPRODUCES: run.run_id}
    told.setdefault("RUNTIDE_PROJECT", run.project)
    told.setdefault("RUNTIDE_ON_DUPLICATE", "ignore")
    told.pop("RUNTIDE_RUN_ID", None)
    done = subprocess.run([python, *made.arguments], cwd=made.start_in, env=told, check=False)
    return done.returncode


def _check_out(recipe: Recipe, code: Path) -> None:
    commit, remote = str(recipe.environment["git_commit"]), str(recipe.environment["git_remote"])
    tried = []
    for source in (str(recipe.root), remote):
        if not source or source.startswith("-"):
            continue
        cloned = _git(code.parent, "clone", "--quiet", "--no-checkout", "--", source, code.name)
        if cloned.returncode == 0:
            done = _git(code, "-c", "advice.detachedHead=false", "checkout", "--quiet", "--detach", commit)
            if done.returncode == 0:
                return
            cloned = done
        tried.append(f"{source}: {cloned.stderr.strip()[-300:]}")
        _remove(code)
    raise NotReproducible(f"commit {commit} is not to be had: " + ("; ".join(tried) or "no repository is known"))


def _patch(recipe: Recipe, code: Path, made: Prepared) -> None:
    for file in recipe.of_kind("patch"):
        if not file["content"]:
            made.notes.append(f"changes of {file['path']} are not known: {file['note']}")
            continue
        if file["note"]:
            made.notes.append(f"{file['path']}: {file['note']}")
        done = _git(code, "apply", "--binary", "--whitespace=nowarn", "-", given=file["content"])
        if done.returncode != 0:
            made.wrong.append(f"uncommitted changes do not apply: {done.stderr.strip()[-300:]}")


def _write_files(recipe: Recipe, code: Path, made: Prepared) -> None:
    """Files that the repository does not have: untracked ones, or without one the script itself."""
    for kind in ("untracked", "config", "entry"):
        for file in recipe.of_kind(kind):
            target = code / _inside(recipe, str(file["path"]))
            if target.exists() or str(file["path"]) in ("", "-c"):
                continue
            if not target.resolve().is_relative_to(code.resolve()):  # through a link of the repository
                made.notes.append(f"{file['path']} lies outside and is not written")
                continue
            if not file["content"]:
                made.notes.append(f"{file['path']} is missing: {file['note'] or 'it was not kept'}")
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(file["content"], newline="")
            if file["note"]:
                made.notes.append(f"{file['path']}: {file['note']}")


def _inside(recipe: Recipe, path: str) -> PurePosixPath:
    """Where a file of the run lies below the folder of the code: never outside."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        folder = PurePosixPath(str(recipe.environment["working_dir"]) or "/")
        below = folder in pure.parents and ".." not in pure.parts
        pure = pure.relative_to(folder) if below else PurePosixPath(pure.name)
    return pure


def _command(recipe: Recipe, code: Path, made: Prepared) -> None:
    command, folder = list(recipe.environment["command"]), Path(str(recipe.environment["working_dir"]) or "/")
    if not command:
        made.wrong.append("its command line is not known")
        made.start_in = code
        return
    root = recipe.root
    within = root is not None and (folder == root or root in folder.parents)
    made.start_in = code / folder.relative_to(root) if root is not None and within else code
    made.start_in.mkdir(parents=True, exist_ok=True)
    for argument in command[1:]:
        if MASK in argument:
            made.wrong.append(f"the argument {argument!r} held a secret: start run.sh with the right one")
        path = Path(argument)
        if path.is_absolute() and root is not None and root in path.parents:
            argument = str(code / path.relative_to(root))
        elif path.is_absolute() and root is None and (code / path.name).is_file() and _is_entry(recipe, path):
            argument = str(code / path.name)
        elif root is not None and not within and (folder / path).resolve().is_relative_to(root) and path.suffix:
            argument = str(code / (folder / path).resolve().relative_to(root))
        elif root is None and _is_entry(recipe, folder / path) and not (code / path).is_file():
            argument = path.name
        made.arguments.append(argument)


def _is_entry(recipe: Recipe, path: Path) -> bool:
    return any(PurePosixPath(str(file["path"])).name == path.name for file in recipe.of_kind("entry"))


def _check_entry(recipe: Recipe, code: Path, made: Prepared) -> None:
    """The script has to be the one that ran, to the byte."""
    for file in recipe.of_kind("entry"):
        if file["path"] == "-c":
            continue
        target = code / _inside(recipe, str(file["path"]))
        there = hashlib.sha256(target.read_bytes()).hexdigest() if target.is_file() else ""
        if there != file["digest"]:
            why = f" ({file['note']})" if file["note"] else ""
            is_now = there[:12] or "missing"
            made.wrong.append(f"{file['path']} is not what ran: it is {is_now}, not {file['digest'][:12]}{why}")
    for file in recipe.of_kind("notebook"):
        made.wrong.append(f"{file['path']} is a notebook: its cells lie in {CODE}, in the order of their execution")


def _environment(recipe: Recipe, made: Prepared) -> None:
    made.variables = {
        name: value
        for name, value in recipe.environment["variables"].items()
        if MASK not in value and name not in ("PYTHONPATH", "VIRTUAL_ENV", "CONDA_DEFAULT_ENV")
    }
    lock = next((str(file["content"]) for file in recipe.of_kind("lock")), "")
    lines = [line for line in lock.splitlines() if line and not line.startswith("#")]
    local = [line[2:] for line in lock.splitlines() if line.startswith("# ")]
    (made.folder / LOCK).write_text("".join(f"{line}\n" for line in lines))
    made.notes += [f"installed from a folder, so not in {LOCK}: {line}" for line in local]
    python = ".".join(str(recipe.environment["python"]).split(".")[:2])
    _script(
        made.folder / "setup.sh",
        f"# Makes the environment: Python {recipe.environment['python']} and the packages of {LOCK}.",
        'cd "$(dirname "$0")"',
        f"python{python} -m venv venv",
        f"venv/bin/python -m pip install --no-deps -r {LOCK}",
        *(f"# then: {line}" for line in local),
    )
    exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(made.variables.items())]
    arguments = " ".join(map(shlex.quote, made.arguments))
    _script(
        made.folder / "run.sh",
        f"# Runs {recipe.run.run_id} again, in the environment of setup.sh, or in that of PYTHON=/path/to/python.",
        'here="$(cd "$(dirname "$0")" && pwd)"',
        f'cd "$here"/{shlex.quote(made.start_in.relative_to(made.folder).as_posix())}',
        *exports,
        f"export {REPRODUCES}={shlex.quote(recipe.run.run_id)}",
        f'exec "${{PYTHON:-$here/venv/bin/python}}" {arguments}',
    )


def _script(path: Path, *lines: str) -> None:
    path.write_text("\n".join(("#!/bin/sh", "set -eu", *(line.replace("\n", " ") for line in lines), "")))
    path.chmod(0o755)


def _git(folder: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    quiet = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            ["git", *arguments],  # noqa: S607  the user's own git
            cwd=folder,
            env=quiet,
            input=given.encode(),
            capture_output=True,
            timeout=GIT_S,
            check=False,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, "", done.stderr.decode("utf-8", "replace"))
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotReproducible(f"git could not be asked: {error}") from error


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
