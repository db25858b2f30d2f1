"""Secrets in files: which files are made for them, and what is hidden in code so that it still runs."""

from __future__ import annotations

import json

import pytest
from runtide.wire.secrets import holds_secrets, mask_source
from runtide.wire.source_files import MASKED, PART_BYTES, kept


@pytest.mark.parametrize(
    ("path", "holds"),
    [
        (".env", True),
        ("deploy/.env.production", True),
        (".env.example", False),
        ("certs/SERVER.PEM", True),
        ("id_rsa", True),
        ("home/.ssh/config", True),
        ("secrets.yaml", True),
        ("secrets/x.txt", True),
        ("train.py", False),
        ("environment.yml", False),
        ("keyboard.py", False),
        ("", False),
    ],
)
def test_files_that_are_made_to_hold_secrets(path: str, holds: bool) -> None:
    assert holds_secrets(path) is holds


@pytest.mark.parametrize(
    ("code", "left"),
    [
        ('token = os.environ["TOKEN"]', 'token = os.environ["TOKEN"]'),
        ("init(api_key=args.api_key, name='x')", "init(api_key=args.api_key, name='x')"),
        ('api_key = "K1 K2"', 'api_key = "***"'),
        ('password: str = "K1"', 'password: str = "***"'),
        ("os.environ['HF_TOKEN'] = 'K1'", "os.environ['HF_TOKEN'] = '***'"),
        ('{"client_secret": f"K1"}', '{"client_secret": f"***"}'),
        ('secret = """K1\nK2""" + x', 'secret = """***""" + x'),
        ('tokenizer = "bert"; pad_token = "<pad>"', 'tokenizer = "bert"; pad_token = "<pad>"'),
        ('connect("postgres://me:K1@db/x")', 'connect("postgres://***@db/x")'),
        ('key = "AKIAIOSFODNN7EXAMPLE"', 'key = "***"'),
        (r'"source": ["password = \"K1\"\n"]', r'"source": ["password = \"***\"\n"]'),
        ('password = "a\\tb"', 'password = "***"'),
        ('add_argument("--api-key", default="K1")', 'add_argument("--api-key", default="***")'),
        (
            "add_argument('-t', '--hf-token', type=str, help='it\\'s', default='K1', dest='x')",
            "add_argument('-t', '--hf-token', type=str, help='it\\'s', default='***', dest='x')",
        ),
        (
            'add_argument(\n+    "--password",\n+    help="no (default)",\n+    default="K1",\n+)',
            'add_argument(\n+    "--password",\n+    help="no (default)",\n+    default="***",\n+)',
        ),
        (r"add_argument(\"--token\", default=\"K1\")", r"add_argument(\"--token\", default=\"***\")"),
        ('add_argument("--token")\nadd_argument("--model", default="bert")', None),
        ('add_argument("--tokenizer", default="bert")', None),
        ('add_argument("--api-key", default=None)', None),
        ('os.getenv("API_KEY", "K1")', 'os.getenv("API_KEY", "***")'),
        ("os.environ.get('HF_TOKEN', 'K1')", "os.environ.get('HF_TOKEN', '***')"),
        ('os.getenv("HOME", "x"); both("token", "x")', None),
    ],
)
def test_code_keeps_what_is_no_secret(code: str, left: str | None) -> None:
    left = code if left is None else left
    assert mask_source("a.py", code) == left
    assert mask_source("a.ipynb", left) == left


def test_other_files_hide_all_that_a_name_is_given() -> None:
    assert mask_source("conf.yaml", "password: K1\ndepth: 3\n") == "password: ***\ndepth: 3\n"
    assert mask_source("conf.ini", "token=a\\b\n") == "token=***\n"


def test_a_file_that_is_no_text_stays_as_it_is() -> None:
    raw = bytes(range(256)) * 10
    (file,) = kept("data.bin", "config", raw, 1)
    assert (file.content, file.size, file.note) == (raw, len(raw), "")


def test_parts_together_are_the_file() -> None:
    raw = b"0123456789abcde\n" * (2 * PART_BYTES // 16) + b"end"
    parts = list(kept("a.txt", "config", raw, 7))
    assert [(part.part, part.parts, part.time_us) for part in parts] == [(0, 3, 7), (1, 3, 7), (2, 3, 7)]
    assert b"".join(part.content for part in parts) == raw
    assert not any(part.truncated for part in parts)
    (empty,) = kept("empty.txt", "config", b"", 7)
    assert (empty.parts, empty.content, empty.truncated) == (1, b"", False)


def test_a_patch_is_masked_file_by_file_and_binary_changes_are_left_alone() -> None:
    code = 'diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n+token = get()\n+token = "K1"\n'
    text = "diff --git a/x.yaml b/x.yaml\n--- a/x.yaml\n+++ b/x.yaml\n@@ -1 +1 @@\n+token: K1\n"
    binary = "diff --git a/x.bin b/x.bin\nindex 1..2\nGIT binary patch\nliteral 5\npassword=K1\n\n"
    (file,) = kept("p.patch", "patch", (code + text + binary).encode(), 1)
    expected = code.replace("K1", "***") + text.replace("K1", "***") + binary
    assert (file.content.decode(), file.note) == (expected, MASKED)


def test_what_was_masked_before_is_not_masked_again() -> None:
    (file,) = kept("a.ipynb", "notebook", json.dumps({"a": "K1"}).encode(), 1, safe=b'{"a": "***"}')
    assert (file.content, file.note, file.size) == (b'{"a": "***"}', MASKED, 11)


def test_code_after_an_empty_text_stays_as_it_is() -> None:
    """`token=""` hides nothing, so what follows on its line is no secret, and the code runs again."""
    code = 'login(token="", name="abc", password=\'\', url="x")\n'
    assert mask_source("a.py", code) == code
    assert mask_source("a.py", 'token = """abc"""\n') == 'token = """***"""\n'
