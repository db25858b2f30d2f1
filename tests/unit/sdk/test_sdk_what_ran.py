"""What the job itself says of what ran: script, cells, configuration files, chosen variables."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from runtide.sdk.settings import settings
from runtide.sdk.source import variables
from runtide.spool.capture import CAPTURE_FILE, CaptureTask
from runtide.testing.waiting import until
from runtide.v1.records_pb2 import ROLE_AGENT, ROLE_RANK, SourceFile

from tests.offline_job import Job, ReadStream

SCRIPT = 'import runtide\nrun = runtide.init("p", config={"lr": 0.1})\nrun.log({"a": 1})\n'


@pytest.fixture
def kept(job: Job) -> Job:
    """A job whose code and environment are kept; an agent that never comes is to collect the rest."""
    job.env |= {"RUNTIDE_CAPTURE": "1", "RUNTIDE_MODE": "offline"}
    return job


def script(job: Job, folder: Path, text: str, **env: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(text)
    done = subprocess.run(
        [sys.executable, "-W", "error", "train.py"],
        cwd=folder,
        env=job.env | {"PYTHONPATH": os.pathsep.join(sys.path)} | env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done


def own(job: Job) -> ReadStream:
    """The one stream of a training process."""
    (found,) = (stream for stream in job.streams() if stream.info.role == ROLE_RANK)
    return found


def files(stream: ReadStream, kind: str) -> list[SourceFile]:
    return [record.source_file for record in stream.said("source_file") if record.source_file.kind == kind]


def collected(job: Job) -> ReadStream:
    """The stream of the collector, once that has said its last word."""
    return until(
        lambda: next(
            (each for each in job.streams() if each.info.role == ROLE_AGENT and each.said("stream_closed")), None
        ),
        what="what ran was collected",
    )


def test_the_script_and_the_configuration_are_said_and_the_rest_is_collected_beside_the_job(
    kept: Job, tmp_path: Path
) -> None:
    script(kept, tmp_path / "code", SCRIPT, OMP_NUM_THREADS="3", MY_TOKEN="K1", SLURM_JOB_ID="")
    stream = own(kept)
    (entry,) = files(stream, "entry")
    assert entry.content.decode() == SCRIPT
    assert entry.digest == hashlib.sha256(SCRIPT.encode()).hexdigest()
    assert entry.path == str(tmp_path / "code" / "train.py")
    (fingerprint,) = stream.said("fingerprint")
    assert len(fingerprint.fingerprint.config) == 64
    beside = collected(kept)
    (environment,) = (json.loads(record.environment.json) for record in beside.said("environment"))
    assert environment["variables"]["OMP_NUM_THREADS"] == "3"
    assert "MY_TOKEN" not in environment["variables"]
    assert "protobuf" in environment["packages"]
    assert (environment["working_dir"], environment["notes"]) == (str(tmp_path / "code"), [])
    assert [file.path for file in files(beside, "lock")] == ["requirements.lock"]
    assert beside.info.run_id == stream.info.run_id
    until(lambda: not list(kept.root.glob(f"*/*/{CAPTURE_FILE}")), what="the task was removed")


def test_the_code_of_a_command_is_the_entry(kept: Job) -> None:
    kept.run(SCRIPT)
    (entry,) = files(own(kept), "entry")
    assert (entry.path, entry.content.decode()) == ("-c", SCRIPT)
    collected(kept)


def test_variables_are_chosen_by_patterns_and_masked(kept: Job) -> None:
    usual = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_CLI_CONFIG_FILE": "/c", "TF_VAR_db": "K1", "OMP_NUM_THREADS": "4"}
    assert sorted(variables(usual, settings({}).capture_env)) == ["OMP_NUM_THREADS", "TF_CPP_MIN_LOG_LEVEL"]
    told = {"RUNTIDE_CAPTURE_ENV": "MY_*, OMP_NUM_THREADS", "MY_TOKEN": "K1", "MY_NAME": "n", "CUDA_HOME": "/c"}
    kept.run(SCRIPT, told | {"OMP_NUM_THREADS": "2"})
    (environment,) = (json.loads(record.environment.json) for record in collected(kept).said("environment"))
    assert environment["variables"] == {"MY_NAME": "n", "MY_TOKEN": "***", "OMP_NUM_THREADS": "2"}


@pytest.mark.parametrize("env", [{"RUNTIDE_CAPTURE": "0"}, {"RANK": "1", "WORLD_SIZE": "2"}])
def test_other_ranks_say_nothing_of_it_and_neither_does_who_does_not_want_to(kept: Job, env: dict[str, str]) -> None:
    kept.run(SCRIPT, {"RUNTIDE_RUN_ID": "r", **env})
    stream = kept.stream()
    assert [kind for kind in ("source_file", "fingerprint", "environment") if stream.said(kind)] == []
    assert list(kept.root.glob(f"*/*/{CAPTURE_FILE}")) == []


def test_a_forked_child_says_nothing_of_it(kept: Job) -> None:
    kept.run("""
