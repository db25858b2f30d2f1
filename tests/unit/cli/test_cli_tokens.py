"""`runtide token`: what is said, kept and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from runtide.cli import main
from runtide.cli.tokens import read_expiry
from runtide.wire.errors import BadInput


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RUNTIDE_KAFKA_BOOTSTRAP", raising=False)
    monkeypatch.setenv("RUNTIDE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_life(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert main(["token", "list"]) == 0
    assert "lets everybody in" in capsys.readouterr().out
    assert main(["token", "create", "-p", "vision", "-r", "writer", "--name", "ci", "--expires", "30d", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["project"], made["role"], made["name"], made["good"]) == ("vision", "writer", "ci", True)
    assert made["token"].startswith(f"runtide_{made['id']}_")
    assert main(["token", "create", "-p", "speech", "-r", "reader"]) == 0
    text = capsys.readouterr()
    assert text.out.startswith("runtide_")
    assert text.out.count("\n") == 1, "the token alone, so that $(...) takes it"
    assert "not shown again" in text.err
    assert main(["token", "list", "--json", "-p", "vision"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["id"] for row in rows] == [made["id"]]
    assert set(rows[0]) == {"id", "project", "role", "name", "created", "expires", "revoked", "good"}
    kept = (home / "control.json").read_text()
    for token in (made["token"], text.out.strip()):
        assert token.split("_", 2)[2] not in kept
    assert main(["token", "revoke", made["id"]]) == 0
    capsys.readouterr()
    assert main(["token", "list", "--json", "-p", "vision"]) == 0
    row = json.loads(capsys.readouterr().out)[0]
    assert row["revoked"]
    assert row["good"] is False


def test_what_is_wrong_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "revoke", "nobody"]) == 1
    assert "there is no token nobody: `runtide token list`" in capsys.readouterr().err
    assert main(["token", "revoke", "runtide_aabb_secretsecret"]) == 1
    error = capsys.readouterr().err
    assert "only its id is needed" in error
    assert "secretsecret" not in error
    assert main(["token", "create", "-p", "a/b", "-r", "writer"]) == 1
    assert "project is 'a/b'" in capsys.readouterr().err
    assert main(["token", "create", "-p", "a", "-r", "king"]) == 2
    assert main(["token", "create", "-p", "a", "-r", "writer", "--expires", "soon"]) == 1
    assert "--expires is 'soon', but it is a time to come: 30d" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30d", 30 * 86400), ("12h", 43200), ("2w", 14 * 86400), ("5m", 300), ("1970-01-02", 86400 - 1000)],
)
def test_times_to_come(text: str, seconds: int) -> None:
    assert read_expiry(text, 1000) == 1000 + seconds


@pytest.mark.parametrize("text", ["", "0d", "-3d", "30", "30y", "1970-01-01", "2030-13-01", "99999999d"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(BadInput, match="--expires"):
        read_expiry(text, 1000)
