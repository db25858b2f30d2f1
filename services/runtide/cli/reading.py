"""What the reading commands ask for, over the public views."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from runtide.cli.store import RunKey, rows
from runtide.cli.tables import print_table
from runtide.warehouse.client import Client
from runtide.wire.canary import PROJECT as CANARY
from runtide.wire.clocks import CLOCK_TOLERANCE_US

Row = dict[str, Any]

_RUNS = """
SELECT * FROM runtide.runs
WHERE if({project:String} = '', project != {canary:String}, project = {project:String})
    AND ({state:String} = '' OR state = {state:String})
ORDER BY started_at DESC LIMIT {limit:UInt32}
"""
_SUMMARY = """
SELECT metric, last, last_step, min, min_step, max, max_step, mean, count, non_finite FROM runtide.metric_summary
WHERE project = {project:String} AND run_id = {run:String} AND rank = -1 ORDER BY metric
"""
_STREAMS = """
SELECT stream, role, rank, host, attempt, stored_offset, holes, records, points, gaps, dead, opened_at, closed_at,
    clock_ahead_s, clock_ahead_min_s, clock_ahead_max_s
FROM runtide.streams WHERE project = {project:String} AND run_id = {run:String} ORDER BY role, rank, stream
"""
_ATTEMPTS = """
SELECT attempt, launch_id, opened_at, resume_step, world_size FROM runtide.attempts
WHERE project = {project:String} AND run_id = {run:String} ORDER BY attempt
"""
_ENVIRONMENTS = """
SELECT attempt, host, python, os, gpus, cuda, image, scheduler, job_id, command, git_commit, git_branch, git_dirty,
    length(packages) AS packages, notes
FROM runtide.environments WHERE project = {project:String} AND run_id = {run:String} ORDER BY attempt
"""
_FILES = """
SELECT attempt, kind, path, size, digest, note FROM runtide.files
WHERE project = {project:String} AND run_id = {run:String} ORDER BY attempt, kind, path LIMIT 200
"""
_FINGERPRINTS = """
SELECT attempt, code, config, data, environment FROM runtide.fingerprints
WHERE project = {project:String} AND run_id = {run:String} ORDER BY attempt
"""
_DATASETS = """
SELECT name, version, role, rows, size, uri, digest FROM runtide.dataset_uses
WHERE project = {project:String} AND run_id = {run:String} ORDER BY role, name LIMIT 200
"""
_KPIS = """
SELECT name, time, value, unit, goal FROM runtide.kpis
WHERE project = {project:String} AND run_id = {run:String} ORDER BY name, time DESC LIMIT 200
"""
_OF_A_FILE = ("attempt", "kind", "path", "size", "note")
_ONE = "SELECT * FROM runtide.runs WHERE project = {project:String} AND run_id = {run:String}"


def list_runs(client: Client, project: str | None, state: str | None, limit: int) -> list[Row]:
    """The newest runs with every column of the view; the canary's only where its project is asked for."""
    found = rows(client, _RUNS, project=project or "", canary=CANARY, state=state or "", limit=limit)
    return [_unpacked(row) for row in found]


def print_runs(found: Sequence[Row]) -> None:
    """Show `list_runs` to people: what fits a line of a terminal."""
    names = ("project", "run_id", "name", "state", "attempt", "world_size", "last_step", "started_at", "duration_s")
    print_table([{name: row[name] for name in names} for row in found], empty="no runs")


def whole_run(client: Client, key: RunKey) -> Row:
    """Everything about one run, as plain values."""
    told = {"project": key.project, "run": key.run_id}
    found = rows(client, _ONE, **told)
    return {
        "run": _unpacked(found[0]) if found else {"project": key.project, "run_id": key.run_id, "state": "unknown"},
        "metrics": rows(client, _SUMMARY, **told),
        "attempts": rows(client, _ATTEMPTS, **told),
        "streams": rows(client, _STREAMS, **told),
        "environments": rows(client, _ENVIRONMENTS, **told),
        "files": rows(client, _FILES, **told),
        "fingerprints": rows(client, _FINGERPRINTS, **told),
        "datasets": rows(client, _DATASETS, **told),
        "kpis": rows(client, _KPIS, **told),
    }


def print_run(found: Row) -> None:
    """Show `whole_run` to people."""
    run = dict(found["run"])
    config = run.pop("config", {})
    last = {row["metric"]: row["last"] for row in found["metrics"]}
    summary = {
        name: value  # what the metrics below show anyway is not said twice
        for name, value in run.pop("summary", {}).items()
        if name not in last or value not in (last[name], str(last[name]))
    }
    shown = {name: value for name, value in run.items() if value not in (None, "", [])}
    print_table([{"run": name, "": value} for name, value in shown.items()])
    if config:
        print_table([{"config": name, "": json.dumps(value)} for name, value in config.items()])
    if summary:
        print_table([{"summary": name, "": json.dumps(value)} for name, value in summary.items()])
    print_table(found["metrics"], title="metrics, all ranks together", empty="no metrics")
    if len(found["attempts"]) > 1:
        print_table(found["attempts"], title="attempts")
    for environment in found["environments"][-1:]:
        told = {name: value for name, value in environment.items() if value not in ("", [], False)}
        print_table([{"environment": name, "": value} for name, value in told.items()])
    if found["files"]:
        print_table([{name: row[name] for name in _OF_A_FILE} for row in found["files"]], title="files")
    for name in ("datasets", "kpis"):
        if found[name]:
            print_table(found[name], title=name)
    names = ("role", "rank", "host", "attempt", "records", "points", "gaps", "dead", "closed_at")
    print_table([{name: row[name] for name in names} for row in found["streams"]], title="streams")
    for text in sorted({text for row in found["streams"] if (text := clock_text(row))}):
        print(text)


def clock_text(stream: Row) -> str:
    """What to say of the clock of a stream's host; nothing where it is right."""
    found = [stream[name] for name in ("clock_ahead_s", "clock_ahead_min_s", "clock_ahead_max_s")]
    last, least, most = (0.0 if seconds is None else float(seconds) for seconds in found)
    if max(abs(least), abs(most)) * 1_000_000 <= CLOCK_TOLERANCE_US:
        return ""
    text = f"clock of host {stream['host']} is {abs(last):,.0f} s {'ahead' if last >= 0 else 'behind'}"
    if (most - least) * 1_000_000 > CLOCK_TOLERANCE_US:
        text += f"; it was set meanwhile, it has been between {least:+,.0f} s and {most:+,.0f} s"
    return text


def _unpacked(row: Row) -> Row:
    """Columns that hold JSON as what they say."""
    return {**row, "config": _object(row["config"]), "summary": _object(row["summary"])}


def _object(text: str) -> Row:
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {"": found}
