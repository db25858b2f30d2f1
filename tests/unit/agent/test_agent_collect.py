"""What is collected beside a job: from real repositories and real installed packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runtide.agent import collect as collecting
from runtide.agent import git as asking
from runtide.agent.collect import collect, packages
from runtide.agent.git import MAY_HOLD_SECRETS, PATCH, Repository
from runtide.spool.capture import CaptureTask
from runtide.v1.records_pb2 import Record, SourceFile


def run_git(root: Path, *arguments: str) -> str:
    who = {f"GIT_{role}_{what}": "t@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = os.environ | who | {"GIT_CONFIG_GLOBAL": "/dev/null"}
    return subprocess.run(["git", *arguments], cwd=root, env=env, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with one commit."""
    made = tmp_path / "code"
    made.mkdir()
    (made / "a.py").write_text("x = 1\n")
    (made / "settings.yaml").write_text("depth: 1\n")
    run_git(made, "init", "-q", "-b", "main")
    run_git(made, "add", ".")
    run_git(made, "commit", "-qm", "first")
    return made


def task(folder: Path, **more: Any) -> CaptureTask:
    return replace(CaptureTask(time_us=time.time_ns() // 1000, folder=str(folder)), **more)


def environment(records: list[Record]) -> dict[str, Any]:
    (found,) = (json.loads(record.environment.json) for record in records if record.HasField("environment"))
    return dict(found)


def files(records: list[Record], kind: str) -> dict[str, SourceFile]:
    return {
        record.source_file.path: record.source_file
        for record in records
        if record.HasField("source_file") and record.source_file.kind == kind
    }


def code(records: list[Record]) -> str:
    (found,) = (record.fingerprint.code for record in records if record.HasField("fingerprint"))
    return str(found)


def test_a_clean_repository_has_a_commit_and_no_patch(root: Path) -> None:
    found = list(collect(task(root)))
    said = environment(found)
    assert said["git"] == {
        "commit": run_git(root, "rev-parse", "HEAD").strip(),
        "branch": "main",
        "remote": "",
        "root": str(root),
        "dirty": False,
    }
    assert said["notes"] == []
    assert files(found, "patch") == files(found, "untracked") == {}


def test_without_a_repository_and_without_git_the_rest_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = environment(list(collect(task(tmp_path))))
    assert "git" not in said
    assert said["notes"] == []
    assert said["cpus"] == os.cpu_count()
    monkeypatch.setenv("PATH", str(tmp_path))
    said = environment(list(collect(task(tmp_path))))
    assert said["notes"] == ["git: FileNotFoundError: [Errno 2] No such file or directory: 'git'"]
    assert said["cpus"] == os.cpu_count()


def test_before_the_first_commit_all_that_is_staged_is_the_patch(tmp_path: Path) -> None:
    run_git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "a.py").write_text("x = 1\n")
    run_git(tmp_path, "add", "a.py")
    found = files(list(collect(task(tmp_path))), "patch")
    assert found[PATCH].content.decode() == run_git(tmp_path, "diff", "--cached")


def test_the_users_own_settings_of_git_do_not_change_the_patch(root: Path, tmp_path: Path) -> None:
    lines = "".join(f"line{at} = 0\n" for at in range(9))
    (root / "a.py").write_text(lines)
    run_git(root, "commit", "-qam", "longer")
    (root / "a.py").write_text(lines.replace("line4 = 0", "line4 = 1"))
    plain = run_git(root, "diff", "HEAD")
    ran = tmp_path / "ran"
    for name, value in {
        "diff.external": f"touch {ran};:",
        "diff.noprefix": "true",
        "diff.context": "0",
        "color.ui": "always",
        "core.fsmonitor": f"touch {ran};:",
        "diff.own.textconv": f"touch {ran};cat",
    }.items():
        run_git(root, "config", name, value)
    (root / ".gitattributes").write_text("*.py diff=own\n")
    assert files(list(collect(task(root))), "patch")[PATCH].content.decode() == plain
    assert not ran.exists(), "no program of the configuration was run"


def test_content_of_files_that_hold_secrets_is_never_taken(root: Path) -> None:
    for name in (".env", "deploy/key.pem", "id_ed25519", ".aws/config"):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("T0PSECRET\n")
    run_git(root, "add", ".env", "deploy/key.pem")
    (root / "settings.yaml").write_text("depth: 2\ntoken: T0PSECRET\n")
    (root / "a.py").write_text('api_key = "T0PSECRET"\napi_key = os.environ["API_KEY"]\n')
    found = list(collect(task(root)))
    assert not any(b"T0PSECRET" in record.SerializeToString() for record in found)
    patches = files(found, "patch")
    assert sorted(patches) == [".env", "deploy/key.pem", PATCH]
    assert '+api_key = "***"\n+api_key = os.environ["API_KEY"]\n' in patches[PATCH].content.decode()
    assert "+token: ***" in patches[PATCH].content.decode()
    untracked = files(found, "untracked")
    assert {path: file.note for path, file in untracked.items()} == {
        ".aws/config": MAY_HOLD_SECRETS,
        "id_ed25519": MAY_HOLD_SECRETS,
    }
    assert all(file.digest for file in untracked.values())


def test_untracked_files_are_named_up_to_a_number_and_taken_up_to_a_size(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        (root / f"new{number:02}.txt").write_text(f"{number}\n" * 400)
    (root / "zlink").symlink_to("a.py")
    monkeypatch.setattr(asking, "UNTRACKED_TOTAL_BYTES", 2000)
    monkeypatch.setattr(asking, "UNTRACKED_FILES", 10)
    found = files(list(collect(task(root))), "untracked")
    assert len(found) == 11
    assert [bool(found[f"new{number:02}.txt"].content) for number in range(10)] == [True, True, *[False] * 8]
    assert found["new05.txt"].note == "named only, it is too large"
    assert found[""].note == "3 more untracked files are not named"
    monkeypatch.setattr(asking, "UNTRACKED_FILES", 100)
    assert files(list(collect(task(root))), "untracked")["zlink"].note == "a link"


def test_nothing_is_taken_of_the_spool(root: Path) -> None:
    (root / ".runtide" / "spool").mkdir(parents=True)
    (root / ".runtide" / "spool" / "stream.json").write_text('{"token": "x"}')
    found = files(list(collect(task(root, leave_out=(str(root / ".runtide"),)))), "untracked")
    assert found == {}
    inside = files(list(collect(task(root, leave_out=(str(root.parent),)))), "untracked")
    assert list(inside) == [".runtide/spool/stream.json"], "a home around the code hides nothing of it"


def test_git_that_says_too_much_or_nothing_is_ended(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "a.py").write_text("".join(f"y{at} = {at}\n" for at in range(5000)))
    monkeypatch.setattr(asking, "OUTPUT_BYTES", 1000)
    (patch,) = Repository(root).patch(1)
    assert patch.note.startswith("more than 1000 bytes")
    assert len(patch.content) <= 1000
    fake = root.parent / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nexec sleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(asking, "TIMEOUT_S", 0.2)
    begun = time.monotonic()
    assert Repository.around(root) is None
    assert time.monotonic() - begun < 10


def test_the_packages_are_those_of_the_jobs_path(tmp_path: Path) -> None:
    for name, version, origin in (
        ("own_one", "1.5", None),
        ("vcs", "2.0", {"url": "https://me:pw@example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}}),
        ("edited", "3.0", {"url": "file:///src/edited", "dir_info": {"editable": True}}),
    ):
        folder = tmp_path / "first" / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: other\n")
        if origin:
            (folder / "direct_url.json").write_text(json.dumps(origin))
    later = tmp_path / "second" / "own_one-9.dist-info"
    later.mkdir(parents=True)
    (later / "METADATA").write_text("Name: own_one\nVersion: 9\n")
    notes: list[str] = []
    assert packages([str(tmp_path / "first"), str(tmp_path / "second"), str(tmp_path / "none")], notes) == {
        "own_one": ("1.5", "own_one==1.5"),
        "vcs": ("2.0", "vcs @ git+https://example.org/x.git@abc"),
        "edited": ("3.0", "# edited==3.0 from file:///src/edited"),
    }


def test_a_package_that_cannot_be_read_costs_no_other(tmp_path: Path) -> None:
    for name, author in (("old", b"J\xf6rg"), ("new", b"Joerg")):
        (tmp_path / f"{name}-1.0.dist-info").mkdir()
        head = b"Metadata-Version: 2.1\nName: " + name.encode() + b"\nVersion: 1.0\nAuthor: "
        (tmp_path / f"{name}-1.0.dist-info" / "METADATA").write_bytes(head + author + b"\n\n")
    said = environment(list(collect(task(tmp_path, search=(str(tmp_path),)))))
    assert said["packages"] == {"new": "1.0"}
    (note,) = (note for note in said["notes"] if note.startswith("packages"))
    assert "old-1.0.dist-info" in note


def test_what_git_does_not_answer_is_not_shown_as_clean(root: Path) -> None:
    clean = code(list(collect(task(root))))
    (root / ".git" / "index").write_bytes(b"broken")
    found = list(collect(task(root)))
    assert files(found, "patch")[PATCH].note == "git did not answer"
    assert files(found, "untracked")[""].note == "git did not answer"
    assert environment(found)["git"]["dirty"] is True
    assert code(found) != clean


def test_what_is_committed_while_it_is_collected_is_in_the_patch(root: Path) -> None:
    first = run_git(root, "rev-parse", "HEAD").strip()
    (root / "a.py").write_text("x = 22\n")
    run_git(root, "commit", "-qam", "second")
    found = list(collect(task(root, facts={"git": {"commit": first, "branch": "main", "remote": ""}})))
    said = environment(found)["git"]
    assert (said["commit"], said["dirty"]) == (first, True)
    assert b"+x = 22" in files(found, "patch")[PATCH].content


def test_a_secret_file_of_a_submodule_stays_there(root: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / ".env").write_text("x\n")
    run_git(inner, "init", "-q")
    run_git(inner, "add", ".")
    run_git(inner, "commit", "-qm", "inner")
    run_git(root, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(inner), "sub")
    run_git(root, "commit", "-qm", "sub")
    run_git(root, "config", "diff.submodule", "diff")
    (root / "sub" / ".env").write_text("hidden\n")
    found = list(collect(task(root)))
    assert b"-dirty" in files(found, "patch")[PATCH].content
    assert not any(b"hidden" in file.content for file in files(found, "patch").values())


def test_the_lock_holds_what_pip_says_is_installed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format", "json"], capture_output=True, text=True, check=True
    )
    installed = {each["name"]: each["version"] for each in json.loads(done.stdout)}
    found = {name: version for name, (version, _) in packages(sys.path, []).items()}
    assert len(installed) > 20
    assert {name: found.get(name) for name in installed} == installed


def test_equal_code_has_one_digest_and_any_change_of_it_another(root: Path) -> None:
    first = code(list(collect(task(root, entry="e"))))
    (root / "results.csv").write_text("1\n")
    assert code(list(collect(task(root, entry="e")))) == first, "what a run writes is no code"
    (root / "helper.py").write_text("h = 1\n")
    second = code(list(collect(task(root, entry="e"))))
    (root / "a.py").write_text("x = 3\n")
    third = code(list(collect(task(root, entry="e"))))
    fourth = code(list(collect(task(root, entry="f"))))
    assert len({first, second, third, fourth}) == 4


def test_long_after_the_start_only_the_jobs_own_word_is_said(root: Path) -> None:
    late = time.time_ns() // 1000 - int(collecting.LATE_S * 1e6) - 1_000_000
    (root / "a.py").write_text("x = 2\n")
    (found,) = collect(task(root, time_us=late, facts={"python": "3.11"}))
    said = environment([found])
    assert (said["python"], "packages" in said) == ("3.11", False)
    assert "too late" in said["notes"][0]


def test_an_environment_that_is_too_large_says_what_it_leaves_out(tmp_path: Path) -> None:
    facts = {"variables": {f"V{number}": "x" * 1000 for number in range(300)}, "command": ["a"]}
    said = environment(list(collect(task(tmp_path, facts=facts))))
    assert said["variables"] == {}
    assert said["command"] == ["a"]
    assert said["notes"] == ["variables left out: too large"]
