"""docs/sql.md: it names every public view, and each of its questions is answered with rows over the sample data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import runtide
from clickhouse_connect.driver.client import Client
from runtide.processor.rebuild import rebuild
from runtide.testing import sample_data
from runtide.testing.embedded import EmbeddedClickHouse
from runtide.warehouse.client import ClickHouseSettings, connect

PAGE = (Path(__file__).parents[2] / "docs" / "sql.md").read_text()
QUESTIONS = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
SAID = {
    "environment": {"json": json.dumps({"python": "3.12.1", "packages": {"numpy": "2.1.0"}})},
    "fingerprint": {"code": "c0de", "config": "c0f1"},
    "metric_defined": {"name": "val/accuracy", "goal": "max"},
}
SHOWN = {
    "confusion_matrix": {"labels": ["cat", "dog"], "matrix": [[5, 1], [2, 8]]},
    "roc": {
        "class": "cat",
        "positives": 2,
        "negatives": 2,
        "true_positives": [1, 2],
        "false_positives": [0, 2],
        "thresholds": [0.9, 0.1],
    },
}


def runs() -> tuple[sample_data.SampleRun, ...]:
    """The sample runs with configurations that differ."""
    return tuple(
        replace(run, config={"lr": 0.0003 * (1 + place % 2), "model.depth": 12, "seed": place})
        for place, run in enumerate(sample_data.RUNS)
    )


@pytest.fixture(scope="module")
def reader(client: Client, embedded_clickhouse: EmbeddedClickHouse) -> Iterator[Client]:
    """The user that only reads, over the sample data and what it lacks."""
    sample_data.fill(client, runs())
    rebuild(client, force=True)  # made-up rows do not lie end to end
    columns = ["project", "run_id", "kind", "json", "attempt", "stream", "offset"]
    for place, run in enumerate(("r-51d0aa", "r-40be13")):
        said = [
            ["vision", run, kind, json.dumps(body), 1, run, at + 10 * place]
            for at, (kind, body) in enumerate(SAID.items())
        ]
        client.insert("runtide.events", said, column_names=columns)
        shown = [
            ["vision", run, kind, json.dumps(body), 1, run, at + 10 * place, kind]
            for at, (kind, body) in enumerate(SHOWN.items())
        ]
        client.insert("runtide.figures", shown, column_names=[*columns, "name"])
    made = connect(ClickHouseSettings(port=embedded_clickhouse.port))
    yield made
    made.close()


def test_there_are_twenty_questions() -> None:
    assert len(QUESTIONS) >= 20
    assert len(set(QUESTIONS)) == len(QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda text: " ".join(text.split())[:60])
def test_a_question_is_answered(reader: Client, question: str) -> None:
    assert reader.query(question).result_rows


def test_every_public_view_is_in_the_table(client: Client) -> None:
    rows = client.query("SELECT name FROM system.tables WHERE database = 'runtide' AND engine = 'View'").result_rows
    listed = re.findall(r"^\| `(\w+)` \|", PAGE.split("## From Python")[0], re.MULTILINE)
    assert set(listed) == {row[0] for row in rows} | {"dead_letters"}
    assert len(listed) == len(set(listed))


@pytest.mark.usefixtures("reader")
def test_the_python_of_the_page_runs(embedded_clickhouse: EmbeddedClickHouse, tmp_path: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    told = {"http://127.0.0.1:8123": embedded_clickhouse.url, "7c2f": "r-51d0aa", "91aa": "r-40be13"}
    for said, real in {**told, "vision-data": str(tmp_path / "out")}.items():
        assert said in block
        block = block.replace(said, real)
    names: dict[str, object] = {}
    exec(compile(block, "docs/sql.md", "exec"), names)
    assert isinstance(names["api"], runtide.Api)
    assert (tmp_path / "out" / "runs.parquet").exists()
    names["api"].close()
