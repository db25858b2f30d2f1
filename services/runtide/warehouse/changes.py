"""Changing something afterwards: one change, one Range, said by the one who makes it and kept in the audit trail.

    outcome = make_change(push, "run:7c2f", "notes", "diverges after 3k", by=account(), project="vision")
    (entry,) = wait(client, outcome)

How a Push reaches the gateway is the caller's affair. It may be made again and again with the same stream until it is
acknowledged: it is in the chain once. Who made it is the token's word; `by` counts only where there are no tokens.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from clickhouse_connect.driver.client import Client

from runtide.v1.ingest_pb2 import Range
from runtide.v1.records_pb2 import ROLE_USER, Change, Record
from runtide.warehouse.audit import Entry, landed
from runtide.warehouse.rulings import Push, hand_over
from runtide.wire.books import CHANGES
from runtide.wire.changes import FIXED, as_json, check_change
from runtide.wire.framing import seal

LOOK_S = 0.05
ACTOR_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Outcome:
    """A change that a gateway has taken: it will be in the chain, whatever dies."""

    project: str
    stream: str
    subject: str
    kind: str


def make_change(
    push: Push,
    subject: str,
    kind: str,
    after: Any = None,
    reason: str = "",
    by: str = "",
    project: str = "default",
    *,
    before: Any = None,
    stream: str = "",
) -> Outcome:
    """Make one change and return once a gateway has taken it; `after` is anything that JSON can say.

    `before` is what the caller sees there, for the first change of a thing, which the chain knows nothing of yet.
    `stream` is for a caller who tries again with what may have been taken already; else it is a new one.
    Raises BadInput naming field, value and limit, NotAllowed where the token may not, Busy and Unavailable.
    """
    range_ = as_range(subject, kind, after, reason, by, project, before=before, stream=stream)
    hand_over([range_], push)
    return Outcome(project, range_.stream, subject, kind)


def make_changes(
    push: Push, subject: str, told: Sequence[tuple[str, Any]], reason: str = "", by: str = "", project: str = "default"
) -> Outcome:
    """Make several changes of one subject, kinds and what they say, as one command: all of them are taken or none."""
    range_ = _range([_sealed(subject, kind, after, reason, by) for kind, after in told], by, project)
    hand_over([range_], push)
    return Outcome(project, range_.stream, subject, told[-1][0])


def as_range(
    subject: str, kind: str, after: Any, reason: str, by: str, project: str, *, before: Any = None, stream: str = ""
) -> Range:
    """The Range that carries a change. Raises BadInput."""
    return _range([_sealed(subject, kind, after, reason, by, before)], by, project, stream)


def _sealed(subject: str, kind: str, after: Any, reason: str, by: str, before: Any = None) -> bytes:
    """One change as the element of a body."""
    change = Change(
        time_us=time.time_ns() // 1000,
        actor=by,
        subject=subject,
        kind=kind,
        reason=reason,
        before="" if before is None else as_json(before),
        after=as_json(FIXED.get(kind, after)),
    )
    check_change(change)
    return seal(Record(change=change).SerializeToString())


def _range(sealed: Sequence[bytes], by: str, project: str, stream: str = "") -> Range:
    return Range(
        stream=stream or uuid4().hex,
        run_id=CHANGES,
        role=ROLE_USER,
        attempt=1,
        project=project,
        actor=by[:ACTOR_CHARACTERS] or "unknown",
        body=b"".join(sealed),
    )


def wait(client: Client, outcome: Outcome, wait_s: float = 60) -> Sequence[Entry]:
    """What is in the chain of a change, once it is there; empty where the sink has not got to it in time."""
    deadline = time.monotonic() + wait_s
    while True:
        found = landed(client, outcome.project, outcome.stream)
        if found or time.monotonic() > deadline:
            return found
        time.sleep(LOOK_S)
