"""How long it takes to find runs among many, and to take a project of many runs out as Parquet.

    python benchmarks/many_runs.py [runs]

Starts an embedded ClickHouse and writes 10,000 runs as the processor leaves them: a row with configuration and summary
for each, summaries of five metrics of two ranks, definitions of two metrics and fifty other events, ledger, and twenty
points of each metric. Each question is asked seven times over HTTP by the read-only user, as runtide.Api asks it, until
the rows are in Python; the median and the greatest are printed.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import runtide
from runtide.testing.embedded import start_embedded, stop_embedded
from runtide.warehouse.client import ClickHouseSettings, connect
from runtide.warehouse.migrate import migrate

ROUNDS = 7
METRICS = ("train/loss", "train/acc", "val/loss", "val/acc", "throughput")
STEPS = 20
MARKS = 50
"""Other events of each run, which questions about definitions and datasets have to skip."""


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as folder:
        server = start_embedded(Path(folder) / "home")
        try:
            client = connect(ClickHouseSettings(port=server.port, username="writer", password=server.password))
            migrate(client)
            fill(client, count)
            with runtide.Api(server.url, project="many") as api:
                questions(api)
                exports(api, Path(folder))
            command(server.port)
        finally:
            stop_embedded(server)
    print(f"load at the end: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


_CONFIG = """concat(
    '{"lr":', toString((run % 100 + 1) / 1000), ',"batch":', toString(32 * (run % 8 + 1)), ',"model.depth":',
    toString(run % 24), ',"model.kind":"', ['vit', 'mlp', 'conv'][run % 3 + 1], '","seed":', toString(run % 5),
    ',"optimizer":"adamw","amp":true,"data.path":"/data/train","data.workers":8,"epochs":90}'
)"""
_SUMMARY = """concat('{"val/acc":', toString(run / 10000), ',"val/loss":', toString(1 - run / 10000), '}')"""
_GOALS = """['{"name":"val/acc","goal":"max"}', '{"name":"val/loss","goal":"min"}'][m + 1]"""
_LEDGER = "project, run_id, stream, role, rank, host, attempt, mark, records, points, revision"
_EVENTS = "project, run_id, kind, json, attempt, stream, offset, time, received_at"


def fill(client: Any, count: int) -> None:
    """Write the runs."""
    run, metric = "format('r-{}', leftPad(toString(run), 6, '0'))", f"{list(METRICS)}[m + 1]"
    began = "now64(6) - toIntervalMinute(run)"
    runs = f"(SELECT toUInt64(number) AS run FROM numbers({count})) AS runs"
    value = "sin(run * 0.37 + m) + rank / 100"
    for statement in (
        f"""
        INSERT INTO runtide.run_rows SELECT
            'many', {run}, concat('sweep-', toString(run % 20)), {run}, '', 'train',
            if(run % 50 = 0, 'crashed', 'finished'), '', 'trainer', 'node-1', 2, 1, {began},
            {began} + toIntervalSecond(60 + run % 600), {began} + toIntervalSecond(60), 0,
            {_CONFIG}, ['sweep'], '', '4f1c2d9e77aa', {_SUMMARY}, {STEPS - 1}, 1
        FROM {runs}
        """,
        f"""
        INSERT INTO runtide.metric_summary_rows SELECT
            'many', {run}, {metric}, rank, {STEPS}, 0, {STEPS} * ({value}), {value} - 1, 3, {value} + 1, 17, {value},
            {STEPS - 1}, now64(6), 1
        FROM {runs} CROSS JOIN (SELECT number AS m FROM numbers({len(METRICS)})) AS ms
        CROSS JOIN (SELECT toInt32(number) AS rank FROM numbers(2)) AS ranks
        """,
        f"""
        INSERT INTO runtide.points SELECT
            'many', {run}, {metric}, step, 0, {began} + toIntervalSecond(step), sin(run * 0.37 + m + step), 1,
            concat({run}, '-0'), step * 100 + m, 20, 1, now64(3), 0
        FROM {runs} CROSS JOIN (SELECT number AS m FROM numbers({len(METRICS)})) AS ms
        CROSS JOIN (SELECT toInt64(number) AS step FROM numbers({STEPS})) AS steps
        """,
        f"""
        INSERT INTO runtide.ledger ({_LEDGER}) SELECT
            'many', {run}, concat({run}, '-0'), 'rank', 0, 'node-1', 1, 2000, {STEPS}, {STEPS * len(METRICS)}, 1
        FROM {runs}
        """,
        f"""
        INSERT INTO runtide.events ({_EVENTS}) SELECT
            'many', {run}, 'metric_defined', {_GOALS}, 1, concat({run}, '-0'), m, now64(6), now64(3)
        FROM {runs} CROSS JOIN (SELECT number AS m FROM numbers(2)) AS ms
        """,
        f"""
        INSERT INTO runtide.events ({_EVENTS}) SELECT
            'many', {run}, 'mark', '{{"name":"epoch"}}', 1, concat({run}, '-0'), 100 + m, now64(6), now64(3)
        FROM {runs} CROSS JOIN (SELECT number AS m FROM numbers({MARKS})) AS ms
        """,
    ):
        client.command(statement)


def questions(api: runtide.Api) -> None:
    """Lists, filters and orders."""
    asked: dict[str, Callable[[], Any]] = {
        "the newest 100 runs": lambda: api.runs(limit=100),
        "all runs": api.runs,
        "filter by config, newest 100": lambda: api.runs("config.lr > 0.05 AND config.model.kind = 'vit'", limit=100),
        "best 100 by a metric's greatest value": lambda: api.runs(None, "max('val/acc') DESC", 100),
        "best 100 as define_metric says": lambda: api.runs(None, "best('val/acc') DESC", 100),
        "filter by config, sort by best metric, first 100": lambda: api.runs(
            "config.lr > 0.05 AND config.model.kind = 'vit' AND state = 'finished'", "best('val/acc') DESC", 100
        ),
        "the same, all that match": lambda: api.runs(
            "config.lr > 0.05 AND config.model.kind = 'vit' AND state = 'finished'", "best('val/acc') DESC"
        ),
        "leaderboard, first 50": lambda: api.leaderboard("val/acc", limit=50),
        "leaderboard of groups": lambda: api.leaderboard("val/acc", group=["model.kind", "batch"]),
        "importance of each key": lambda: api.importance("val/acc"),
        "Pareto set of two metrics and time": lambda: api.pareto(
            {"val/acc": "max", "val/loss": "min", "duration_s": "min"}
        ),
    }
    for name, ask in asked.items():
        times, found = [], None
        for _ in range(ROUNDS):
            began = time.perf_counter()
            found = ask()
            times.append((time.perf_counter() - began) * 1000)
        assert found is not None
        print(
            f"{name:50} {len(found):6} rows  median {statistics.median(times):6.0f} ms  greatest {max(times):6.0f} ms"
        )


def exports(api: runtide.Api, folder: Path) -> None:
    """Summaries, then everything."""
    for name, views in (("runs and summaries", ["runs", "metric_summary"]), ("every view", None)):
        times, found = [], []
        for _ in range(3):
            began = time.perf_counter()
            found = api.export(folder / "out", views)
            times.append(time.perf_counter() - began)
        rows, size = sum(one.rows for one in found), sum(one.bytes for one in found)
        print(f"export of {name}: {rows:,} rows, {size / 1e6:.1f} MB, median {statistics.median(times):.2f} s of 3")


def command(port: int) -> None:
    """The command line, start of Python included."""
    times = []
    for _ in range(3):
        began = time.perf_counter()
        command = [
            sys.executable,
            "-m",
            "runtide.cli",
            "runs",
            "--project",
            "many",
            "--clickhouse",
            f"127.0.0.1:{port}",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    print(f"runtide runs, start of Python included: median {statistics.median(times):.2f} s of 3")


if __name__ == "__main__":
    main()