import os, runtide
run = runtide.init("p", config={"a": 1})
if (child := os.fork()) == 0:
    run.log({"b": 1})
    run.config["a"] = 2
    run.finish()
    os._exit(0)
os.waitpid(child, 0)
""")
    collected(kept)
    said = {stream.info.role: len(stream.said("source_file") + stream.said("fingerprint")) for stream in kept.streams()}
    assert len(said) == 3
    assert said[ROLE_RANK] == 2
    assert min(said.values()) == 0


def test_configuration_files_are_kept_masked_and_what_cannot_be_is_refused(job: Job, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("lr: 1\npassword: hunter2\n")
    (tmp_path / "large.yaml").write_bytes(b"x" * (1 << 20) + b"x")
    (tmp_path / ".env").write_text("A=T0PSECRET\n")
    done = job.run(f"""
import pathlib, runtide
run = runtide.init("p")
here = pathlib.Path({str(tmp_path)!r})
for name in ("a.yaml", "large.yaml", "missing.yaml", ".env"):
    run.save_config_file(here / name)
run.save_config_file(here)
run.save_config_file(7)
run.log({{"a": 1}})
assert run.refused == 4, run.refused
""")
    stream = job.stream()
    assert {Path(file.path).name: file.content for file in files(stream, "config")} == {
        "a.yaml": b"lr: 1\npassword: ***\n",
        ".env": b"",
    }
    assert stream.steps() == [(0, {"a": 1.0})]
    assert "1048576 bytes" in done.stderr
    assert "a folder is an artifact" in done.stderr


def test_nothing_that_is_wrong_here_raises_into_the_job(kept: Job) -> None:
    done = kept.run("""
import pathlib, runtide
from runtide.sdk import source
def broken(*_, **__):
    raise RuntimeError("broken")
