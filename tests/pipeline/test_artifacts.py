"""Artifacts on the real stack: what was uploaded is what was logged, once, whoever was killed meanwhile."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import urllib.request
from pathlib import Path

import pytest
from runtide.gateway.blobs import PART_BYTES
from runtide.sdk.agent_link import AgentLink
from runtide.spool.artifacts import task_folders
from runtide.testing.stack import Stack
from runtide.testing.streams import MadeStream
from runtide.testing.waiting import until
from runtide.v1.records_pb2 import ArtifactRef

from .test_dead_letters import push

LARGE = 200_000_000
LOG = """
import sys, runtide
run = runtide.init("p", run_id=sys.argv[1])
run.log({"loss": 1.0}, step=4)
logged = run.log_artifact(sys.argv[2], name=sys.argv[3], kind="model", metadata={"depth": 3})
wait = float(sys.argv[4])
if wait:
    print(logged.wait(wait), logged.digest, logged.error, flush=True)
run.finish(timeout=wait)
"""


def written(path: Path, size: int) -> str:
    """Write random bytes; returns their sha256."""
    found = hashlib.sha256()
    with path.open("wb") as file:
        for at in range(0, size, 1 << 20):
            piece = os.urandom(min(1 << 20, size - at))
            file.write(piece)
            found.update(piece)
    return found.hexdigest()


def came_in(stack: Stack) -> int:
    """Bytes of artifacts that this gateway has taken in since it started."""
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.state.ports.metrics}/metrics", timeout=5) as page:
        found = re.search(
            r'^runtide_gateway_artifact_bytes_total\{way="in"\} (\S+)', page.read().decode(), re.MULTILINE
        )
    assert found is not None
    return int(float(found[1]))


def parts_of(stack: Stack, digest: str) -> int:
    """Bytes of an unfinished upload that are kept."""
    found = list((stack.home / "artifacts").glob(f"*/uploads/{digest}/*"))
    return sum(path.stat().st_size for path in found if path.name.isdigit() and path.exists())


def stored(stack: Stack, digest: str) -> list[Path]:
    return list((stack.home / "artifacts").glob(f"*/sha256/{digest[:2]}/{digest}"))


def kill_agent(stack: Stack) -> None:
    agent = AgentLink(stack.home / "spool", start=False).ask({"op": "ping"})
    assert agent is not None
    os.kill(int(agent["pid"]), signal.SIGKILL)


def waiting(stack: Stack) -> list[Path]:
    """Artifacts that the spool still holds."""
    return [task for file in (stack.home / "spool").glob("*/*/stream.json") for task in task_folders(file.parent)]


@pytest.mark.slow
def test_an_upload_of_200_mb_goes_on_after_gateway_and_agent_were_killed_and_is_sent_once(
    stack: Stack, tmp_path: Path
) -> None:
    stack.up("--no-dashboard")
    large = tmp_path / "weights.bin"
    digest = written(large, LARGE)
    stack.run_job(LOG, "r", str(large), "model", "0")
    large.write_bytes(b"trained on")  # the job goes on, and the copy does not change with it
    until(lambda: parts_of(stack, digest) >= 4 * PART_BYTES, 30, "some parts are there")
    ingest = stack.state.parts["ingest"].pid
    os.kill(ingest, signal.SIGKILL)
    kill_agent(stack)
    kept = parts_of(stack, digest)
    assert 4 * PART_BYTES <= kept < LARGE, "killed in the midst of it"
    assert not stored(stack, digest)
    until(lambda: stack.state.parts["ingest"].pid != ingest and stack.state.parts["ingest"].ready, 30, "it is back")

    code, found = stack.verify("r")
    assert (code, found["problems"]) == (1, ["artifact model: not uploaded yet, it waits in the spool of its host"])
    assert stack.sql("SELECT * FROM artifacts") == []
    synced = stack.runtide("sync", str(stack.home / "spool"))
    assert synced.returncode == 0, synced.stdout + synced.stderr
    came = came_in(stack)
    assert LARGE - kept <= came < LARGE - kept + 2 * PART_BYTES, "it went on where it was"
    until(lambda: stack.sql("SELECT 1 FROM artifacts"), 20, "it is to be seen")
    assert stack.sql("SELECT project, run_id, name, version, kind, digest, size, aliases, metadata FROM artifacts") == [
        ("p", "r", "model", 1, "model", digest, LARGE, ["latest"], '{"depth":3}')
    ]
    assert waiting(stack) == []

    fetched = stack.runtide("artifact", "get", "model:v1", "--to", str(tmp_path / "got"), "--json")
    assert fetched.returncode == 0, fetched.stderr
    with (tmp_path / "got" / "weights.bin").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest

    again = str(tmp_path / "got" / "weights.bin")
    assert stack.run_job(LOG, "r2", again, "model", "60").split() == ["True", digest]
    assert came_in(stack) == came, "the same content is not sent again"
    stack.wait_agent()
    assert stack.sql("SELECT version, run_id FROM artifacts") == [(1, "r")]
    assert stack.sql("SELECT run_id, version, used FROM artifact_uses ORDER BY 1") == [
        ("r", 1, False),
        ("r2", 1, False),
    ]
    code, found = stack.verify("r")
    assert (code, found["problems"]) == (0, [])


MANY = """
import pathlib, sys, runtide
folder = pathlib.Path(sys.argv[1])
run = runtide.init("p", run_id="many")
for step, (loss, text) in enumerate([(3.0, "a"), (1.0, "b"), (2.0, "c")], 10):
    (folder / "c.pt").write_text(text)
    run.log_checkpoint(folder / "c.pt", step, "loss", loss, name="c")
