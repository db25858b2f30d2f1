"""Runs as they would be stored, written by SQL: for tests, screenshots and benchmarks of what reads the store.

The rows of points, samples, log lines, ledger and runs are written; for the rest call runtide.processor.rebuild, with
force=True since they do not lie end to end.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

_BEYOND = 2**62
"""Version of the rows of runs: beyond what the processor gives, which knows no events of these runs."""


@dataclass(frozen=True)
class SampleRun:
    """One run to write."""

    run_id: str
    name: str
    project: str = "vision"
    experiment: str = "digits"
    state: str = "finished"
    reason: str = ""
    user: str = "trainer"
    world_size: int = 4
    steps: int = 2000
    started_s_ago: int = 3600
    lasted_s: int = 1800
    exit_code: int | None = 0
    seed: int = 1
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=lambda: {"lr": 0.0003, "batch": 256, "model.depth": 12})


RUNS = (
    SampleRun("r-9f2c61", "vit-base", state="running", reason="", started_s_ago=2400, lasted_s=2400, exit_code=None,
              world_size=8, steps=6000, seed=3, tags=["baseline"]),
    SampleRun("r-77ab02", "vit-base-lr3e-3", state="crashed", reason="rank 2 was killed by SIGKILL", exit_code=137,
              seed=9, started_s_ago=9000, lasted_s=700, steps=900, user="grace"),
    SampleRun("r-51d0aa", "vit-small", seed=5, started_s_ago=40000, lasted_s=5200, tags=["baseline", "small"]),
    SampleRun("r-40be13", "convnext-t", seed=6, started_s_ago=90000, lasted_s=7300, user="alan", world_size=2),
    SampleRun("r-3310cd", "convnext-t-aug", state="failed", reason="exit code 1", exit_code=1, seed=7, user="alan",
              started_s_ago=172900, lasted_s=95, steps=120),
    SampleRun("r-20ee71", "mlp", seed=8, started_s_ago=260000, lasted_s=610, world_size=1, user="grace"),
)  # fmt: skip

_METRICS = (
    ("train/loss", "2.3 * exp(-step / {steps} * 4) + 0.04 * randNormal(0, 1, step, rank, {seed}) + 0.01 * rank"),
    ("train/accuracy", "0.975 - exp(-step / {steps} * 5) * 0.88 + 0.008 * randNormal(0, 1, step, rank, {seed}, 2)"),
    ("train/grad_norm", "if(step % 977 = 976, nan, exp(randNormal(0, 0.3, step, rank, {seed}, 3)) * 2)"),
    ("train/lr", "3e-4 * least(step / 200, 1) * (1 + cos(pi() * step / {steps})) / 2"),
    ("val/loss", "2.2 * exp(-step / {steps} * 3.4) + 0.12 + 0.02 * randNormal(0, 1, step, {seed}, 4)"),
    ("val/accuracy", "0.96 - exp(-step / {steps} * 4.2) * 0.85 + 0.004 * randNormal(0, 1, step, {seed}, 5)"),
)
_READINGS = (
    ("", "cpu_percent", "55 + 12 * sin(t / 60) + randNormal(0, 3, t)"),
    ("", "memory_bytes", "41e9 + t * 2e5"),
    ("gpu0", "utilisation_percent", "least(100, 94 + randNormal(0, 3, t, 1))"),
    ("gpu1", "utilisation_percent", "least(100, 91 + randNormal(0, 4, t, 2))"),
    ("gpu0", "memory_bytes", "61e9 + 1e8 * sin(t)"),
    ("gpu1", "memory_bytes", "60e9 + 1e8 * cos(t)"),
    ("gpu0", "power_watts", "610 + randNormal(0, 25, t, 3)"),
    ("gpu1", "power_watts", "590 + randNormal(0, 25, t, 4)"),
    ("disk", "read_bytes_per_second", "3e8 * abs(sin(t / 40)) + 1e6"),
    ("net", "sent_bytes_per_second", "8e8 + 5e7 * sin(t / 30)"),
)


def fill(client: Any, runs: tuple[SampleRun, ...] = RUNS) -> None:
    """Write the runs."""
    for run in runs:
        _points(client, run)
        _samples(client, run)
        _lines(client, run)
        _ledger(client, run)
        _run(client, run)


def long_series(client: Any, project: str, run_id: str, metric: str, steps: int) -> None:
    """One metric of one rank with a one-step spike of 100 in its middle, written in blocks of a million."""
    for start in range(0, steps, 1_000_000):
        _write(
            client,
            "INSERT INTO runtide.points SELECT $project, $run, $metric, toInt64(number), 0,"
            f" if(number = {steps // 2}, 100, exp(-number / {steps} * 3) + (number % 1000) / 9000),"
            f" now64(6) - toIntervalSecond(intDiv({steps} - number, 1000)), 1, 'stream-long', number * 30, 30, 1,"
            f" now64(3), 0 FROM numbers({start}, {min(1_000_000, steps - start)})",
            project=project,
            run=run_id,
            metric=metric,
        )


def _write(client: Any, sql: str, **parameters: Any) -> None:
    """Run a statement whose $names are bound by the server."""

    def bound(match: re.Match[str]) -> str:
        name = match.group(1)
        return f"{{{name}:{'Array(String)' if isinstance(parameters[name], list) else 'String'}}}"

    client.command(re.sub(r"\$(\w+)", bound, sql), parameters=parameters)


def _points(client: Any, run: SampleRun) -> None:
    for position, (metric, value) in enumerate(_METRICS):
        every, ranks = (50, 1) if metric.startswith("val/") else (1, run.world_size)
        random = value.format(steps=run.steps, seed=run.seed)
        _write(
            client,
            f"INSERT INTO runtide.points SELECT $project, $run, $metric, step, rank, {_seeded(random)},"
            f" now64(6) - toIntervalMillisecond({run.started_s_ago * 1000} - step * {run.lasted_s * 1000 / run.steps}),"
            f" 1, concat($run, '-', toString(rank)), step * 1000 + {position}, 1, 1, now64(3), 0 FROM"
            f" (SELECT toInt64(intDiv(number, {ranks}) * {every}) AS step, toInt32(number % {ranks}) AS rank"
            f" FROM numbers({run.steps // every * ranks}))",
            project=run.project,
            run=run.run_id,
            metric=metric,
        )


def _seeded(expression: str) -> str:
    """randNormal(mean, deviation, ...) as a function of its further arguments: the same data at every call."""
    out = expression
    while "randNormal(" in out:
        start = out.index("randNormal(")
        end = out.index(")", start)
        mean, deviation, *seeds = (part.strip() for part in out[start + 11 : end].split(","))
        # Three hashes, summed and scaled: near enough to a normal distribution for a picture.
        hashes = " + ".join(f"cityHash64({', '.join(seeds)}, {n}) % 1000" for n in (11, 12, 13))
        out = out[:start] + f"({mean} + {deviation} * (({hashes}) / 500 - 3))" + out[end + 1 :]
    return out


def _samples(client: Any, run: SampleRun) -> None:
    for position, (device, name, value) in enumerate(_READINGS):
        _write(
            client,
            f"INSERT INTO runtide.samples SELECT $project, $run, 'node-1', $device, $name, -1,"
            f" now64(6) - toIntervalSecond({run.started_s_ago} - t), {_seeded(value)}, 1, concat($run, '-agent'),"
            f" t * 100 + {position}, 1, 1, now64(3), 0 FROM (SELECT number * 5 AS t FROM numbers({run.lasted_s // 5}))",
            project=run.project,
            run=run.run_id,
            device=device,
            name=name,
        )


def _lines(client: Any, run: SampleRun) -> None:
    _write(
        client,
        "INSERT INTO runtide.log_lines SELECT $project, $run, toInt32(number % 2),"
        f" now64(6) - toIntervalSecond({run.started_s_ago} - number * {run.lasted_s} / 400),"
        " if(number % 37 = 36, 'stderr', 'stdout'),"
        " if(number % 37 = 36, 'UserWarning: the learning rate scheduler was stepped before the optimizer',"
        " format('epoch {} batch {}: loss {} ({} ms)', toString(intDiv(number, 40)), toString(number % 40),"
        f" toString(round(2.3 * exp(-number / 100) + 0.1, 4)), toString(180 + number % 17))), 1,"
        " concat($run, '-', toString(number % 2)), number * 1000 + 500, 80, 1, now64(3), 0 FROM numbers(400)",
        project=run.project,
        run=run.run_id,
    )


def _ledger(client: Any, run: SampleRun) -> None:
    closed = "NULL" if run.state == "running" else f"now64(6) - toIntervalSecond({run.started_s_ago - run.lasted_s})"
    _write(
        client,
        "INSERT INTO runtide.ledger SELECT $project, $run, if(number = 0, concat($run, '-agent'),"
        " concat($run, '-', toString(number - 1))), if(number = 0, 'agent', 'rank'), toInt32(number) - 1, 'node-1', 1,"
        f" {run.steps * 61}, [], {run.steps} + 40, {run.steps} * 4, 0, 0,"
        f" now64(6) - toIntervalSecond({run.started_s_ago}), {closed}, {run.steps - 1}, now64(6), now64(3), 1, 0,"
        f" 0, 0, 0, now64(3) FROM numbers({run.world_size + 1})",
        project=run.project,
        run=run.run_id,
    )
    _write(
        client,
        "INSERT INTO runtide.coverage SELECT project, run_id, stream, mark, 0, revision FROM runtide.ledger FINAL"
        " WHERE project = $project AND run_id = $run",
        project=run.project,
        run=run.run_id,
    )


def _run(client: Any, run: SampleRun) -> None:
    end = run.started_s_ago - run.lasted_s
    finished = "NULL" if run.state == "running" else f"now64(6) - toIntervalSecond({end})"
    code = "NULL" if run.exit_code is None else str(run.exit_code)
    _write(
        client,
        "INSERT INTO runtide.run_rows SELECT $project, $run, $experiment, $name, '', 'train', $state,"
        f" $reason, $user, 'node-1', {run.world_size}, 1, now64(6) - toIntervalSecond({run.started_s_ago}),"
        f" {finished}, now64(6) - toIntervalSecond({end}), {code}, $config, $tags, '',"
        f" '4f1c2d9e77aa', $summary, {run.steps - 1}, {_BEYOND}",
        project=run.project,
        run=run.run_id,
        experiment=run.experiment,
        name=run.name,
        state=run.state,
        reason=run.reason,
        user=run.user,
        config=json.dumps(run.config),
        tags=run.tags,
        summary=json.dumps({"best/accuracy": 0.9731, "epochs": 12}),
    )
