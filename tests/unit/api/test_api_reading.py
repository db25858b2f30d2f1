"""What runtide.Api reads, on the real engine, as the user that only reads."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import pytest
import runtide
from clickhouse_connect.driver.client import Client
from runtide.api import Api, UnknownRun
from runtide.api.asking import QueryFailed
from runtide.processor.rebuild import rebuild
from runtide.testing import sample_data
from runtide.testing.embedded import EmbeddedClickHouse
from runtide.wire.errors import BadInput

LOSS = "train/loss"


def made(run_id: str, **more: object) -> sample_data.SampleRun:
    config = {"lr": 0.1, "model.kind": "vit", "model.depth": 12, "amp": True, "seed": 1}
    config |= dict(more.pop("config", {}))  # type: ignore[call-overload]
    usual = {"steps": 100, "world_size": 2, "lasted_s": 100, "config": config}
    return sample_data.SampleRun(run_id, run_id, **{**usual, **more})  # type: ignore[arg-type]


RUNS = (
    made("a1"),
    made("a2", seed=2, config={"lr": 0.01, "seed": 2}),
    made("b1", seed=3, config={"lr": 0.001, "model.kind": "mlp", "amp": False}, state="crashed", exit_code=9),
    made("b2", seed=4, steps=50, config={"lr": 0.5, "model.kind": "mlp", "note": "it's"}, experiment="other"),
    made("x1", project="audio", steps=10),
)


@pytest.fixture(scope="module")
def client(client: Client) -> Client:
    sample_data.fill(client, RUNS)
    rebuild(client, force=True)  # made-up rows do not lie end to end
    return client


@pytest.fixture(scope="module")
def api(client: Client, embedded_clickhouse: EmbeddedClickHouse) -> Iterator[Api]:
    with runtide.Api(embedded_clickhouse.url, project="vision") as made_api:
        yield made_api


def ids(api: Api, text: str | None = None, order: str | None = "run_id", **more: object) -> list[str]:
    return [row["run_id"] for row in api.runs(text, order, parameters=more or None)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, "a1 a2 b1 b2"),
        ("config.lr > 0.01", "a1 b2"),
        ("config.lr >= 0.01 AND NOT state = 'crashed'", "a1 a2 b2"),
        ("0.01 > config.lr", "b1"),
        ("config.lr BETWEEN 0.01 AND 0.1", "a1 a2"),
        ("config.lr IN (0.1, 0.5)", "a1 b2"),
        ("config.model.kind = 'mlp'", "b1 b2"),
        ("'mlp' != config.model.kind", "a1 a2"),
        ("config.`model.kind` LIKE 'v%'", "a1 a2"),
        ("config.model.kind NOT IN ('vit')", "b1 b2"),
        ("startsWith(config.model.kind, 'm')", "b1 b2"),
        ("config.amp = false", "b1"),
        ("config.amp", "a1 a2 b2"),
        ("config.note IS NOT NULL", "b2"),
        ("config.note = 'it\\'s' OR config.note = 'it''s'", "b2"),
        ("config.nothing > 1", ""),
        ("has(tags, 'x') OR experiment = 'other'", "b2"),
        ("last('train/loss') < 100 AND count() OVER () > 3", None),
        ("max('train/accuracy') > 0 AND min('train/loss') < 5", "a1 a2 b1 b2"),
        ("last('no such') > 0", ""),
        ("summary.epochs = 12", "a1 a2 b1 b2"),
    ],
)
def test_filters_are_sql(api: Api, text: str | None, found: str | None) -> None:
    if found is None:
        with pytest.raises(QueryFailed):
            ids(api, text)
    else:
        assert ids(api, text) == found.split()


def test_parameters_are_bound_and_decide_the_type(api: Api) -> None:
    assert ids(api, "config.model.kind = {kind:String}", kind="mlp") == ["b1", "b2"]
    assert ids(api, "config.lr = {lr:Float64}", lr=0.5) == ["b2"]
    assert ids(api, "name = {name:String}", name="x' OR 1 --") == []


@pytest.mark.parametrize(
    "text",
    [
        "1) OR (1",
        "1; DROP TABLE runtide.runs",
        "1 -- rest",
        "1 /* rest */",
        "run_id IN (SELECT run_id FROM runtide.runs)",
        "run_id IN (SELECT 'a1')",
        "1 UNION ALL 1",
        "'open",
        "config. > 1",
        "",
        "(1",
        "1 LIMIT 1",
    ],
)
def test_what_is_not_one_expression_is_refused_before_it_is_asked(api: Api, text: str) -> None:
    if text == "":
        assert ids(api, text) == ids(api)
        return
    with pytest.raises(BadInput):
        ids(api, text)
    with pytest.raises(BadInput):
        ids(api, None, text)


def test_orders(api: Api) -> None:
    assert ids(api, None, "config.lr DESC") == ["b2", "a1", "a2", "b1"]
    assert ids(api, None, "config.model.kind DESC, config.lr") == ["a2", "a1", "b1", "b2"]
    by_loss = api.runs(order="min('train/loss')").rows()
    values = [row["min(train/loss)"] for row in by_loss]
    assert values == sorted(values)
    summary = api.sql(
        "SELECT run_id, min FROM metric_summary WHERE project = 'vision' AND metric = 'train/loss' AND rank = -1"
    )
    assert {row["run_id"]: row["min(train/loss)"] for row in by_loss} == {r["run_id"]: r["min"] for r in summary}


def test_runs_have_their_columns_and_asked_for_values(api: Api) -> None:
    found = api.runs("run_id = 'a1'", metrics=[LOSS])
    (row,) = found
    assert row["config"] == RUNS[0].config
    assert math.isfinite(row["last(train/loss)"])
    assert found.pandas().shape == (1, len(found.columns))
    assert found.arrow().column("run_id").to_pylist() == ["a1"]
    assert len(api.runs(limit=2)) == 2


def test_one_project_or_all(client: Client, embedded_clickhouse: EmbeddedClickHouse, api: Api) -> None:
    with Api(embedded_clickhouse.url) as everywhere:
        assert len(everywhere.runs()) == 5
        assert everywhere.run("audio/x1").project == "audio"
    with pytest.raises(UnknownRun):
        api.run("x1")


def test_a_run(api: Api) -> None:
    run = api.run("b2")
    assert (run.state, run.name, run.project) == ("finished", "b2", "vision")
    assert run.config == {"lr": 0.5, "amp": True, "note": "it's", "seed": 1, "model": {"kind": "mlp", "depth": 12}}
    assert run.summary["epochs"] == 12
    assert {row["metric"] for row in run.metrics()} >= {LOSS, "val/accuracy"}
    assert len(run.logs) == 400
    assert len(run.files) == len(run.figures) == 0
    assert run.environment == {}
    assert run.reload().info["run_id"] == "b2"
    with pytest.raises(BadInput, match="no such file"):
        run.read_file("train.py")


def test_exact_history_has_every_value(api: Api) -> None:
    run = api.run("a1")
    found = run.history([LOSS]).rows()
    assert [(row["step"], row["rank"]) for row in found] == [(step, rank) for step in range(100) for rank in range(2)]
    total = api.sql("SELECT sum(value) AS s FROM metrics WHERE run_id = 'a1' AND metric = 'train/loss'").rows()[0]["s"]
    assert math.isclose(sum(row["value"] for row in found), total)
    times = [row["time"] for row in run.history(LOSS, x="time")]
    assert times == sorted(times)
    assert len(run.history()) == 100 * 2 * 4 + 2 * 2


def test_history_over_another_metric(api: Api) -> None:
    run = api.run("a1")
    lr = {(row["step"], row["rank"]): row["value"] for row in run.history("train/lr")}
    found = run.history(LOSS, x="train/lr").rows()
    assert len(found) == 200
    assert all(row["x"] == lr[row["step"], row["rank"]] for row in found)
    parts = run.history(LOSS, x="train/lr", buckets=7).rows()
    assert 1 < len(parts) <= 7
    assert sum(row["count"] for row in parts) == 200
    assert min(row["min"] for row in parts) == min(row["value"] for row in found)
    assert max(row["max"] for row in parts) == max(row["value"] for row in found)


def test_buckets_keep_minimum_and_maximum(api: Api) -> None:
    run = api.run("a1")
    exact = [row["value"] for row in run.history(LOSS)]
    found = run.history(LOSS, buckets=10).rows()
    assert len(found) <= 11
    assert (min(row["min"] for row in found), max(row["max"] for row in found)) == (min(exact), max(exact))
    assert sum(row["count"] for row in found) == 200
    with pytest.raises(BadInput):
        run.history(LOSS, buckets=10, exact=True)


def test_sql_takes_parameters_and_says_what_clickhouse_says(api: Api) -> None:
    found = api.sql("SELECT count() AS n FROM runs WHERE project = {project:String}", {"project": "audio"})
    assert found.rows() == [{"n": 1}]
    with pytest.raises(QueryFailed, match="no_such"):
        api.sql("SELECT * FROM no_such")
    with pytest.raises(QueryFailed):
        api.sql("INSERT INTO runtide.run_rows SELECT * FROM runtide.run_rows")


def test_results_are_taken_by_who_takes_arrow(api: Api) -> None:
    import pyarrow as pa

    found = api.sql("SELECT number, toString(number) AS text FROM numbers(3)")
    assert pa.table(found).to_pydict() == {"number": [0, 1, 2], "text": ["0", "1", "2"]}
    assert json.dumps(list(found)) == json.dumps(found.rows())


def test_values_are_those_of_the_view_run_metrics(client: Client, api: Api) -> None:
    said = [
        (run, metric, goal, summary)
        for run, goal, summary in (("a1", "min", "best"), ("a2", "max", "mean"), ("b1", "max", "max"))
        for metric in (LOSS, "train/grad_norm")
    ]
    client.insert(
        "runtide.events",
        [
            [
                "vision",
                run,
                "metric_defined",
                json.dumps({"name": metric, "goal": goal, "summary": summary}),
                1,
                run,
                at,
            ]
            for at, (run, metric, goal, summary) in enumerate(said)
        ],
        column_names=["project", "run_id", "kind", "json", "attempt", "stream", "offset"],
    )
    order = ", ".join(
        f"{function}('{metric}')"
        for metric in (LOSS, "train/grad_norm")
        for function in ("value", "best", "last", "min", "max", "mean")
    )
    found = {row["run_id"]: row for row in api.runs(order=order)}
    of_view = api.sql("SELECT * FROM run_metrics WHERE project = 'vision'").rows()
    compared = 0
    for row in of_view:
        for function in ("value", "best", "last", "min", "max", "mean"):
            name = f"{function}({row['metric']})"
            if name in found[row["run_id"]]:
                assert found[row["run_id"]][name] == pytest.approx(row[function], nan_ok=True), (row["run_id"], name)
                compared += 1
    assert compared == 4 * 2 * 6
    assert found["b2"]["best(train/loss)"] is None
    assert found["a2"]["value(train/loss)"] == pytest.approx(found["a2"]["mean(train/loss)"])
