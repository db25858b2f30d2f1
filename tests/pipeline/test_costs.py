"""Costs on a whole stack: counted by hand for readings that are known, and live for a real run."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runtide.testing.stack import Stack
from runtide.testing.waiting import until
from runtide.v1 import records_pb2 as v1
from runtide.warehouse.client import ClickHouseSettings, connect, keep_to

from tests.pipeline.sampled_runs import HOUR, ran, reading

H100, T4 = "NVIDIA H100 80GB HBM3", "Tesla T4"
FIRST = f"""
currency = "EUR"
valid_from = 2026-01-01T00:00:00Z
cpu_hour = 0.4
gpu = {{"{H100}*" = 8, "Tesla T?" = 2}}
host = {{"node-*" = 4}}
power = {{kwh = 0.2, cpu_core_watts = 5, gpu_watts = {{"*" = 70}}}}
carbon = {{g_per_kwh = 400, source = "made up for this test"}}
"""
SECOND = FIRST.replace("= 8", "= 16").replace("2026-01-01T00:00:00Z", time.strftime("%FT%TZ", time.gmtime(HOUR + 200)))
DOCS = Path(__file__).parents[2] / "docs" / "costs.md"


def busy(cores: float) -> list[v1.Reading]:
    """A host with a busy device that has a meter and an idle one that has none."""
    return [
        reading("", "cpu_percent", 50),
        reading("gpu0", "utilization_percent", 90),
        reading("gpu0", "power_watts", 600),
        reading("gpu1", "utilization_percent", 0),
        reading("process", "cpu_percent", 100 * cores),
    ]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with two price tables and the runs of the story."""
    folder = tmp_path_factory.mktemp("costs")
    stack = Stack(folder / "home")
    try:
        stack.up("--no-dashboard")
        ran(stack, "a", "node-1", 0, 600, busy(1.5), gpus=[H100, T4])
        ran(stack, "b", "node-1", 300, 900, busy(0.5), gpus=[H100, T4], user="bob", experiment="two")
        ran(stack, "unsampled", "node-2", 0, 180, [], gpus=[T4, T4], world=2)
        ran(stack, "unknown", "node-2", 0, 180, [])
        ran(stack, "one", "node-3", 30, 150, busy(0), gpus=[T4, T4], variables={"CUDA_VISIBLE_DEVICES": "1"})
        ran(stack, "mystery", "other", 0, 120, busy(0), gpus=[T4, "Mystery"])
        for run in ("a", "b", "unsampled", "unknown", "one", "mystery"):
            stack.wait_state(run, "finished")
        until(
            lambda: stack.sql("SELECT count() FROM sample_windows WHERE run_id = 'b' AND count > 0") == [(5 * 10,)],
            30,
            "all minutes of b are derived",
        )
        assert stack.sql("SELECT DISTINCT priced FROM run_costs") == [(False,)]
        for number, text in enumerate((FIRST, SECOND)):
            file = folder / f"{number}.toml"
            file.write_text(text)
            found = stack.runtide("prices", "apply", str(file))
            assert found.returncode == 0, found.stderr
        yield stack
    finally:
        stack.end()


def costs(stack: Stack, run: str) -> dict[str, Any]:
    names = "host_hours gpu_hours gpu_idle_share cpu_core_hours measured_kwh energy_kwh energy_source cost currency"
    chosen = [*names.split(), "carbon_g", "carbon_source", "sampled", "priced", "hours"]
    ((*found,),) = stack.sql(f"SELECT {', '.join(chosen)} FROM run_costs WHERE run_id = '{run}'")
    return dict(zip(chosen, found, strict=True))


def test_a_run_that_shares_its_devices_for_half_its_time(told: Stack) -> None:
    # Five minutes alone and five with another: 300 + 150 of the host's and each device's seconds, an eighth of an hour.
    measured = 0.600 * 0.125
    energy = measured + 0.070 * 0.125 + 0.005 * 1.5 / 6
    assert costs(told, "a") == {
        "hours": pytest.approx(1 / 6),
        "host_hours": pytest.approx(0.125),
        "gpu_hours": pytest.approx(0.25),
        "gpu_idle_share": pytest.approx(0.5),
        "cpu_core_hours": pytest.approx(1.5 / 6),
        "measured_kwh": pytest.approx(measured),
        "energy_kwh": pytest.approx(energy),
        "energy_source": "mixed",
        "cost": pytest.approx(0.125 * (8 + 2 + 4) + 0.25 * 0.4 + energy * 0.2),
        "currency": "EUR",
        "carbon_g": pytest.approx(energy * 400),
        "carbon_source": "made up for this test",
        "sampled": True,
        "priced": True,
    }


def test_a_later_run_has_the_rates_of_the_later_table(told: Stack) -> None:
    energy = 0.600 * 0.125 + 0.070 * 0.125 + 0.005 * 0.5 / 6
    found = costs(told, "b")
    assert found["cost"] == pytest.approx(0.125 * (16 + 2 + 4) + 0.5 / 6 * 0.4 + energy * 0.2)
    assert found["cpu_core_hours"] == pytest.approx(0.5 / 6)


