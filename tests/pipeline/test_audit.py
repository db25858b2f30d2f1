"""The audit trail from the command line to the chain, on a whole stack."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
from runtide.testing.stack import Stack
from runtide.testing.streams import MadeStream
from runtide.testing.waiting import until
from runtide.v1 import ingest_pb2 as pb
from runtide.warehouse import audit
from runtide.warehouse.changes import as_range

from .test_dead_letters import push

COLUMNS = (
    "project",
    "seq",
    "time",
    "actor",
    "subject",
    "kind",
    "reason",
    "before",
    "after",
    "stream",
    "offset",
    "previous",
    "hash",
)


def make_run(stack: Stack, run: str) -> None:
    made = MadeStream(f"0192-{run}", project="default", run_id=run).open().key_set(1, "loss").steps(1, [1]).close()
    push(stack, made.range())
    until(lambda: stack.sql(f"SELECT 1 FROM runs WHERE run_id = '{run}'"), 30, "the run is listed")


def done(stack: Stack, *arguments: str) -> Any:
    said = stack.runtide(*arguments, "--json")
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


def a_change(stream: str, kind: str = "notes", after: Any = "odd", subject: str = "run:early") -> pb.Range:
    return as_range(subject, kind, after, "a test", "ada", "default", stream=stream)


def test_a_run_is_changed_and_everything_is_kept(stack: Stack) -> None:
    stack.up("--no-dashboard")
    make_run(stack, "early")
    done(stack, "tag", "early", "a", "b")
    done(stack, "tag", "early", "a", "--remove")
    done(stack, "note", "early", 'it\'s "odd"')
    done(stack, "rename", "early", "late")
    kept = done(stack, "note", "early", "better", "--reason", "looked again")
    assert (kept["seq"], kept["before"], kept["after"]) == (5, '"it\'s \\"odd\\""', '"better"')
    done(stack, "comment", "early", "the loader was slow")
    assert stack.sql("SELECT name, tags, notes FROM runs") == [("late", ["b"], "better")]
    assert stack.sql("SELECT subject, text FROM comments") == [("run:early", "the loader was slow")]
    rows = done(stack, "audit", "list", "run:early")
    assert [row["seq"] for row in rows] == [6, 5, 4, 3, 2, 1]
    assert all(row["actor"].startswith("local:") for row in rows)
    assert [(row["kind"], row["before"], row["after"]) for row in rows[:-4:-1]] == [
        ("tag_add", "[]", '["a","b"]'),
        ("tag_remove", '["a","b"]', '["a"]'),
        ("notes", '""', '"it\'s \\"odd\\""'),
    ]
    assert rows[2]["before"] == '"early"'

    refused = stack.runtide("delete", "early", "--reason", " ")
    assert refused.returncode == 1
    assert "it must say why" in refused.stderr
    done(stack, "tag", "early", "c")
    head = done(stack, "audit", "verify")[0]["head"]
    assert stack.runtide("delete", "early", "--reason", "by mistake").returncode == 0
    assert stack.sql("SELECT run_id FROM runs") == []
    assert stack.sql("SELECT run_id, reason FROM deleted_runs") == [("early", "by mistake")]
    assert stack.sql("SELECT count() FROM points WHERE run_id = 'early'") == [(1,)]
    assert stack.runtide("restore", "early").returncode == 0
    assert stack.sql("SELECT name, tags FROM runs") == [("late", ["b", "c"])]
    assert stack.sql("SELECT * FROM deleted_runs") == []

    found = stack.runtide("audit", "verify", "--head", head)
    assert found.returncode == 0, found.stdout
    assert f"head {head} is in the chain, at seq 7" in found.stdout
    missing = stack.runtide("audit", "verify", "--head", "1" * 64)
    assert missing.returncode == 1
    assert "is not in any chain" in missing.stdout
    exported = stack.home.parent / "audit.jsonl"
    assert stack.runtide("audit", "export", "--to", str(exported)).returncode == 0
    lines = [audit.Entry(**json.loads(line)) for line in exported.read_text().splitlines()]
    assert [line.seq for line in lines] == list(range(1, 10))
    assert all(line.digest() == line.hash for line in lines)


@pytest.mark.parametrize("point", ["sink.chained", "sink.inserted", "sink.stored"])
def test_a_change_is_in_the_chain_once_though_the_sink_dies(stack: Stack, tmp_path: Path, point: str) -> None:
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
    assert done(stack, "audit", "verify")[0]["clean"]
    assert stack.sql("SELECT count() FROM events WHERE kind = 'change'") == [(2,)]
    code, verified = stack.verify("@changes")
    assert code == 0, verified["problems"]


def test_whatever_is_altered_of_a_stored_row_is_found(stack: Stack) -> None:
    stack.up("--no-dashboard")
    push(stack, *(a_change(f"0192b{number}", after=f"note {number}") for number in range(4)))
    secret = (stack.home / "secret").read_text()
    with closing(
        clickhouse_connect.get_client(
            host="127.0.0.1", port=stack.state.ports.clickhouse, username="writer", password=secret
        )
    ) as client:
        columns = ", ".join(COLUMNS)
        client.command("CREATE TABLE runtide.kept ENGINE = Memory AS SELECT * FROM runtide.audit_rows")
        for column in COLUMNS:
            other = f"{column} + 7" if column in {"seq", "offset", "time"} else f"concat('x', {column})"
            changed = ", ".join(f"{other} AS altered" if name == column else name for name in COLUMNS)
            client.command("TRUNCATE TABLE runtide.audit_rows")
            for seq in range(1, 5):
                what = changed if seq == 2 else columns
                client.command(
                    f"INSERT INTO runtide.audit_rows ({columns}) SELECT {what} FROM runtide.kept WHERE seq = {seq}"
                )
            found = [audit.verify(client, project) for project in audit.projects(client)]
            problems = [problem for each in found for problem in each.problems]
            expected = {"previous": "its previous is", "seq": "its seq is", "project": "its seq is"}
            assert expected.get(column, "its hash is") in problems[0], (column, problems)
            assert f"row seq {3 if column in {'seq', 'project'} else 2} " in problems[0], (column, problems)
        said = stack.runtide("audit", "verify")
        assert said.returncode == 1
        assert "row seq 2 (notes of run:early, stream 0192b1): its hash is" in said.stdout
        client.command("TRUNCATE TABLE runtide.audit_rows")
        client.command("INSERT INTO runtide.audit_rows SELECT * FROM runtide.kept WHERE seq < 4")
        (short,) = [audit.verify(client, project) for project in audit.projects(client)]
        assert short.problems == ["project default: the change at 0 of stream 0192b3 is not in the chain"]


def test_deleting_needs_an_admin_and_the_token_says_who(stack: Stack) -> None:
    stack.up("--no-dashboard")
    make_run(stack, "early")
    tokens = {}
    for role in ("writer", "admin"):
        said = stack.runtide("token", "create", "--project", "default", "--role", role, "--name", f"{role}'s laptop")
        tokens[role] = said.stdout.strip()
    until(lambda: stack.runtide("note", "early", "x").returncode == 1, 30, "the gateway asks for tokens")
    stack.told["RUNTIDE_TOKEN"] = tokens["writer"]
    done(stack, "note", "early", "by a writer")
    refused = stack.runtide("delete", "early", "--reason", "a test")
    assert refused.returncode == 1
    assert "delete of run:early needs admin" in refused.stderr
    stack.told["RUNTIDE_TOKEN"] = tokens["admin"]
    assert stack.runtide("delete", "early", "--reason", "a test").returncode == 0
    number = {role: token.split("_")[1] for role, token in tokens.items()}
    actors = [row["actor"] for row in done(stack, "audit", "list", "-n", "2")]
    assert actors == [f"{number['admin']} admin admin's laptop", f"{number['writer']} writer writer's laptop"]
