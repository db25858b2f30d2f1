"""The image installs what the lock files say, by hash: all of it, within what pyproject.toml allows."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
IMAGE = {"python_version": "3.12", "python_full_version": "3.12.0", "sys_platform": "linux", "extra": ""}
ENTRY = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[\w.!+]+)(?: ; [^-]+?)?(?: --hash=sha256:[0-9a-f]{64})+")


def extras_of_the_image() -> list[str]:
    """As `make lock` is told."""
    return re.findall(r"--extra (\w+)", (ROOT / "Makefile").read_text())


def wanted(extras: list[str]) -> list[Requirement]:
    """What runtide with these extras asks for, its extras' extras included."""
    found, left, seen = list(PROJECT["project"]["dependencies"]), list(extras), set[str]()
    while left:
        extra = left.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for line in PROJECT["project"]["optional-dependencies"][extra]:
            requirement = Requirement(line)
            if requirement.name == "runtide":
                left += requirement.extras
            else:
                found.append(line)
    return [each for each in map(Requirement, found) if each.marker is None or each.marker.evaluate(IMAGE)]


def problems(lock: str, requirements: list[Requirement]) -> list[str]:
    """What is wrong with a lock file."""
    lines = [line for line in lock.replace(" \\\n", "").splitlines() if not line.lstrip().startswith("#")]
    entries = [(line, ENTRY.fullmatch(re.sub(r"\s+", " ", line))) for line in lines]
    found = [f"not a version with hashes: {line}" for line, entry in entries if entry is None]
    locked = {canonicalize_name(entry["name"]): entry["version"] for _, entry in entries if entry}
    if len(locked) != len(entries) - len(found):
        found.append("a package stands twice")
    for requirement in requirements:
        version = locked.get(canonicalize_name(requirement.name))
        if version is None:
            found.append(f"not there: {requirement}")
        elif not requirement.specifier.contains(version):
            found.append(f"{requirement.name} {version} is not {requirement.specifier}")
    if re.search(r"://|^\s*-(?!-hash)", lock, re.MULTILINE):
        found.append("it names where packages come from")
    return found


LOCK = (ROOT / "deploy" / "requirements.lock").read_text()
WANTED = wanted(extras_of_the_image())


def test_the_lock_holds_what_the_image_needs() -> None:
    assert sorted(extras_of_the_image()) == ["dashboard", "gateway", "processor"]
    assert {"grpcio", "aiokafka", "faust-streaming", "streamlit", "clickhouse-connect"} <= {
        each.name for each in WANTED
    }
    assert problems(LOCK, WANTED) == []


def test_what_builds_the_wheel_is_locked_too() -> None:
    requirements = [Requirement(line) for line in PROJECT["build-system"]["requires"]]
    assert problems((ROOT / "deploy" / "build.lock").read_text(), requirements) == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lock: re.sub(r"(?ms)^aiokafka==.*?(?=^[a-z])", "", lock), "not there: aiokafka"),
        (lambda lock: re.sub(r"(?m)^aiokafka==\S+", "aiokafka==0.15.0", lock), "aiokafka 0.15.0 is not"),
        (lambda lock: re.sub(r"(?m)^aiokafka==\S+", "aiokafka>=0.14", lock), "not a version with hashes: aiokafka"),
        (lambda lock: lock + "later==1.0\n", "not a version with hashes: later"),
        (lambda lock: lock + "later @ https://example.org/later.whl --hash=sha256:" + "0" * 64, "not a version"),
        (lambda lock: "--index-url https://example.org/simple\n" + lock, "it names where packages come from"),
        (lambda lock: lock + lock, "a package stands twice"),
    ],
    ids=["missing", "another version", "no version", "no hash", "address", "index", "twice"],
)
def test_a_spoiled_lock_is_seen(spoil: Callable[[str], str], said: str) -> None:
    assert any(found.startswith(said) for found in problems(spoil(LOCK), WANTED))


def test_the_image_installs_by_hash_and_nothing_else() -> None:
    text = re.sub(r"\\\n", " ", (ROOT / "deploy" / "Dockerfile").read_text())
    installs = re.findall(r"pip (?:install|wheel) (.*?)(?=&&|\n|$)", text)
    assert len(installs) == 4
    for install in installs:
        by_hash = re.search(r"--require-hashes -r deploy/(build|requirements)\.lock", install)
        assert by_hash or {"--no-deps", "--no-index"} <= set(install.split()), install
