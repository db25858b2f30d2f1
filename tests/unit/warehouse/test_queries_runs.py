"""Runs, logs, streams and resources as the pages ask for them, on the real engine."""

from __future__ import annotations

import pytest
from clickhouse_connect.driver.client import Client
from runtide.processor.rebuild import rebuild
from runtide.testing import sample_data
from runtide.warehouse import queries
from runtide.wire.canary import PROJECT as CANARY

RUN = sample_data.SampleRun("r-1", "alpha", steps=200, world_size=2, tags=["Baseline"], lasted_s=100)
OTHER = sample_data.SampleRun("r-2", "beta", state="crashed", exit_code=137, steps=50, user="grace", lasted_s=100)
LONG = sample_data.SampleRun("r-3", "gamma", project="audio", steps=50, started_s_ago=40000, lasted_s=30000)


@pytest.fixture(scope="module")
def client(client: Client) -> Client:
    sample_data.fill(client, (RUN, OTHER, LONG))
    rebuild(client, force=True)  # made-up rows do not lie end to end
    return client


def names(client: Client, **conditions: object) -> list[str]:
    found = queries.runs(client, queries.Selection(**conditions))  # type: ignore[arg-type]
    return sorted(row.name for row in found)


def test_runs_are_found_by_project_state_and_words(client: Client) -> None:
    assert queries.projects(client) == ["audio", "vision"]
    assert names(client) == ["alpha", "beta", "gamma"]
    assert names(client, project="vision") == ["alpha", "beta"]
    assert names(client, states=["crashed"]) == ["beta"]
    assert names(client, text="baseline TRAINER") == ["alpha"]
    assert names(client, text="grace r-2") == ["beta"]
    assert names(client, text="%' OR 1 --") == []
    assert queries.count_runs(client, queries.Selection(project="vision")) == {"finished": 1, "crashed": 1}


def test_the_canary_is_found_by_its_project_only(client: Client) -> None:
    sample_data.fill(client, (sample_data.SampleRun("c-1", "canary", project=CANARY, steps=5, lasted_s=10),))
    assert CANARY not in queries.projects(client)
    assert "canary" not in names(client)
    assert sum(queries.count_runs(client, queries.Selection()).values()) == 3
    assert names(client, project=CANARY) == ["canary"]


def test_runs_come_in_pages_last_started_first(client: Client) -> None:
    everything = [row.run_id for row in queries.runs(client, queries.Selection())]
    assert everything[-1] == "r-3"
    pages = [queries.runs(client, queries.Selection(), 1, offset)[0].run_id for offset in range(3)]
    assert pages == everything


def test_one_run_has_what_its_row_has(client: Client) -> None:
    row = queries.run(client, "vision", "r-2")
    assert row is not None
    assert (row.state, row.exit_code, row.user, row.last_step) == ("crashed", 137, "grace", 49)
    assert row.started_at.tzinfo is not None
    assert queries.run(client, "vision", "r-9") is None


def test_last_values_are_those_of_the_view(client: Client) -> None:
    keys = [("vision", "r-1"), ("vision", "r-2")]
    metrics = queries.usual_metrics(client, keys, 3)
    assert metrics[0] == "train/accuracy"
    values = queries.last_values(client, keys, metrics)
    wanted = client.query(
        "SELECT run_id, metric, last FROM runtide.metric_summary WHERE project = 'vision' AND rank = -1"
    ).result_rows
    for run_id, metric, last in wanted:
        if metric in metrics:
            assert values["vision", run_id][metric] == pytest.approx(last, rel=1e-12)
    assert queries.last_values(client, [], metrics) == {}


def test_the_log_tail_is_the_end_of_the_log(client: Client) -> None:
    lines = queries.log_tail(client, "vision", "r-1", limit=10)
    wanted = client.query(
        "SELECT line FROM runtide.logs WHERE project = 'vision' AND run_id = 'r-1' ORDER BY time DESC LIMIT 10"
    ).result_columns[0]
    assert [row.line for row in reversed(lines)] == list(wanted)
    warned = queries.log_tail(client, "vision", "r-1", text="USERWARNING")
    assert len(warned) == 400 // 37
    assert {row.stream for row in warned} == {"stderr"}
    assert {row.rank for row in queries.log_tail(client, "vision", "r-1", ranks=[1])} == {1}
    assert len(queries.log_tail(client, "vision", "r-1", consoles=["stderr"])) == 400 // 37


def test_streams_tell_what_is_stored_and_derived(client: Client) -> None:
    found = queries.streams(client, "vision", "r-1")
    assert [(row.role, row.rank) for row in found] == [("rank", 0), ("rank", 1), ("agent", -1)]
    assert all(row.gaps == 0 and not row.holes and row.lost_records == 0 for row in found)
    client.command(
        "INSERT INTO runtide.events SELECT 'vision', 'r-1', 'gap', now64(6), 0, 'node-1',"
        ' \'{"reason":"spool_full","records":"7"}\', 1, \'r-1-0\', 5, 10, 1, now64(3), 0, NULL'
    )
    assert queries.streams(client, "vision", "r-1")[0].lost_records == 7


@pytest.mark.parametrize(("project", "run_id"), [("vision", "r-1"), ("audio", "r-3")])
def test_resources_keep_minimum_and_maximum(client: Client, project: str, run_id: str) -> None:
    table = queries.resources(client, project, run_id, buckets=100).to_pylist()
    cpu = [row for row in table if row["device"] == "" and row["name"] == "cpu_percent"]
    ((low, high),) = client.query(
        "SELECT min(value), max(value) FROM runtide.resources WHERE project = {p:String} AND run_id = {r:String}"
        " AND device = '' AND name = 'cpu_percent'",
        parameters={"p": project, "r": run_id},
    ).result_rows
    assert 0 < len(cpu) <= 102
    assert (min(row["min"] for row in cpu), max(row["max"] for row in cpu)) == (low, high)
    assert all(row["min"] <= row["mean"] <= row["max"] for row in cpu)


def test_the_content_version_changes_with_what_is_stored(client: Client) -> None:
    before = queries.content_version(client, "vision", "r-2")
    assert queries.content_version(client, "vision", "r-2") == before
    client.command(
        "INSERT INTO runtide.ledger SELECT * REPLACE (revision + 1 AS revision) FROM runtide.ledger FINAL"
        " WHERE project = 'vision' AND run_id = 'r-2'"
    )
    assert queries.content_version(client, "vision", "r-2") != before
