"""Views of figures and metric definitions answer questions about one run from that run's rows."""

from __future__ import annotations

import re

import pytest
from runtide.warehouse.client import Client


@pytest.mark.parametrize(
    ("view", "table"),
    [
        ("confusion_matrices", "figures"),
        ("curves", "figures"),
        ("curve_areas", "figures"),
        ("histograms", "figures"),
        ("images", "figures"),
        ("metric_definitions", "events"),
        ("run_metrics", "events"),
        ("dataset_uses", "events"),
        ("calibrations", "figures"),
    ],
)
def test_a_filter_on_the_run_reaches_the_key(client: Client, view: str, table: str) -> None:
    kind = "roc" if table == "figures" else "metric_defined"
    for run in ("one", "two"):
        client.command(
            f"INSERT INTO runtide.{table} (project, run_id, stream, kind) SELECT 'p', '{run}', '{view}', '{kind}'"
        )
    question = f"EXPLAIN indexes = 1 SELECT count() FROM runtide.{view} WHERE project = 'p' AND run_id = 'one'"
    plan = "\n".join(str(row[0]) for row in client.query(question).result_rows)
    reading = plan[plan.index(f"runtide.{table}") :]
    key = reading[reading.index("PrimaryKey") :].split("Parts:")[0]
    assert re.search(r"run_id\b", key), plan
