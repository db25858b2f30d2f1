"""Secrets are hidden, by name and by shape, and what is none stays."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
from runtide.sdk.masking import MASK, is_secret, mask, mask_command, mask_text, without_user
from runtide.sdk.values import to_json

KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\nline\n-----END RSA PRIVATE KEY-----"
SHAPES = {
    "AWS key id": "AKIA" + "IOSFODNN7EXAMPLE",
    "AWS temporary key id": "ASIA" + "IOSFODNN7EXAMPLE",
    "GitHub": "ghp_" + "a1" * 18,
    "GitHub fine": "github_pat_" + "a1" * 20,
    "GitLab": "glpat-" + "a1" * 10,
    "Hugging Face": "hf_" + "aB" * 17,
    "OpenAI": "sk-proj-" + "aB3_" * 10,
    "Slack": "xoxb-" + "12345678901-" * 2 + "abc",
    "Google": "AIza" + "aB3_-" * 7,
    "runtide": "runtide_0123456789ab_" + "aB-_" * 10 + "abc",
    "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-_123",
    "private key": KEY,
    "cut private key": KEY[:60],
}


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("token", True),
        ("WANDB_API_KEY", True),
        ("aws.secret_access_key", True),
        ("client_secret", True),
        ("passwd", True),
        ("githubToken", True),
        ("tokens_per_batch", False),
        ("eos_token", False),
        ("tokenizer_name", False),
        ("key", False),
    ],
)
def test_what_counts_as_a_secret(name, secret):
    assert is_secret(name) is secret


@pytest.mark.parametrize("shape", SHAPES)
def test_known_shapes_are_hidden_wherever_they_stand(shape: str) -> None:
    secret = SHAPES[shape]
    found = json.loads(to_json(mask("note", {"deep": [f"before {secret}", Namespace(x=secret)], "name": secret})))
    assert "MIIE" not in str(found)
    assert secret not in str(found)
    assert found["name"] == MASK
    assert found["deep"][0] == f"before {MASK}"
    assert mask_command(["train.py", secret, f"--note={secret}"]) == ["train.py", MASK, f"--note={MASK}"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("postgresql://me:pw@db:5432/x", "postgresql://***@db:5432/x"),
        ("https://tok3n@host/x?y=1", "https://***@host/x?y=1"),
        ("see redis://:pw@cache/0 and s3://bucket/key", "see redis://***@cache/0 and s3://bucket/key"),
        ("ssh://git@host.org/x.git", "ssh://git@host.org/x.git"),
        ("git@host.org:me/x.git", "git@host.org:me/x.git"),
        ("Authorization: Bearer abcdef.ghi", "Authorization: *** ***"),
        ("curl -H 'X: Bearer abcdef'", "curl -H 'X: Bearer ***'"),
        ("Basic dXNlcjpwYXNzd29yZA==", "Basic ***"),
        ("host=db password=pw user=me", "host=db password=*** user=me"),
        ("https://h/x?api_key=K1&page=2", "https://h/x?api_key=***&page=2"),
        ('{"api_key": "K1", "lr": 0.1}', '{"api_key": "***", "lr": 0.1}'),
        ("AWS_SECRET_ACCESS_KEY=wJalr/K7 python x", "AWS_SECRET_ACCESS_KEY=*** python x"),
        ("a bearer of good news; Basic configuration", "a bearer of good news; Basic configuration"),
        ("lr=0.1 pad_token=<pad> max_tokens: 5", "lr=0.1 pad_token=<pad> max_tokens: 5"),
        ("sha256:abcdef, commit ab12cd34, 2030-01-31T12:00", "sha256:abcdef, commit ab12cd34, 2030-01-31T12:00"),
    ],
)
def test_texts(text: str, left: str) -> None:
    assert mask_text(text) == left
    assert mask_text(left) == left


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (["--api-key=K1", "--lr", "0.1"], ["--api-key=***", "--lr", "0.1"]),
        (["--hf-token", "K2", "--lr", "0.1"], ["--hf-token", "***", "--lr", "0.1"]),
        (["--token", "-K3", "x"], ["--token", "***", "x"]),
        (["--use-token", "--lr", "0.1"], ["--use-token", "--lr", "0.1"]),
        (
            ["db.password=K4", "+wandb.api_key=K5", "model.lr=1"],
            ["db.password=***", "+wandb.api_key=***", "model.lr=1"],
        ),
        (["--header", "Authorization: Bearer K6K6K6"], ["--header", "Authorization: *** ***"]),
        (["--db", "mysql://u:K7@h/d"], ["--db", "mysql://***@h/d"]),
        (["tokenizer.py", "--tokenizer", "bert", "--token="], ["tokenizer.py", "--tokenizer", "bert", "--token="]),
    ],
)
def test_commands(given: list[str], left: list[str]) -> None:
    assert mask_command(given) == left


def test_environments() -> None:
    """As a job would put its environment into its configuration."""
    told = {
        "HF_TOKEN": "K1",
        "WANDB_API_KEY": "K2",
        "AWS_SECRET_ACCESS_KEY": "K3",
        "AWS_ACCESS_KEY_ID": "K4",
        "PGPASSWORD": "K5",
        "RUNTIDE_TOKEN": "K6",
        "DATABASE_URL": "postgresql://me:K7@db/x",
        "http_proxy": "http://me:K8@proxy:80",
        "PATH": "/usr/bin",
        "TOKENIZERS_PARALLELISM": "false",
    }
    found = json.loads(to_json(mask("environment", told)))
    assert not [value for value in found.values() if "K" in value]
    assert (found["PATH"], found["TOKENIZERS_PARALLELISM"]) == ("/usr/bin", "false")


def test_git_remotes() -> None:
    assert without_user("https://me:pw@host.org/x.git") == "https://host.org/x.git"
    assert without_user("https://ghp_token@host.org/x.git") == "https://host.org/x.git"
    assert without_user("ssh://git@host.org/x.git") == "ssh://host.org/x.git"
    assert without_user("git@host.org:me/x.git") == "git@host.org:me/x.git"
    assert without_user("https://host.org/x.git?private_token=K") == "https://host.org/x.git?private_token=***"


def test_values_under_the_name_of_a_secret() -> None:
    assert mask("token", "") == ""
    assert mask("token", 5) == 5
    assert mask("token", None) is None
    assert mask("tokens", ["a"]) == ["a"]
    assert mask("api_key", ["a", ("b",)]) == [MASK, [MASK]]
    assert mask("password", b"pw") == MASK
    assert mask("credentials", {"user": "me", "n": 1}) == {"user": MASK, "n": 1}


class Shown:
    """An object that is written as its repr, as an address of SQLAlchemy or yarl is."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


