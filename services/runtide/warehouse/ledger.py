"""What the ledger says of streams and runs, for those who only ask: gateway, command line, pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from runtide.v1.ingest_pb2 import Duplicate, PreflightRequest
from runtide.warehouse.duplicates import find_duplicates
from runtide.warehouse.errors import classified

_LOOKED_THROUGH = 20_000_000
"""Points of a run that are looked through for its greatest step."""


@dataclass(frozen=True, slots=True)
class StoredStream:
    """How much of a stream is stored."""

    stream: str
    stored: int
    """Everything below is stored: the ledger's mark, or the first of its holes."""
    holes: int
    """Ranges below the ledger's mark that are not."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is known of a run when another process of it starts."""

    exists: bool
    state: str
    """As in the view runs; empty where nothing is known yet."""
    attempt: int
    """The attempt that a launch is: its own if it is known, else the next one."""
    last_step: int | None
    """Where the attempts before that one have come to, over all ranks; None where they logged nothing."""


class LedgerReader:
    """Asks the ledger. Safe to share between threads; every call blocks for one or two queries."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def stream_status(self, project: str, streams: Sequence[str]) -> list[StoredStream]:
        """How much is stored of those of these streams of which anything is. Raises StoreError."""
        if not streams:
            return []
        rows = self._query(
            "SELECT stream, if(empty(holes), mark, holes[1].1), length(holes) FROM runtide.ledger FINAL "
            "WHERE project = %(project)s AND stream IN %(streams)s",
            {"project": project, "streams": list(streams)},
        )
        return [StoredStream(str(stream), int(stored), int(holes)) for stream, stored, holes in rows]

    def run_facts(self, project: str, run_id: str, launch_id: str) -> RunFacts:
        """What is known of a run. Raises StoreError.

        Read from the streams' first records rather than from derived rows, which may lag behind by a second: two
        processes of one launch must find the same attempt. The ledger keeps attempts whose records have expired.
        """
        told = {"project": project, "run_id": run_id}
        attempts = self._query(
            "SELECT attempt, JSONExtractString(json, 'launch_id') AS launch, "
            "max(toInt64OrNull(JSONExtractString(json, 'resume_step'))) FROM runtide.events "
            "WHERE project = %(project)s AND run_id = %(run_id)s AND kind = 'stream_opened' "
            "AND JSONExtractString(json, 'role') != 'ROLE_AGENT' GROUP BY attempt, launch "
            "UNION ALL SELECT attempt, '', NULL FROM runtide.ledger FINAL WHERE project = %(project)s "
            "AND run_id = %(run_id)s AND role IN ('rank', 'child') AND opened_at IS NOT NULL GROUP BY attempt",
            told,
        )
        states = self._query("SELECT state FROM runtide.runs WHERE project = %(project)s AND run_id = %(run_id)s", told)
        own = [int(attempt) for attempt, launch, _ in attempts if launch_id and launch == launch_id]
        attempt = max(own) if own else max((int(known) for known, _, _ in attempts), default=0) + 1
        resumed = {int(known): int(step) for known, _, step in attempts if step is not None}
        return RunFacts(
            exists=bool(attempts),
            state=str(states[0][0]) if states else "",
            attempt=attempt,
            last_step=self._last_step(told, attempt, resumed) if attempt > 1 else None,
        )

    def duplicates(self, project: str, asked: PreflightRequest) -> Sequence[Duplicate]:
        """Runs that are the same as the one that asks, or nearly so. Raises BadInput and StoreError."""
        return find_duplicates(self._client, project, asked)

    def _last_step(self, told: Mapping[str, object], attempt: int, resumed: Mapping[int, int]) -> int | None:
        """Where the latest attempt before `attempt` that logged anything has come to, cut where a later one resumed.

        The ledger knows the latest step of each stream, the greatest only the points, until they expire. A job waits
        for this, so the points of a very large run are not looked through.
        """
        ends = self._query(
            "WITH (SELECT sum(points) FROM runtide.ledger FINAL WHERE project = %(project)s AND run_id = %(run_id)s)"
            " <= %(most)s AS few SELECT attempt, max(step) FROM (SELECT attempt, step FROM runtide.points "
            "WHERE few AND project = %(project)s AND run_id = %(run_id)s AND attempt < %(attempt)s "
            "UNION ALL SELECT attempt, assumeNotNull(last_step) FROM runtide.ledger FINAL "
            "WHERE project = %(project)s AND run_id = %(run_id)s AND attempt < %(attempt)s AND last_step IS NOT NULL) "
            "GROUP BY attempt ORDER BY attempt DESC LIMIT 1",
            {**told, "attempt": attempt, "most": _LOOKED_THROUGH},
        )
        if not ends:
            return None
        latest, step = map(int, ends[0])
        return min([step, *(cut for later, cut in resumed.items() if latest < later < attempt)])

    def _query(self, sql: str, parameters: Mapping[str, object]) -> Sequence[Sequence[Any]]:
        try:
            return self._client.query(sql, parameters=dict(parameters)).result_rows
        except (ClickHouseError, OSError) as error:
            raise classified(error) from error