def test_runs_together_have_a_shared_device_once(told: Stack) -> None:
    rows = told.sql(
        "SELECT device, sum(hours) * 3600, sum(measured_kwh) FROM costs"
        " WHERE host = 'node-1' AND device != 'process' GROUP BY device ORDER BY device"
    )
    assert [row[0] for row in rows] == ["", "gpu0", "gpu1"]
    assert [row[1] for row in rows] == pytest.approx([900, 900, 900])
    assert [row[2] for row in rows] == pytest.approx([0, 0.600 * 900 / 3600, 0])


def test_a_run_without_readings_is_told_by_duration_and_processes(told: Stack) -> None:
    found = costs(told, "unsampled")
    assert (found["sampled"], found["gpu_idle_share"], found["energy_source"]) == (False, None, "estimated")
    assert found["gpu_hours"] == pytest.approx(0.1)
    assert found["cost"] == pytest.approx(0.1 * 2 + 0.1 * 0.070 * 0.2)


def test_a_run_of_which_nothing_is_known_costs_nothing_and_says_so(told: Stack) -> None:
    found = costs(told, "unknown")
    assert (found["cost"], found["gpu_hours"], found["sampled"], found["priced"]) == (0, 0, False, False)


def test_devices_that_a_run_cannot_see_are_not_its(told: Stack) -> None:
    found = costs(told, "one")
    assert found["gpu_hours"] == pytest.approx(120 / 3600)
    assert (found["gpu_idle_share"], found["measured_kwh"]) == (1, 0)


def test_a_device_without_a_rate_makes_a_run_not_priced(told: Stack) -> None:
    found = costs(told, "mystery")
    assert found["priced"] is False
    assert found["gpu_hours"] == pytest.approx(240 / 3600)
    assert found["cost"] == pytest.approx(120 / 3600 * 2 + found["energy_kwh"] * 0.2)


@pytest.mark.parametrize(("by", "groups"), [("run", 6), ("user", 2), ("experiment", 2)])
def test_the_command_adds_up_to_the_view(told: Stack, by: str, groups: int) -> None:
    found = json.loads(told.runtide("costs", "--by", by, "--json").stdout)
    amounts: dict[str, float] = {}
    for row in found:
        amounts[row["currency"]] = amounts.get(row["currency"], 0) + row["cost"]
    assert len(found) == groups
    assert sum(amounts.values()) == pytest.approx(told.sql("SELECT sum(cost) FROM run_costs")[0][0])
    ada = [row for row in found if row.get("user") == "ada"]
    if by == "user":
        assert (ada[0]["runs"], ada[0]["not_priced"], ada[0]["not_sampled"]) == (5, 2, 2)
        # 0.25 of idle gpu1 in a, the two minutes of one, and half of mystery: of all that has readings
        assert ada[0]["gpu_idle_share"] == pytest.approx((450 + 120 + 120) / (900 + 120 + 240))
    people = told.runtide("costs", "--by", by).stdout
    assert "not priced" in people
    assert "EUR" in people


def test_tables_are_shown_as_they_were_written(told: Stack) -> None:
    latest, first = json.loads(told.runtide("prices", "show", "--json").stdout)
    assert first["gpu_hour"] == {f"{H100}*": 8, "Tesla T?": 2}
    assert latest["gpu_hour"] == {f"{H100}*": 16, "Tesla T?": 2}
    assert first["valid_from"].startswith("2026-01-01T00:00:00")


def test_who_sees_one_project_sees_its_costs_by_the_prices_of_all(told: Stack) -> None:
    client = connect(ClickHouseSettings("127.0.0.1", told.state.ports.clickhouse))
    try:
        for project, runs in (("default", 6), ("another", 0)):
            keep_to(client, project)
            found = client.query("SELECT countIf(run_id != 'real'), countIf(priced) > 0 FROM run_costs").result_rows
            assert found == [(runs, runs > 0)]
    finally:
        client.close()


def test_queries_of_the_page_are_answered(told: Stack) -> None:
    queries = re.findall(r"```sql\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(queries) >= 4
    for query in queries:
        assert told.sql(query), query


def test_a_real_run_has_its_costs_while_it_goes_on(told: Stack) -> None:
    told.job(
        """
        import pathlib, sys, time, runtide
        run = runtide.init("default", run_id="real", experiment="live")
        end = time.time() + 60
        while time.time() < end and not pathlib.Path(sys.argv[1]).exists():
            for step in range(100_000):
                pass
            run.log({"x": 1.0})
        """,
        str(told.home / "stop"),
    )
    until(
        lambda: told.sql(
            "SELECT 1 FROM run_costs AS c JOIN runs AS r USING (project, run_id)"
            " WHERE run_id = 'real' AND r.state = 'running' AND c.sampled AND c.cpu_core_hours > 0 AND c.cost > 0"
        ),
        40,
        "the run has costs while it runs",
    )
    (told.home / "stop").touch()
    told.wait_state("real", "finished")
    found = costs(told, "real")
    assert found["host_hours"] == pytest.approx(found["hours"], rel=0.2)
    assert 0 < found["cpu_core_hours"] < 4 * found["hours"]
