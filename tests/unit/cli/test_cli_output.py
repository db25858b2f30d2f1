"""What commands print, and what they say where nothing runs."""

import asyncio
import json
import math
import os
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from prometheus_client import CollectorRegistry
from runtide.cli import main
from runtide.cli.home import Home, PartState, Ports, UpState
from runtide.cli.ports import free_port
from runtide.cli.reading import print_run
from runtide.cli.tables import cell, print_json, print_table
from runtide.cli.tail import line_of, values_of
from runtide.cli.up import up_arguments
from runtide.gateway.pages import Pages


def test_cells() -> None:
    assert cell(None) == ""
    assert cell(float("nan")) == "nan"
    assert cell(0.123456789) == "0.123457"
    assert cell(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2026-01-02 03:04:05"
    assert cell([(1, 2)]) == "1, 2"


def test_json_has_no_nan_and_no_bare_types(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": float("inf"), "t": datetime(2026, 1, 2, tzinfo=UTC), "b": b"\x01", "l": [(1, None)]})
    assert json.loads(capsys.readouterr().out) == {
        "a": "inf",
        "t": "2026-01-02T00:00:00+00:00",
        "b": "01",
        "l": [[1, None]],
    }


def test_a_table_in_a_pipe_is_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([{f"column_{n}": "x" * 30 for n in range(8)}])
    assert any(line.count("x" * 30) == 8 for line in capsys.readouterr().out.splitlines())


def test_tail_lines() -> None:
    row = {"time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "rank": 3, "line": "epoch 1"}
    assert line_of(row) == "03:04:05 [3] epoch 1"
    values = [{"metric": "loss", "last": 0.5, "last_step": 7}, {"metric": "old", "last": 1.0, "last_step": 3}]
    assert values_of(values, 7) == "step 7  loss=0.5"


def test_a_run_shows_its_own_summary_and_no_metric_twice(capsys: pytest.CaptureFixture[str]) -> None:
    summary = {"verdict": "keep", "loss": 0.25, "acc": 0.75, "norm": "nan"}
    metrics = [{"metric": name, "last": last} for name, last in (("loss", 0.5), ("acc", 0.75), ("norm", math.nan))]
    run = {"run_id": "r", "config": {}, "summary": summary}
    rest: dict[str, list[object]] = {
        name: [] for name in ("attempts", "environments", "files", "streams", "datasets", "kpis")
    }
    print_run({"run": run, "metrics": metrics, **rest})
    said = capsys.readouterr().out
    own = said.partition("summary")[2].partition("metrics, all")[0]
    assert '"keep"' in own
    assert "0.25" in own, "its own entry, over the metric of that name"
    assert "acc" not in own
    assert "norm" not in own


def test_status_and_down_where_nothing_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--home", str(tmp_path), "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["up"] is False
    assert found["lag"] == {"unshipped_bytes": 0}
    assert main(["status", "--home", str(tmp_path)]) == 3
    said = capsys.readouterr().out
    assert "nothing runs" in said
    assert "`runtide up` starts it" in said
    assert said.count("\n") == 1, "no tables of nothing"
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "ingest.log").write_text("x" * 2**20)
    assert main(["status", "--home", str(tmp_path)]) == 3
    assert "1.0 MiB" in capsys.readouterr().out
    assert main(["down", "--home", str(tmp_path / "none")]) == 0
    assert "no such home" in capsys.readouterr().out


def test_status_says_what_the_gateway_is_not_ready_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    why = "nothing is stored: dead letters cannot be kept"
    running = psutil.Process().create_time()

    async def status(*more: str) -> int:
        pages = Pages(CollectorRegistry(), lambda: why)
        await pages.start("127.0.0.1", 0)
        ports = Ports(free_port(), pages.port, free_port(), None)
        part = PartState(os.getpid(), running, ready=True)
        Home(tmp_path).write(UpState(os.getpid(), running, "0", ports, {"ingest": part}))
        code = await asyncio.to_thread(main, ["status", "--home", str(tmp_path), *more])
        await pages.stop()
        return code

    assert asyncio.run(status()) == 3
    assert f"not ready: {why}" in capsys.readouterr().out
    assert asyncio.run(status("--json")) == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["ready"], found["trouble"]) == (False, why)
    why = ""
    assert asyncio.run(status("--json")) == 0
    assert json.loads(capsys.readouterr().out)["trouble"] == ""


def test_status_says_that_a_canary_which_should_beat_is_not_heard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    running = psutil.Process().create_time()
    for canary, code, words in ((None, 0, ""), (free_port(), 3, "nothing is known of it yet")):
        ports = Ports(free_port(), free_port(), free_port(), None, canary=canary)
        part = PartState(os.getpid(), running, ready=True)
        Home(tmp_path).write(UpState(os.getpid(), running, "0", ports, {"canary": part}))
        assert main(["status", "--home", str(tmp_path), "--json"]) == code
        assert json.loads(capsys.readouterr().out)["canary"]["trouble"] == words


def test_up_is_started_again_with_the_same_flags(tmp_path: Path) -> None:
    plain = up_arguments(Home(tmp_path), Ports(1, 2, 3, None))
    assert plain[-1] == "--no-dashboard"
    assert "--canary" not in plain
    with_all = up_arguments(Home(tmp_path), Ports(1, 2, 3, 4, canary=5))
    assert with_all[-5:] == ["--dashboard-port", "4", "--canary-port", "5", "--canary"]


def test_reading_where_nothing_answers_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = f"127.0.0.1:{free_port()}"
    assert main(["sql", "SELECT 1", "--home", str(tmp_path), "--clickhouse", address]) == 1
    said = capsys.readouterr().err
    assert f"no ClickHouse answers at {address}" in said
    assert "runtide up" in said


def test_wrong_usage_is_not_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", "SELECT 1", "--clickhouse", "nowhere"]) == 1
    assert "--clickhouse is 'nowhere', but it must be HOST:PORT" in capsys.readouterr().err
    assert main(["nonsense"]) == 2
