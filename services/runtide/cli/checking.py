"""`runtide verify`: what was declared against what is stored, as plain values and as tables."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from runtide.cli.store import RunKey
from runtide.cli.tables import print_table
from runtide.warehouse.client import Client
from runtide.warehouse.verify import StreamVerification, Verification, verify_run

TOTALS = (
    "declared_records",
    "stored_records",
    "declared_points",
    "stored_points",
    "duplicates",
    "missing_ranges",
    "gaps",
    "dead",
    "discarded",
)
SHOWN_PROBLEMS = 50


def check(client: Client, key: RunKey) -> dict[str, Any]:
    """Verify a run; the result as plain values."""
    found = verify_run(client, key.project, key.run_id)
    return {
        "project": found.project,
        "run_id": found.run_id,
        "clean": found.clean,
        "open_streams": sum(_is_open(stream) for stream in found.streams),
        **_totals(found),
        "problems": found.problems,
        "expired": found.expired,
        "streams": [dataclasses.asdict(stream) | {"problems": stream.problems} for stream in found.streams],
    }


def show(found: dict[str, Any]) -> None:
    """Print the result of `check` for people."""
    print_table([_line(stream) for stream in found["streams"]], title=f"verify {found['project']}/{found['run_id']}")
    print(
        f"records: {found['declared_records']} declared, {found['stored_records']} stored;  "
        f"points: {found['declared_points']} declared, {found['stored_points']} stored"
    )
    print(
        f"duplicates {found['duplicates']}, missing ranges {found['missing_ranges']}, "
        f"gaps {found['gaps']}, dead letters {found['dead']}"
        + (f", {found['discarded']} of them discarded" if found["discarded"] else "")
    )
    for stream in found["streams"]:
        for text in stream["discards"] + stream["losses"][:SHOWN_PROBLEMS]:
            print(f"stream {stream['stream']}: {text}")
    if waiting := found["dead"] - found["discarded"]:
        print(f"{waiting} dead letters can be replayed: runtide dead-letters list {found['run_id']}")
    if found["open_streams"]:
        print(f"{found['open_streams']} streams go on and have declared nothing yet: judged as far as they came")
    for texts in (found["expired"], found["problems"]):
        for text in texts[:SHOWN_PROBLEMS]:
            print(text)
        if (more := len(texts) - SHOWN_PROBLEMS) > 0:
            print(f"and {more} more (--json lists all)")
    lost = f"; {found['gaps']} were declared lost (gaps)" if found["gaps"] else ""
    print(f"clean: everything that was declared is stored, once{lost}" if found["clean"] else "NOT clean")


def show_all(found: Sequence[dict[str, Any]]) -> None:
    """Print the results of several runs for people: a line each, then what is wrong."""
    names = ("project", "run_id", "clean", *TOTALS)
    print_table([{name.replace("_", " "): run[name] for name in names} for run in found], empty="no runs")
    problems = [f"{run['project']}/{run['run_id']}: {problem}" for run in found for problem in run["problems"]]
    for problem in problems[:SHOWN_PROBLEMS]:
        print(problem)
    if (more := len(problems) - SHOWN_PROBLEMS) > 0:
        print(f"and {more} more (--json lists all)")
    bad = sum(not run["clean"] for run in found)
    print(f"{len(found)} runs, NOT clean: {bad}" if bad else f"{len(found)} runs, all clean")


def _totals(found: Verification) -> dict[str, int]:
    return {name: int(getattr(found, name)) for name in TOTALS}


def _is_open(stream: StreamVerification) -> bool:
    return stream.declared_end is None and not stream.expired


def _line(stream: dict[str, Any]) -> dict[str, Any]:
    said = {name: "" if stream[name] is None else stream[name] for name in ("declared_records", "declared_points")}
    return {
        "role": stream["role"],
        "rank": stream["rank"],
        "stream": stream["stream"],
        "records declared": said["declared_records"],
        "stored": stream["stored_records"],
        "points declared": said["declared_points"],
        "stored ": stream["stored_points"],
        "duplicates": stream["duplicates"],
        "missing": len(stream["missing"]) + len(stream["odd"]),
        "gaps": stream["gaps"],
        "dead": stream["dead"],
    }
