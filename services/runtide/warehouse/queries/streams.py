"""What is stored of each stream of a run, and what of that is already in the derived rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runtide.warehouse.queries.reading import rows


@dataclass(frozen=True)
class StreamRow:
    """A row of the view streams, with how far derived rows go."""

    stream: str
    role: str
    rank: int
    host: str
    attempt: int
    stored_offset: int
    derived_offset: int
    holes: list[tuple[int, int]]
    records: int
    points: int
    gaps: int
    dead: int
    opened_at: datetime | None
    closed_at: datetime | None
    last_step: int | None
    received_at: datetime
    lost_records: int
    """Records that declared gaps say were lost; a gap that only knows its bytes counts none."""


def streams(client: Any, project: str, run_id: str) -> list[StreamRow]:
    """The streams of a run: processes by attempt and rank, then the agents."""
    found = rows(
        client,
        "SELECT s.stream AS stream, role, rank, host, attempt, stored_offset, c.mark AS derived_offset, holes, records,"
        " points, gaps, dead, opened_at, closed_at, last_step, received_at, g.lost AS lost_records "
        "FROM (SELECT * FROM runtide.streams WHERE project = {project:String} AND run_id = {run:String}) AS s "
        "LEFT JOIN (SELECT stream, mark FROM runtide.coverage FINAL"
        " WHERE project = {project:String} AND run_id = {run:String}) AS c ON c.stream = s.stream "
        "LEFT JOIN (SELECT stream, sum(JSONExtractUInt(json, 'records')) AS lost FROM runtide.events FINAL"
        " WHERE project = {project:String} AND run_id = {run:String} AND kind = 'gap' GROUP BY stream) AS g"
        " ON g.stream = s.stream "
        "ORDER BY role = 'agent', attempt DESC, rank, stream",
        {"project": project, "run": run_id},
    )
    return [StreamRow(**{**row, "holes": [tuple(hole) for hole in row["holes"]]}) for row in found]
