"""Digests of data: equal for equal content, different for any other, and refused where the content cannot be read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from runtide.sdk.datasets import dataset_use
from runtide.sdk.digests import content
from runtide.wire.errors import BadInput

from tests.offline_job import Job

ROWS = 200_000
TABLE = pa.table(
    {
        "whole": list(range(ROWS)),
        "broken": [at / 7 for at in range(ROWS)],
        "text": [f"größe {at}" for at in range(ROWS)],
        "holes": [None if at % 3 else at for at in range(ROWS)],
        "truth": [at % 2 == 0 for at in range(ROWS)],
    }
)


def digest(given: Any) -> str:
    return content(given).digest


def test_a_table_is_the_same_however_it_is_cut() -> None:
    cut = pa.concat_tables([TABLE.slice(0, 33_333), TABLE.slice(33_333)])
    assert cut.column(0).num_chunks == 2
    assert digest(cut) == digest(TABLE)
    assert digest(TABLE.slice(10, 5000)) == digest(pa.table(TABLE.slice(10, 5000).to_pydict()))


def test_an_array_is_the_same_however_it_lies() -> None:
    given = np.random.default_rng(0).random((3000, 700))
    assert digest(np.asfortranarray(given)) == digest(given)
    assert digest(np.repeat(given, 2, axis=0)[::2]) == digest(given)


def test_parts_are_the_same_in_any_order() -> None:
    assert digest({"x": np.arange(3), "y": [1]}) == digest({"y": [1], "x": np.arange(3)})
    assert digest({"x": np.arange(3), "y": [1]}) != digest({"y": np.arange(3), "x": [1]})


def test_a_frame_is_the_same_in_every_process(job: Job) -> None:
    script = """
import pandas as pd
from runtide.sdk.digests import content
print(content(pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [{"k": {1, 2}}, [b"y"]]})).digest)
"""
    told = {job.run(script, {"PYTHONHASHSEED": seed}).stdout for seed in ("1", "2")}
    assert len(told) == 1


FRAME = pd.DataFrame({"a": [1, 2, 3], "b": ["x", None, "z"], "when": pd.to_datetime(["2026-01-01"] * 3)})
LARGE = np.zeros(ROWS * 5)
OTHERS: dict[str, tuple[Any, Any]] = {
    "a value": (FRAME, FRAME.replace("z", "y")),
    "a missing one": (FRAME, FRAME.fillna("")),
    "order of rows": (FRAME, FRAME.iloc[::-1]),
    "name of a column": (FRAME, FRAME.rename(columns={"a": "c"})),
    "type of a column": (FRAME, FRAME.astype({"a": "int32"})),
    "an index": (FRAME, FRAME.set_index("a")),
    "a value of a table": (TABLE, TABLE.set_column(0, "whole", [[*range(1, ROWS), 0]])),
    "a part of a table": (TABLE.slice(0, 10), TABLE.slice(1, 10)),
    "the end of a large array": (LARGE, np.append(LARGE[:-1], 1.0)),
    "the end of a long list": ([*range(ROWS)], [*range(ROWS - 1), 0]),
    "one number": (np.array(1), np.array(2)),
    "shape": (np.arange(6), np.arange(6).reshape(2, 3)),
    "type": (np.arange(6), np.arange(6.0)),
    "cells of texts": (np.array(["ab", "c"], dtype=object), np.array(["a", "bc"], dtype=object)),
    "labels": ((np.arange(3), np.arange(3)), (np.arange(3), np.arange(1, 4))),
    "nesting": ([[1], [2]], [[1, 2]]),
    "a text and a number": (["1"], [1]),
    "truth and a number": ([True], [1]),
    "bytes": ([b"a", b"b"], [b"ab", b""]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_content_has_another_digest(name: str) -> None:
    one, other = OTHERS[name]
    assert digest(one) != digest(other)


def test_a_folder_is_its_files(tmp_path: Path) -> None:
    for folder, order in (("one", ("a", "b")), ("two", ("b", "a"))):
        (tmp_path / folder / "in").mkdir(parents=True)
        for name in order:
            (tmp_path / folder / "in" / name).write_text(name)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    (tmp_path / "two" / "in" / "a").rename(tmp_path / "two" / "in" / "c")
    assert digest(tmp_path / "one") != digest(tmp_path / "two")


def test_a_file_has_the_digest_that_other_tools_give(tmp_path: Path) -> None:
    file = tmp_path / "data.bin"
    file.write_bytes(bytes(range(256)) * 10_000)
    said = dataset_use("d", file.as_uri(), "train", "")
    assert said.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (said.version, said.size, said.uri) == (said.digest[:12], 2_560_000, str(file))


def test_an_address_has_a_digest_with_its_version_only() -> None:
    plain, first, second = (dataset_use("d", "s3://me:pass@bucket/x", "test", version) for version in ("", "1", "2"))
    assert plain.digest == plain.version == ""
    assert first.version == "1"
    assert len({first.digest, second.digest, ""}) == 3
    assert "pass" not in plain.uri


class Stream:
    """A dataset that can only be read once."""


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ("no/such/file", "the dataset's path is 'no/such/file', but there is no such file or folder"),
        (Stream(), "Stream, but it is a path, a URI, an array"),
        ([Stream()], "Stream, but give version="),
        (7, "of type builtins.int"),
    ],
)
def test_what_cannot_be_read_is_refused(given: Any, wrong: str) -> None:
    with pytest.raises(BadInput) as refused:
        dataset_use("d", given, "train", "")
    assert wrong in str(refused.value)


def test_what_cannot_be_read_is_known_by_a_version() -> None:
    said = dataset_use("d", Stream(), "train", "v1")
    assert said.version == "v1"
    assert said.uri.endswith(".Stream")
    assert '"not read' in said.json


def test_a_dataset_is_said_once_for_each_role_and_a_wrong_one_not_at_all(job: Job) -> None:
    done = job.run(
        """
import array, runtide, sys
run = runtide.init("p", mode="offline")
for role in ("train", "train", "test", "training"):
    run.use_dataset("d", [1, 2, 3], role)
runtide.use_dataset("", [1], "train")
assert run.refused == 2, run.refused
assert not {"numpy", "pandas", "pyarrow"} & set(sys.modules)
""",
    )
    assert "role is 'training', but it is one of train, validation, test" in done.stderr
    (stream,) = job.streams()
    assert [record.dataset_use.role for record in stream.said("dataset_use")] == ["train", "test"]
