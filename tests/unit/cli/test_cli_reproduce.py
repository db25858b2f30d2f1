"""What of a run is written and started again, and what never is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from runtide.cli.reproduce import NotReproducible, Recipe, prepare, start
from runtide.cli.store import RunKey
from runtide.wire.secrets import MASK

RUN = RunKey("p", "r")
SCRIPT = "import pathlib, sys\npathlib.Path('started').write_text(' '.join(sys.argv[1:]))\n"


def file(path: str, content: str = SCRIPT, kind: str = "entry", **more: Any) -> dict[str, Any]:
    digest = hashlib.sha256(content.encode()).hexdigest()
    return {"kind": kind, "path": path, "digest": digest, "content": content, "truncated": False, "note": "", **more}


def recipe(*files: dict[str, Any], command: tuple[str, ...] = ("python", "/jobs/train.py", "--lr", "1")) -> Recipe:
    """A run of a script in a folder that is no repository."""
    known = {"command": command, "working_dir": "/jobs", "python": "3.12.1", "git_commit": "", "git_remote": ""}
    return Recipe(RUN, {**known, "variables": {}, "all": {}}, files or (file("/jobs/train.py"),))


def test_a_script_is_started_as_it_was(tmp_path: Path) -> None:
    made = prepare(recipe(), tmp_path / "again")
    assert made.wrong == []
    assert start(made, RUN) == 0
    assert (tmp_path / "again" / "code" / "started").read_text() == "--lr 1"


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        (recipe(command=("python", "/jobs/train.py", f"--token={MASK}")), "held a secret"),
        (recipe(file("/jobs/train.py", digest="0" * 64)), "/jobs/train.py is not what ran"),
        (recipe(file("/jobs/train.py", content="")), "it is missing"),
        (recipe(file("/jobs/train.ipynb", kind="notebook")), "is a notebook"),
        (recipe(command=()), "its command line is not known"),
    ],
)
def test_what_is_not_what_ran_is_never_started(tmp_path: Path, told: Recipe, wrong: str) -> None:
    made = prepare(told, tmp_path / "again")
    with pytest.raises(NotReproducible, match=wrong):
        start(made, RUN)
    assert list(tmp_path.rglob("started")) == []


@pytest.mark.parametrize("path", ["../evil.py", "/jobs/../../evil.py", "/elsewhere/evil.py", "a/../../../evil.py"])
def test_no_file_is_written_outside_the_folder(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "deep" / "again"
    made = prepare(recipe(file("/jobs/train.py"), file(path, kind="untracked")), folder)
    assert made.wrong == []
    assert [found.parent for found in tmp_path.rglob("evil.py")] == [folder / "code"]
