"""The kept cases: there, small, and what fails is written down to be kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import make_corpus
from tests.fuzz.kept import CORPUS, corpus, failing

BYTES = 200_000
"""Of all kept cases together."""


def test_every_surface_has_kept_cases_and_all_of_them_are_small() -> None:
    assert {path.name for path in CORPUS.iterdir()} == {"decoder", "http", "noise", "push", "spool"}
    files = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert all(path.suffix == ".bin" for path in files)
    assert sum(path.stat().st_size for path in files) < BYTES
    assert all(len(corpus(path.name)) > 10 for path in CORPUS.iterdir())


def test_what_was_made_is_there_as_it_was_made() -> None:
    for surface, named in make_corpus.surfaces().items():
        assert {name for name, raw in named.items() if (CORPUS / surface / f"{name}.bin").read_bytes() != raw} == set()


def test_a_case_that_fails_is_written_down_and_the_failure_says_how_to_keep_it(tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as caught, failing("spool", b"bad bytes", tmp_path):
        raise AssertionError("not whole")
    (written,) = tmp_path.rglob("*.bin")
    assert written.read_bytes() == b"bad bytes"
    (note,) = caught.value.__notes__
    assert f"mv {written} {CORPUS / 'spool'}" in note
    with failing("spool", b"good bytes", tmp_path):
        pass
    assert list(tmp_path.rglob("*.bin")) == [written]