source.task = broken
run = runtide.init("p", config={"a": 1})
run.log({"a": 1})
run.finish()
""")
    assert "code and environment of the run are not kept: RuntimeError: broken" in done.stderr
    assert kept.stream().steps() == [(0, {"a": 1.0})]


def test_a_configuration_that_changes_has_another_fingerprint_at_the_end(job: Job) -> None:
    job.env |= {"RUNTIDE_CAPTURE": "1", "RUNTIDE_MODE": "online", "RUNTIDE_AGENT": "external"}
    job.run('import runtide\nr = runtide.init("p", config={"a": 1})\nr.config["b"] = 2\nr.finish(timeout=0)')
    job.run('import runtide\nr = runtide.init("p", config={"b": 2, "a": 1})\nr.finish(timeout=0)')
    first, second = (
        [record.fingerprint.config for record in stream.said("fingerprint")]
        for stream in job.streams()
        if stream.info.role == ROLE_RANK
    )
    assert len(set(first)) == 2
    assert second == [first[-1]]


CELLS = """\
import os, runtide
run = runtide.init("p", config={"lr": 0.1})
x = 1
x = 1
import runtide.sdk.notebook as notebook; notebook.EVERY_SECONDS = 0
key = {"api_key": "T0PSECRET"}
x = 2
"""
UNSAID = "notebook.EVERY_SECONDS = 1e9\ny = 5\n"


def ipython(job: Job, tmp_path: Path, cells: str) -> subprocess.CompletedProcess[str]:
    """Type lines into a real IPython, each of which is a cell."""
    return subprocess.run(
        [sys.executable, "-m", "IPython", "--simple-prompt", "--no-banner", "--no-confirm-exit"],
        env=job.env | {"IPYTHONDIR": str(tmp_path / "ipython"), "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
        input=cells,
        capture_output=True,
        text=True,
        timeout=60,
    )


def cells_of(said: list[SourceFile]) -> list[list[tuple[int, str]]]:
    """Number and source of the cells, as each notebook that was said has them."""
    notebooks: list[dict[str, Any]] = [json.loads(file.content) for file in said]
    return [[(cell["execution_count"], "".join(cell["source"])) for cell in each["cells"]] for each in notebooks]


@pytest.mark.parametrize("end", ["exit()\n", "os.kill(os.getpid(), 9)\n"])
def test_the_cells_of_a_notebook_are_said_in_the_order_of_their_execution(kept: Job, tmp_path: Path, end: str) -> None:
    ipython(kept, tmp_path, CELLS + UNSAID + end)
    stream = own(kept)
    assert files(stream, "entry") == []
    said = files(stream, "notebook")
    lines = CELLS.replace("T0PSECRET", "***").splitlines()
    whole = list(enumerate(lines, 1))
    found = cells_of(said)
    assert found[0] == whole[:2], "the running cell is there too"
    assert found[1] == whole[:5], "the first cell after which it was time again"
    assert whole in found
    assert found[-1] == ([*whole, *enumerate(UNSAID.splitlines(), 8)] if end == "exit()\n" else whole)
    assert {file.path for file in said} == {str(tmp_path / "notebook.ipynb")}
    collected(kept)


def test_a_script_under_ipython_is_a_script(kept: Job, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    env = kept.env | {"IPYTHONDIR": str(tmp_path / "ipython"), "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-m", "IPython", "train.py"], env=env, cwd=tmp_path, check=True, timeout=60)
    assert [file.content.decode() for file in files(own(kept), "entry")] == [SCRIPT]
    assert files(own(kept), "notebook") == []
    collected(kept)


def test_configurations_of_omegaconf_are_taken_as_they_are(job: Job) -> None:
    job.run("""
import argparse, dataclasses, runtide
from omegaconf import OmegaConf
class Arguments(argparse.Namespace):
    pass
@dataclasses.dataclass
class Optimizer:
    name: str = "adam"
    lr: float = 0.1
config = OmegaConf.create({"lr": 0.5, "twice": "${lr}", "layers": [1, {"x": "${lr}"}]})
config.opt = OmegaConf.structured(Optimizer)
run = runtide.init("p", config=config)
run.config.update(Arguments(seed=3), missing=OmegaConf.create({"a": "${nowhere}", "b": "???"}))
""")
    assert {key: json.loads(text) for key, text in job.stream().entries().items()} == {
        "lr": 0.5,
        "twice": 0.5,
        "layers": [1, {"x": 0.5}],
        "opt.name": "adam",
        "opt.lr": 0.1,
        "seed": 3,
        "missing.a": "${nowhere}",
        "missing.b": "???",
    }


def test_a_task_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert CaptureTask.read(tmp_path) is None
    task = CaptureTask(time_us=1, folder="/x", facts={"a": [1]}, by_job=True)
    (tmp_path / CAPTURE_FILE).write_text(task.text())
    found = CaptureTask.read(tmp_path)
    assert found is not None
    assert (found.facts, found.by_job, list(found.search)) == ({"a": [1]}, True, [])
