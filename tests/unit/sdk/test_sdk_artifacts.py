"""What log_artifact() leaves in the spool: a copy that nothing changes, a whole task, and no error in the job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import runtide
from runtide.sdk.run import Run
from runtide.spool.artifacts import ArtifactTask, Done, Sent, task_folders
from runtide.wire.errors import BadInput


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """An offline run."""
    made = runtide.init("p", mode="offline", dir=tmp_path / "spool", run_id="r")
    yield made
    made.finish()


def tasks(tmp_path: Path) -> list[tuple[Path, ArtifactTask]]:
    """What the agent would find."""
    folders = [each for file in (tmp_path / "spool").glob("*/*/stream.json") for each in task_folders(file.parent)]
    return [(folder, task) for folder in folders if (task := ArtifactTask.read(folder)) is not None]


def test_the_copy_is_the_file_as_it_was(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(b"before")
    logged = run.log_artifact(path, name="model", kind="model", metadata={"a": 1}, aliases=["prod"], step=7)
    with path.open("r+b") as file:
        file.write(b"AFTER!")  # in place, as training does
    ((folder, task),) = tasks(tmp_path)
    assert (folder / "data").read_bytes() == b"before"
    assert (task.name, task.kind, task.path, task.size, task.step) == ("model", "model", "w.bin", 6, 7)
    assert (task.metadata, list(task.aliases)) == ({"a": 1}, ["prod"])
    assert not logged.wait(0)
    Sent(3, "gateway unreachable").write(folder)
    assert (logged.done, logged.error) == (False, "gateway unreachable")
    Done("d" * 64).write(folder)
    assert logged.wait(0)
    assert (logged.digest, logged.error, tasks(tmp_path)) == ("d" * 64, "", [])


def test_a_folder_is_copied_with_what_links_in_it_lead_to(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "a").write_text("a")
    (source / "b").symlink_to(source / "deep" / "a")
    run.log_artifact(source)
    ((folder, task),) = tasks(tmp_path)
    copied = {str(path.relative_to(folder / "data")): path for path in (folder / "data").rglob("*") if path.is_file()}
    assert set(copied) == {"deep/a", "b"}
    assert not copied["b"].is_symlink()
    assert (task.name, task.size) == ("source", 2)


def test_checkpoints_have_a_name_and_a_step_of_their_own(run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.pt").write_text("c")
    run.log({"loss": 1.0}, step=41)
    run.log_checkpoint(tmp_path / "c.pt", metric="loss", value=0.5)
    run.log_checkpoint(tmp_path / "c.pt", 50, "acc", float("nan"), "max", name="best")
    (_, first), (_, second) = tasks(tmp_path)
    assert (first.name, first.kind, first.step, first.metric, first.value) == (
        "checkpoint-r",
        "checkpoint",
        41,
        "loss",
        0.5,
    )
    assert (second.name, second.step, second.value, second.goal) == ("best", 50, None, "max")


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"path": "nowhere"},
        {"path": "file", "uri": "s3://x/y"},
        {"path": "file", "name": "a:b"},
        {"path": "file", "aliases": ["latest"]},
        {"path": "file", "aliases": ["v3"]},
        {"path": "file", "metadata": {"x": "y" * 70_000}},
        {"path": "file", "step": "three"},
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, object]
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.chdir(tmp_path)
    logged = run.log_artifact(**arguments)  # type: ignore[arg-type]
    assert run.refused == 1
    assert tasks(tmp_path) == []
    assert (logged.done, logged.wait(0)) == (True, False)
    monkeypatch.setenv("RUNTIDE_STRICT", "1")
    with pytest.raises(BadInput):
        run.log_artifact(**arguments)  # type: ignore[arg-type]


def test_a_disk_that_is_full_leaves_no_half_copy(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x" * 100)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    run.log_artifact(tmp_path / "file")
    assert run.refused == 1
    assert list((tmp_path / "spool").glob("*/*/artifacts/*")) == []


def test_a_disabled_run_copies_nothing(tmp_path: Path) -> None:
    run = runtide.init("p", mode="disabled", dir=tmp_path / "spool")
    (tmp_path / "file").write_text("x")
    assert run.log_artifact(tmp_path / "file").wait(0)
    assert not (tmp_path / "spool").exists()
    run.finish()


def test_a_task_of_a_later_release_is_read(tmp_path: Path) -> None:
    told = {"name": "n", "kind": "k", "time_us": 1, "path": "p", "size": 2, "new": True}
    (tmp_path / "task.json").write_text(json.dumps(told))
    assert ArtifactTask.read(tmp_path) == ArtifactTask("n", "k", 1, "p", 2)
