"""The audit trail from the command line to the chain, on a whole stack."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runtide.cli import main
from runtide.testing.stack import Stack
from runtide.testing.streams import MadeStream
from runtide.testing.waiting import until
from runtide.v1 import ingest_pb2 as pb
from runtide.warehouse import audit
from runtide.warehouse.changes import as_range

from .test_dead_letters import push

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """A command as `stack.runtide` runs it, but in this process: starting one takes longer than all that it does."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        for name, value in stack.environment().items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        code = main([*arguments])
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return run


def make_run(stack: Stack, run: str) -> None:
    made = MadeStream(f"0192-{run}", project="default", run_id=run).open().key_set(1, "loss").steps(1, [1]).close()
    push(stack, made.range())
    until(lambda: stack.sql(f"SELECT 1 FROM runs WHERE run_id = '{run}'"), 30, "the run is listed")


def done(command: Command, *arguments: str) -> Any:
    said = command(*arguments, "--json")
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


def a_change(stream: str, kind: str = "notes", after: Any = "odd", subject: str = "run:early") -> pb.Range:
    return as_range(subject, kind, after, "a test", "ada", "default", stream=stream)


@pytest.mark.slow
def test_a_run_is_changed_and_everything_is_kept(stack: Stack, command: Command) -> None:
    stack.up("--no-dashboard")
    make_run(stack, "early")
    done(stack.runtide, "tag", "early", "a", "b")
    done(command, "tag", "early", "a", "--remove")
    done(command, "note", "early", 'it\'s "odd"')
    done(command, "rename", "early", "late")
    kept = done(command, "note", "early", "better", "--reason", "looked again")
    assert (kept["seq"], kept["before"], kept["after"]) == (5, '"it\'s \\"odd\\""', '"better"')
    done(command, "comment", "early", "the loader was slow")
    assert stack.sql("SELECT name, tags, notes FROM runs") == [("late", ["b"], "better")]
    assert stack.sql("SELECT subject, text FROM comments") == [("run:early", "the loader was slow")]
    rows = done(command, "audit", "list", "run:early")
    assert [row["seq"] for row in rows] == [6, 5, 4, 3, 2, 1]
    assert all(row["actor"].startswith("local:") for row in rows)
    assert [(row["kind"], row["before"], row["after"]) for row in rows[:-4:-1]] == [
        ("tag_add", "[]", '["a","b"]'),
        ("tag_remove", '["a","b"]', '["a"]'),
        ("notes", '""', '"it\'s \\"odd\\""'),
    ]
    assert rows[2]["before"] == '"early"'

    refused = command("delete", "early", "--reason", " ")
    assert refused.returncode == 1
    assert "it must say why" in refused.stderr
    done(command, "tag", "early", "c")
    head = done(command, "audit", "verify")[0]["head"]
    assert command("delete", "early", "--reason", "by mistake").returncode == 0
    assert stack.sql("SELECT run_id FROM runs") == []
    assert stack.sql("SELECT run_id, reason FROM deleted_runs") == [("early", "by mistake")]
    assert stack.sql("SELECT count() FROM points WHERE run_id = 'early'") == [(1,)]
    assert command("restore", "early").returncode == 0
    assert stack.sql("SELECT name, tags FROM runs") == [("late", ["b", "c"])]
    assert stack.sql("SELECT * FROM deleted_runs") == []

    found = command("audit", "verify", "--head", head)
    assert found.returncode == 0, found.stdout
    assert f"head {head} is in the chain, at seq 7" in found.stdout
    missing = command("audit", "verify", "--head", "1" * 64)
    assert missing.returncode == 1
    assert "is not in any chain" in missing.stdout
    exported = stack.home.parent / "audit.jsonl"
    assert command("audit", "export", "--to", str(exported)).returncode == 0
    lines = [audit.Entry(**json.loads(line)) for line in exported.read_text().splitlines()]
    assert [line.seq for line in lines] == list(range(1, 10))
    assert all(line.digest() == line.hash for line in lines)

    stack.change("ALTER TABLE audit_rows UPDATE reason = 'never mind' WHERE seq = 5 SETTINGS mutations_sync = 1")
    altered = command("audit", "verify")
    assert altered.returncode == 1
    assert "row seq 5 (notes of run:early, stream " in altered.stdout
    assert "the row was altered" in altered.stdout


@pytest.mark.slow
@pytest.mark.parametrize("point", ["sink.chained", "sink.inserted", "sink.stored"])
def test_a_change_is_in_the_chain_once_though_the_sink_dies(
    stack: Stack, command: Command, tmp_path: Path, point: str
) -> None:
    mark = tmp_path / "died"
    stack.told = {"RUNTIDE_CRASH_POINT": point, "RUNTIDE_CRASH_MARK": str(mark)}
    stack.up("--no-dashboard")
    first, second = a_change("0192aa"), a_change("0192ab", "tag_add", ["x"])

    def pushed() -> bool:
        try:
            push(stack, first, second)
        except Exception:
            return False
        return True

    until(pushed, 60, "the changes are acknowledged")
    assert mark.exists()
    push(stack, second, first, second)
    expected = [(1, "0192aa", "notes"), (2, "0192ab", "tag_add")]
    until(lambda: stack.sql("SELECT seq, stream, kind FROM audit ORDER BY seq") == expected, 30, "both are there once")
    assert done(command, "audit", "verify")[0]["clean"]
    assert stack.sql("SELECT count() FROM events WHERE kind = 'change'") == [(2,)]
    verified = command("verify", "@changes")
    assert verified.returncode == 0, verified.stdout


def test_deleting_needs_an_admin_and_the_token_says_who(stack: Stack, command: Command) -> None:
    stack.up("--no-dashboard")
    make_run(stack, "early")
    tokens = {}
    for role in ("writer", "admin"):
        said = command("token", "create", "--project", "default", "--role", role, "--name", f"{role}'s laptop")
        tokens[role] = said.stdout.strip()
    until(lambda: command("note", "early", "x").returncode == 1, 30, "the gateway asks for tokens")
    stack.told["RUNTIDE_TOKEN"] = tokens["writer"]
    done(command, "note", "early", "by a writer")
    refused = command("delete", "early", "--reason", "a test")
    assert refused.returncode == 1
    assert "delete of run:early needs admin" in refused.stderr
    stack.told["RUNTIDE_TOKEN"] = tokens["admin"]
    assert command("delete", "early", "--reason", "a test").returncode == 0
    number = {role: token.split("_")[1] for role, token in tokens.items()}
    actors = [row["actor"] for row in done(command, "audit", "list", "-n", "2")]
    assert actors == [f"{number['admin']} admin admin's laptop", f"{number['writer']} writer writer's laptop"]
