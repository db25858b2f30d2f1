"""What the canary's rows say: how long the way takes, and whether all that it logged is stored once or declared.

Every record of the canary says how many points its process has logged by then, so the base tables alone tell what is
missing between two records, and since when. They are counted without FINAL.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from runtide.warehouse.queries.reading import rows
from runtide.wire import canary as words

JUDGED_S = 86_400
"""The records of so many seconds are judged; what went wrong before has had its say."""


@dataclass(frozen=True)
class Canary:
    """All canaries of the last day."""

    last_at: datetime
    """When the newest record was logged."""
    age_s: float
    interval_s: float
    logged: int
    """Points within the time that is judged, as the newest record of each process says."""
    stored: int
    """Distinct ones of them in the base table."""
    duplicates: int
    """Rows beyond the distinct ones."""
    gaps: int
    """Records that were declared as lost."""
    dead: int
    """Records that could not be understood."""
    delay_s: float | None
    """Of the last beat whose delay is known."""
    delay_hour_s: float | None
    """Median of the last hour."""
    delays: int
    """Beats of the last hour whose delay is known."""

    @property
    def lost(self) -> int:
        """Points that were logged and are neither stored nor declared; below 0 where there are more than were said."""
        return self.logged - self.stored - len(words.METRICS) * (self.gaps + self.dead)

    @property
    def agrees(self) -> bool:
        """Everything that was logged is stored once, or declared."""
        return self.lost == 0 and self.duplicates == 0

    @property
    def late(self) -> bool:
        """No beat has come for so long that none runs, or that nothing comes through."""
        return self.age_s > words.oldest_s(self.interval_s)

    @property
    def trouble(self) -> str:
        """What is wrong, for people; empty where nothing is."""
        texts = []
        if self.late:
            texts.append(f"its last beat is {self.age_s:.0f} s old, and one is due every {self.interval_s:g} s")
        if self.lost:
            texts.append(f"{self.lost} of its {self.logged} points are neither stored nor declared")
        if self.duplicates:
            texts.append(f"{self.duplicates} of its points are stored more than once")
        return "; ".join(texts)


# What a stream had logged before is known where its beginning is seen, else from the first record that is judged. Its
# opening is on the clock of its host, so it counts as seen only where it lies well within.
_JUDGED = f"""
SELECT stream, last, last_at, every, found, apart,
    opened_at IS NOT NULL AND opened_at > now() - {JUDGED_S - 3600} AS whole, if(whole, 0, first) AS begin,
    logged_last - if(whole, 0, logged_first - {len(words.METRICS)}) AS logged
FROM
(
    SELECT stream, min(offset) AS first, max(offset) AS last, max(time) AS last_at,
        argMinIf(value, offset, metric = '{words.LOGGED}') AS logged_first,
        argMaxIf(value, offset, metric = '{words.LOGGED}') AS logged_last,
        argMaxIf(value, offset, metric = '{words.INTERVAL}') AS every,
        count() AS found, uniqExact(offset, metric) AS apart
    FROM runtide.points
    WHERE project = {{project:String}} AND received_at > now() - {JUDGED_S}
    GROUP BY stream
) AS judged
LEFT JOIN
(
    SELECT toString(stream) AS stream, opened_at FROM runtide.ledger FINAL WHERE project = {{project:String}}
) AS known USING stream
"""  # noqa: S608  constants

_STATE = f"""
SELECT max(last_at) AS last_at, dateDiff('millisecond', last_at, now64(3)) / 1000 AS age_s,
    argMax(every, judged.last_at) AS interval_s,
    toInt64(sum(logged)) AS logged, sum(apart) AS stored, sum(found) - stored AS duplicates
FROM ({_JUDGED}) AS judged
HAVING count() > 0
"""  # noqa: S608  constants

_DECLARED = f"""
SELECT sumIf(records, kind = 'gap') AS gaps, sumIf(records, kind = 'dead') AS dead
FROM
(
    SELECT stream, offset, 'dead' AS kind, 1 AS records
    FROM runtide.dead_letters FINAL WHERE project = {{project:String}}
    UNION ALL
    SELECT toString(stream), offset, 'gap', greatest(JSONExtractUInt(json, 'records'), 1)
    FROM runtide.events FINAL WHERE project = {{project:String}} AND kind = 'gap'
) AS declared
INNER JOIN ({_JUDGED}) AS judged USING stream
WHERE offset BETWEEN begin AND last
"""  # noqa: S608  constants

_DELAYS = f"""
SELECT argMax(value, time) AS last, medianExactIf(value, time > now() - 3600) AS hour, count() AS number,
    countIf(time > now() - 3600) AS delays
FROM runtide.points
WHERE project = {{project:String}} AND metric = '{words.DELAY}' AND received_at > now() - {JUDGED_S} AND isFinite(value)
"""  # noqa: S608  constants

_BEAT = f"""
SELECT 1 FROM runtide.points
WHERE project = {{project:String}} AND run_id = {{run:String}} AND metric = '{words.BEAT}' AND step = {{step:Int64}}
    AND stream = {{stream:String}} AND value = {{beat:Float64}}
LIMIT 1
"""  # noqa: S608  constants


def canary(client: Any) -> Canary | None:
    """What the canaries of the last day say; None where none has said anything."""
    told = {"project": words.PROJECT}
    found = rows(client, _STATE, told)
    if not found:
        return None
    declared, delays = rows(client, _DECLARED, told)[0], rows(client, _DELAYS, told)[0]
    return Canary(
        **found[0],
        **declared,
        delay_s=delays["last"] if delays["number"] else None,
        delay_hour_s=delays["hour"] if delays["delays"] else None,
        delays=delays["delays"],
    )


def beat_stored(client: Any, run_id: str, stream: str, step: int, beat: int) -> bool:
    """Whether the record that began a beat can be queried."""
    told = {"project": words.PROJECT, "run": run_id, "stream": stream, "step": step, "beat": beat}
    return bool(rows(client, _BEAT, told))
