"""What ran: one real job in a repository with uncommitted changes, and what SQL says of it equals what git says."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from runtide.sdk.agent_link import AgentLink
from runtide.testing.stack import Stack
from runtide.testing.waiting import until
from runtide.wire.source_files import PART_BYTES

TRAIN = """
import argparse, runtide
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--run")
parser.add_argument("--fork", action="store_true")
args = parser.parse_args()
api_key = "written-out"
run = runtide.init("vision", run_id=args.run, resume="allow", config={"lr": args.lr})
run.save_config_file("conf/model.yaml")
run.log({"loss": args.lr})
if args.fork:
    import multiprocessing
    multiprocessing.get_context("fork").Process(target=run.log, args=({"child": 1},)).start()
run.finish()
"""
CONFIG = "depth: 3\npassword: hunter2\n"
SECRET = "T0PSECRET"


def git(root: Path, *arguments: str) -> str:
    who = {f"GIT_{role}_{what}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = os.environ | who | {"GIT_CONFIG_GLOBAL": "/dev/null"}
    done = subprocess.run(["git", *arguments], cwd=root, env=env, capture_output=True, text=True, check=True)
    return done.stdout


HANGS = """#!/bin/sh
touch {asked}
while [ ! -e {release} ]; do sleep 0.05; done
exec {git} "$@"
"""
WAITS = """
import sys, runtide
run = runtide.init("vision", run_id="held")
for value in range(100):
    run.log({"loss": value})