@pytest.mark.parametrize(
    ("name", "value", "left"),
    [
        ("api_key", Shown("K1"), MASK),
        ("db", Shown("URL('postgres://u:pw@h')"), "URL('postgres://***@h')"),
        ("client", Shown("Client(api_key='K2', retries=3)"), "Client(api_key='***', retries=3)"),
        ("header", b"Bearer abcdef.ghi", "Bearer ***"),
        ("header", bytearray(b"Bearer abcdef.ghi"), "bytearray(b'Bearer ***')"),
        ("headers", {b"Bearer abcdef.ghi"}, ["Bearer ***"]),
        ("token", Path("/K3"), MASK),
        ("where", Path("/data/x"), "/data/x"),
        ("urls", np.array(["redis://:pw@cache/0", "x"]), ["redis://***@cache/0", "x"]),
        ("passwords", np.array(["K4"]), [MASK]),
        ("token", np.array([1, 2]), [1, 2]),
        ("weights", np.zeros(100_000), repr(np.zeros(100_000))),
        ("kind", Enum("Kind", {"ONE": "one"}).ONE, "one"),
        ("note", Shown("as it is"), "as it is"),
        ("note", b"\xff", "\ufffd"),
    ],
)
def test_what_becomes_text_is_masked_as_text(name: str, value: object, left: object) -> None:
    assert json.loads(to_json(mask("config", {name: value}))) == {name: left}


def test_circles_end() -> None:
    circle: dict[str, object] = {"x": 1}
    circle["me"] = circle
    assert MASK in to_json(mask("c", circle))


@pytest.mark.parametrize(
    "text", ["a" * 200_000, "a." * 100_000, "a://" * 50_000, "a=" * 100_000, " = " * 70_000, "-----BEGIN " * 20_000]
)
def test_no_text_is_slow(text: str) -> None:
    begun = time.perf_counter()
    mask_text(text)
    assert time.perf_counter() - begun < 2
