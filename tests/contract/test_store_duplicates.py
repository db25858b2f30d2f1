"""Which runs are the same as one that is about to start, or near it, and which are another experiment."""

from __future__ import annotations

import json
from typing import Any

import pytest
from runtide.testing.sample_data import SampleRun, fill
from runtide.v1.ingest_pb2 import PreflightRequest
from runtide.v1.records_pb2 import Fingerprint
from runtide.warehouse.client import Client
from runtide.warehouse.duplicates import NEAR_KEYS, SHOWN, find_duplicates

CONFIG = {"lr": 0.1, "depth": 3, "seed": 1, "batch": 8}
COLUMNS = ["project", "run_id", "kind", "json", "attempt", "stream", "offset"]


def ran(client: Client, project: str, run: str, code: str = "c", environment: str = "e", **config: Any) -> None:
    """Store a run and what is known of its code, configuration and environment."""
    fill(client, (SampleRun(run, run, project, steps=1, lasted_s=1, config=CONFIG | config),))
    said = {"code": code, "config": digest(config), "environment": environment}
    client.insert("runtide.events", [[project, run, "fingerprint", json.dumps(said), 1, run, 0]], column_names=COLUMNS)


def digest(config: dict[str, Any]) -> str:
    return json.dumps(CONFIG | config)


def found(client: Client, project: str, **told: str) -> dict[str, list[str]]:
    """Runs that are named, in their order, and what differs in each."""
    about = Fingerprint(**{"code": "c", "config": digest({}), "environment": "e"} | told)
    asked = PreflightRequest(run_id="new", fingerprint=about, config=json.dumps(CONFIG))
    return {each.run_id: [one.what for one in each.differences] for each in find_duplicates(client, project, asked)}


def test_what_is_the_same_and_what_is_near_comes_nearest_first(client: Client) -> None:
    ran(client, "near", "two keys", lr=0.2, seed=2)
    ran(client, "near", "other code", code="d")
    ran(client, "near", "same")
    ran(client, "near", "one key and environment", environment="f", seed=2)
    ran(client, "near", "three keys", lr=0.2, seed=2, depth=4)
    ran(client, "near", "other code and key", code="d", seed=2)
    assert NEAR_KEYS == 2
    assert found(client, "near") == {
        "same": [],
        "other code": ["code"],
        "one key and environment": ["config.seed", "environment"],
        "two keys": ["config.lr", "config.seed"],
    }
    assert next(iter(found(client, "near"))) == "same"


def test_of_many_the_nearest_are_named_with_their_results(client: Client) -> None:
    for seed in range(SHOWN + 2):
        ran(client, "many", f"r{seed}", seed=seed)
    assert len(found(client, "many")) == SHOWN
    assert next(iter(found(client, "many"))) == "r1"


@pytest.mark.parametrize("told", [{"code": ""}, {"config": ""}, {"code": "", "config": ""}])
def test_what_is_not_known_is_equal_to_nothing(client: Client, told: dict[str, str]) -> None:
    project = f"unknown {sorted(told)}"
    client.insert("runtide.events", [[project, "empty", "fingerprint", "{}", 1, "empty", 0]], column_names=COLUMNS)
    fill(client, (SampleRun("empty", "empty", project, steps=1, lasted_s=1, config=CONFIG),))
    assert "empty" not in found(client, project, **told)


def test_runs_of_other_projects_and_the_run_itself_are_not_named(client: Client) -> None:
    ran(client, "mine", "new")
    ran(client, "theirs", "same")
    assert found(client, "mine") == {}
    assert list(found(client, "theirs")) == ["same"]