print(run.wait_stored(60), flush=True)
sys.stdin.readline()
run.finish()
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A commit, and on top of it every kind of change that is not committed."""
    root = tmp_path / "code"
    (root / "conf").mkdir(parents=True)
    for name, text in {
        "train.py": TRAIN,
        "model.py": "DEPTH = 1\n" * 20,
        "gone.py": "x = 1\n",
        "größe.txt": "a\n",
        "conf/model.yaml": CONFIG,
        ".env": "A=1\n",
        ".gitignore": "*.out\n",
    }.items():
        (root / name).write_text(text)
    (root / "weights.bin").write_bytes(bytes(range(256)))
    git(root, "init", "-q", "-b", "main")
    git(root, "remote", "add", "origin", "https://me:T0PSECRET@example.org/me/code.git")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    (root / "model.py").write_text("DEPTH = 2\n" + "DEPTH = 1\n" * 19)
    (root / "gone.py").unlink()
    (root / "größe.txt").write_text("b\n")
    (root / ".env").write_text(f"A={SECRET}\n")
    (root / "weights.bin").write_bytes(bytes(range(255, -1, -1)))
    (root / "staged.py").write_text("y = 2\n")
    git(root, "add", "staged.py")
    (root / "new.py").write_text("z = 3\n")
    (root / "notes.out").write_text("ignored\n")
    (root / "id_rsa").write_text(SECRET)
    (root / "data.npy").write_bytes(b"\x93NUMPY\0\0")
    (root / "large.csv").write_text("1,2\n" * 50_000)
    return root


def train(stack: Stack, root: Path, *arguments: str, **variables: str) -> None:
    done = subprocess.run(
        [sys.executable, "train.py", *arguments],
        cwd=root,
        env=stack.environment() | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def content(stack: Stack, run: str, kind: str, path: str) -> str:
    ((found,),) = stack.sql(f"SELECT content FROM files WHERE run_id = '{run}' AND kind = '{kind}' AND path = '{path}'")
    return str(found)


def test_what_sql_says_of_a_run_is_what_git_says(stack: Stack, repository: Path, tmp_path: Path) -> None:
    stack.up("--no-dashboard")
    told = {"CUDA_VISIBLE_DEVICES": "0", "OMP_API_KEY": "K1", "OTHER": "x", "SLURM_JOB_ID": "77"}
    train(stack, repository, "--run", "r", "--lr", "0.5", **told)
    stack.wait_agent()

    patch = content(stack, "r", "patch", "uncommitted.patch")
    assert patch == git(repository, "diff", "--binary", "HEAD", "--", ".", ":(exclude).env")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(repository), str(clone))
    subprocess.run(["git", "apply"], input=patch, text=True, cwd=clone, check=True)
    changed = ("model.py", "größe.txt", "weights.bin", "staged.py")
    assert all((clone / name).read_bytes() == (repository / name).read_bytes() for name in changed)
    assert not (clone / "gone.py").exists()

    files = stack.sql("SELECT path, digest, note, content FROM files WHERE kind = 'untracked' ORDER BY path")
    assert [row[0] for row in files] == git(repository, "ls-files", "--others", "--exclude-standard").split()
    assert [row[1] for row in files] == [sha256((repository / row[0]).read_bytes()).hexdigest() for row in files]
    assert {row[0]: row[3] for row in files if row[3]} == {"new.py": "z = 3\n"}
    assert all(row[2] for row in files if not row[3])
    assert stack.sql("SELECT path, note FROM files WHERE kind = 'patch' AND path = '.env'") == [
        (".env", "changed; named only, it may hold secrets")
    ]

    entry = content(stack, "r", "entry", "train.py")
    assert entry == TRAIN.replace("written-out", "***")
    assert stack.sql("SELECT digest, size, truncated, note FROM files WHERE kind = 'entry'") == [
        (sha256(TRAIN.encode()).hexdigest(), len(TRAIN), False, "secrets masked")
    ]
    assert content(stack, "r", "config", "conf/model.yaml") == CONFIG.replace("hunter2", "***")

    ((found,),) = stack.sql("SELECT (git_commit, git_branch, git_remote, git_dirty) FROM environments")
    commit = git(repository, "rev-parse", "HEAD").strip()
    assert tuple(found) == (commit, "main", "https://example.org/me/code.git", True)
    ((python, command, packages, variables, scheduler, job, notes),) = stack.sql(
        "SELECT python, command, packages, variables, scheduler, job_id, notes FROM environments"
    )
    assert python == platform.python_version()
    assert command[1:] == ["train.py", "--run", "r", "--lr", "0.5"]
    assert packages["numpy"] == importlib.metadata.version("numpy")
    assert f"numpy=={packages['numpy']}\n" in content(stack, "r", "lock", "requirements.lock")
    assert {name: variables.get(name) for name in told} == {
        "CUDA_VISIBLE_DEVICES": "0",
        "OMP_API_KEY": "***",
        "OTHER": None,
        "SLURM_JOB_ID": "77",
    }
    assert (scheduler, job, notes) == ("slurm", "77", [])
    ((everything,),) = stack.sql("SELECT arrayStringConcat(groupArray(json)) FROM events")
    assert SECRET not in everything
    assert stack.sql(f"SELECT count() FROM files WHERE position(content, '{SECRET}') > 0") == [(0,)]
    code, verified = stack.verify("r")
    assert code == 0, verified["problems"]

    shown = json.loads(stack.runtide("show", "r", "--json").stdout)
    assert [each["git_commit"] for each in shown["environments"]] == [commit]
    assert {each["kind"] for each in shown["files"]} == {"entry", "patch", "untracked", "config", "lock"}
    assert len(shown["fingerprints"]) == 1
    text = stack.runtide("show", "r").stdout
    assert commit in text
    assert "uncommitted.patch" in text


def test_one_set_for_each_attempt_said_by_rank_0_and_equal_runs_have_equal_fingerprints(
    stack: Stack, repository: Path
) -> None:
    stack.up("--no-dashboard")
    ranks = {"WORLD_SIZE": "2", "RUNTIDE_RUN_ID": "r"}
    for rank in ("0", "1"):
        train(stack, repository, "--fork", **ranks, RANK=rank)
    stack.wait_agent()
    said = "SELECT kind, attempt, uniqExact(stream), count() FROM events WHERE run_id = 'r' AND kind IN "
    assert stack.sql(f"{said} ('environment') GROUP BY 1, 2") == [("environment", 1, 1, 1)]
    assert stack.sql("SELECT kind, count() FROM files WHERE kind IN ('entry', 'lock') GROUP BY kind ORDER BY kind") == [
        ("entry", 1),
        ("lock", 1),
    ]
    train(stack, repository, "--run", "r")
    train(stack, repository, "--run", "same")
    (repository / "model.py").write_text("DEPTH = 4\n")
    train(stack, repository, "--run", "other", "--lr", "0.2")
    stack.wait_agent()
    assert stack.sql("SELECT attempt, count() FROM environments WHERE run_id = 'r' GROUP BY 1 ORDER BY 1") == [
        (1, 1),
        (2, 1),
    ]
    prints = {
        (run, attempt): rest
        for run, attempt, *rest in stack.sql(
            "SELECT run_id, attempt, code, config, environment, data FROM fingerprints"
        )
    }
    assert all(len(each) == 64 for found in prints.values() for each in found[:3])
    assert prints["r", 1] == prints["r", 2] == prints["same", 1]
    different = [a != b for a, b in zip(prints["same", 1], prints["other", 1], strict=True)]
    assert different == [True, True, False, False]


def test_a_long_file_comes_in_parts_and_one_that_is_too_long_is_cut_and_says_so(stack: Stack, repository: Path) -> None:
    stack.up("--no-dashboard")
    (repository / "model.py").write_text("".join(f"LINE_{at} = {at}\n" for at in range(30_000)))
    (repository / "gone.py").write_text("".join(f"# line {at} of many\n" for at in range(60_000)))
    train(stack, repository, "--run", "long")
    stack.wait_agent()
    ((patch, size, note, cut),) = stack.sql(
        "SELECT content, size, note, truncated FROM files WHERE path = 'uncommitted.patch'"
    )
    whole = git(repository, "diff", "--binary", "HEAD", "--", ".", ":(exclude).env")
    assert len(whole) > len(patch.encode()) > 4 * PART_BYTES
    assert whole.startswith(patch)
    assert patch.endswith("\n")
    assert (size, cut) == (len(whole.encode()), True)
    assert note == f"cut at {len(patch.encode())} of {size} bytes"


def pid_other_than(before: int, link: AgentLink) -> int:
    found = int((link.ask({"op": "ping"}) or {}).get("pid", 0))
    return 0 if found == before else found


def test_a_git_that_hangs_holds_nobody_up_and_what_an_ended_agent_has_not_said_its_successor_says(
    stack: Stack, repository: Path, tmp_path: Path
) -> None:
    stack.up("--no-dashboard")
    asked, release, real = tmp_path / "asked", tmp_path / "release", shutil.which("git")
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(HANGS.format(asked=asked, release=release, git=real))
    fake.chmod(0o755)
    (repository / "waits.py").write_text(WAITS)
    job = subprocess.Popen(
        [sys.executable, "waits.py"],
        cwd=repository,
        env=stack.environment() | {"PATH": f"{fake.parent}:{os.environ['PATH']}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.jobs.append(job)
    assert job.stdout is not None
    assert job.stdout.readline() == "True\n", "what was logged is stored while git hangs"
    assert asked.exists()
    assert stack.sql("SELECT count() FROM environments") == [(0,)]
    link = AgentLink(stack.home / "spool", start=False)
    first = (link.ask({"op": "ping"}) or {})["pid"]
    asked.unlink()
    os.kill(first, signal.SIGTERM)
    second = until(lambda: pid_other_than(first, link), 30, "another agent came")
    until(asked.exists, 30, "that one asks git too")
    assert job.communicate("\n", timeout=60) is not None
    assert job.returncode == 0
    stack.wait_state("held", "finished")
    until(lambda: stack.sql("SELECT 1 FROM events WHERE kind = 'stream_ended'"), 30, "its end is told")
    os.kill(second, signal.SIGKILL)
    release.touch()
    done = stack.runtide("sync", str(stack.home / "spool"))
    assert done.returncode == 0, done.stderr
    commit = git(repository, "rev-parse", "HEAD").strip()
    assert stack.sql("SELECT run_id, attempt, git_commit, notes FROM environments") == [("held", 1, commit, [])]
    assert stack.sql("SELECT count() FROM files WHERE kind = 'patch' AND path = 'uncommitted.patch'") == [(1,)]
    assert stack.verify("held")[0] == 0
