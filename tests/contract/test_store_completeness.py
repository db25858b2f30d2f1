"""The view completeness: a run that says everything, and for each check one that lacks just that."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from runtide.testing.sample_data import SampleRun, fill
from runtide.warehouse.client import Client

ENVIRONMENT = {"python": "3.12.1", "command": ["python", "train.py"], "packages": {"numpy": "2.1.0"}}
ENTRY = {"kind": "entry", "path": "train.py", "parts": 1}
PATCH = {"kind": "patch", "path": "changes.patch", "parts": 1}
DATA = {"name": "clicks", "role": "train", "digest": "d1"}


@dataclass(frozen=True)
class Said:
    """What a run says of itself; as it stands here, all of it."""

    environment: dict[str, Any] = field(default_factory=lambda: ENVIRONMENT)
    files: tuple[dict[str, Any], ...] = (ENTRY, PATCH)
    datasets: tuple[dict[str, Any], ...] = (DATA,)
    config: dict[str, Any] = field(default_factory=lambda: {"lr": 0.1})

    def events(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "environment", {"json": json.dumps(self.environment)}
        for file in self.files:
            yield "source_file", file
        for dataset in self.datasets:
            yield "dataset_use", dataset


LACKS = {
    "the script or notebook was not kept": Said(files=(PATCH,)),
    "the script or notebook was not kept whole": Said(files=(ENTRY | {"truncated": True}, PATCH)),
    "uncommitted changes or untracked files were not kept whole": Said(files=(ENTRY, PATCH | {"truncated": True})),
    "the command line is not known": Said(ENVIRONMENT | {"command": []}),
    "the version of Python is not known": Said(ENVIRONMENT | {"python": ""}),
    "the installed packages are not known": Said(ENVIRONMENT | {"packages": {}}),
    "no configuration was given to init()": Said(config={}),
    "no dataset was named by use_dataset()": Said(datasets=()),
    "the content of a dataset is not known by a digest": Said(datasets=(DATA, DATA | {"name": "more", "digest": ""})),
}


def completeness(client: Client, run: str, said: Said) -> tuple[float, list[str], list[str]]:
    """Store what a run says; return its score, what it meets and what is missing."""
    fill(client, (replace(SampleRun(run, run, "said", steps=1, lasted_s=1), config=said.config),))
    rows = [["said", run, kind, json.dumps(body), 1, run, at] for at, (kind, body) in enumerate(said.events())]
    columns = ["project", "run_id", "kind", "json", "attempt", "stream", "offset"]
    client.insert("runtide.events", rows, column_names=columns)
    ((*found,),) = client.query(
        "SELECT score, met, missing FROM runtide.completeness WHERE run_id = {run:String}", parameters={"run": run}
    ).result_rows
    return tuple(found)


def test_a_run_that_says_everything_misses_nothing(client: Client) -> None:
    score, met, missing = completeness(client, "whole", Said())
    assert (score, len(met), missing) == (100, 8, [])


@pytest.mark.parametrize("missing", LACKS)
def test_what_a_run_lacks_is_missing_and_nothing_else(client: Client, missing: str) -> None:
    score, met, found = completeness(client, missing, LACKS[missing])
    assert (score, len(met), found) == (87.5, 7, [missing])


def test_a_run_without_metrics_has_nothing_to_compare(client: Client) -> None:
    fill(client, (SampleRun("silent", "silent", "said", steps=1, lasted_s=1),))
    client.command(
        "INSERT INTO runtide.run_rows (* EXCEPT (summary, version), summary, version)"
        " SELECT * EXCEPT (summary, version), '{}', version + 1 FROM runtide.run_rows WHERE run_id = 'silent'"
    )
    ((missing,),) = client.query("SELECT missing FROM runtide.completeness WHERE run_id = 'silent'").result_rows
    assert "no metric was logged to compare" in missing