(folder / "data" / "deep").mkdir(parents=True)
(folder / "data" / "größe.txt").write_text("x")
(folder / "data" / "deep" / "y").write_text("y" * 100)
run.log_artifact(folder / "data", aliases=["clean"])
run.log_artifact(folder / "c.pt", name="data")
run.log_artifact(uri="s3://elsewhere/z.bin", digest="a" * 64, size=7, name="z")
run.log_artifact(folder / "empty.bin") if (folder / "empty.bin").write_bytes(b"") == 0 else None
run.finish(timeout=30)
second = runtide.init("p", run_id="user")
for name in ("c:best", "data:v1", "data", "data:clean", "nothing"):
    second.use_artifact(name)
second.log_artifact(folder / "not there")
second.log_artifact(folder / "c.pt", aliases=["best"])
print(second.refused)
second.finish(timeout=30)
"""


@pytest.mark.slow
def test_folders_checkpoints_references_and_lineage(stack: Stack, tmp_path: Path) -> None:
    stack.up("--no-dashboard")
    assert stack.run_job(MANY, str(tmp_path)).split() == ["2"]
    stack.wait_agent()
    rows = stack.sql("SELECT name, version, aliases, step, value, files, uri FROM artifacts ORDER BY name, version")
    assert rows == [
        ("c", 1, [], 10, 3.0, 1, ""),
        ("c", 2, ["best"], 11, 1.0, 1, ""),
        ("c", 3, ["latest", "last"], 12, 2.0, 1, ""),
        ("data", 1, ["clean"], None, None, 2, ""),
        ("data", 2, ["latest"], None, None, 1, ""),
        ("empty.bin", 1, ["latest"], None, None, 1, ""),
        ("z", 1, ["latest"], None, None, 0, "s3://elsewhere/z.bin"),
    ]
    assert stack.sql("SELECT version, path, size FROM artifact_files WHERE name = 'data' ORDER BY 1, 2") == [
        (1, "deep/y", 100),
        (1, "größe.txt", 1),
        (2, "c.pt", 1),
    ]
    assert stack.sql("SELECT which, name, version FROM artifact_uses WHERE used AND run_id = 'user' ORDER BY time") == [
        ("best", "c", 2),
        ("v1", "data", 1),
        ("latest", "data", 2),
        ("clean", "data", 1),
        ("latest", "nothing", 0),
    ]
    got = stack.runtide("artifact", "get", "data:clean", "--to", str(tmp_path / "got"), "--json")
    assert got.returncode == 0, got.stderr
    assert {path.name: path.read_text() for path in (tmp_path / "got").rglob("*") if path.is_file()} == {
        "y": "y" * 100,
        "größe.txt": "x",
    }

    ((digest,),) = stack.sql("SELECT digest FROM artifacts WHERE name = 'c' AND version = 2")
    (blob,) = stored(stack, digest)
    blob.write_bytes(b"B")  # one bit
    damaged = stack.runtide("artifact", "get", "c:best", "--to", str(tmp_path / "damaged"))
    assert damaged.returncode != 0
    assert "DATA_LOSS" in damaged.stderr
    assert not (tmp_path / "damaged" / "c.pt").exists()
    judged = stack.runtide("artifact", "verify", "--json")
    assert judged.returncode == 1
    states = {(row["name"], row["version"]): row["state"] for row in json.loads(judged.stdout)}
    assert states.pop(("c", 2)) == "damaged"
    assert states.pop(("z", 1)) == "elsewhere"
    assert set(states.values()) == {"ok"}


@pytest.mark.slow
def test_what_is_fetched_is_checked_and_stays_in_its_folder(stack: Stack, tmp_path: Path) -> None:
    stack.up("--no-dashboard")
    digest = written(tmp_path / "w.bin", 1000)
    stack.run_job(LOG, "r", str(tmp_path / "w.bin"), "model", "60")
    until(lambda: stack.sql("SELECT 1 FROM artifacts"), 20, "it is to be seen")
    folder = tmp_path / "got"
    folder.mkdir()
    (folder / f".{digest[:16]}.part").write_bytes(b"not the beginning")
    get = ("artifact", "get", "model", "--to", str(folder))
    wrong = stack.runtide(*get)
    assert wrong.returncode == 1
    assert "it is thrown away" in wrong.stderr
    assert list(folder.iterdir()) == []
    assert stack.runtide(*get).returncode == 0
    assert [path.name for path in folder.iterdir()] == ["w.bin"]

    files = json.dumps({"files": [{"path": "../stolen", "digest": digest, "size": 1000}], "count": 1})
    made = MadeStream("0192e0", project="p", run_id="evil").open()
    push(stack, made.add(artifact_ref=ArtifactRef(name="evil", digest=digest, size=1000, json=files)).range())
    until(lambda: stack.sql("SELECT 1 FROM artifact_files WHERE name = 'evil'"), 20, "it is to be seen")
    harm = stack.runtide("artifact", "get", "evil", "--to", str(folder))
    assert harm.returncode == 1
    assert "no place below the folder" in harm.stderr
    assert not (tmp_path / "stolen").exists()
