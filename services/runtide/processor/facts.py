"""What is known of one run, folded from ledger rows and events into its row of `run_rows` and its attempts. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from runtide.processor.coverage import Stored
from runtide.processor.dirty import Run
from runtide.processor.states import Finding, LastWord, RunFacts, StreamFacts, Verdict
from runtide.wire.clocks import set_right

KINDS = ("stream_opened", "stream_closed", "stream_ended", "config_set", "summary_set")
"""Kinds of events that the row of a run is made of, besides heartbeats."""
SUMMARY_METRICS = 1000
"""Metrics in the summary of a run; the view metric_summary has all."""


class LedgerRow(NamedTuple):
    """One stream as the ledger has it; see `sql.ledger`."""

    project: str
    run_id: str
    stream: str
    role: str
    rank: int
    host: str
    attempt: int
    mark: int
    holes: Sequence[tuple[int, int]]
    points: int
    revision: int
    opened_us: int | None
    closed_us: int | None
    last_step: int | None
    stepped_us: int | None
    received_us: int
    stepped_received_us: int | None = None

    @property
    def run(self) -> Run:
        """The run that it belongs to."""
        return Run(self.project, self.run_id)

    @property
    def stored(self) -> Stored:
        """How far it is stored."""
        return Stored(self.mark, tuple((start, end) for start, end in self.holes))


class Event(NamedTuple):
    """One event of KINDS; `time_us` is what the host's clock said."""

    project: str
    run_id: str
    kind: str
    stream: str
    attempt: int
    rank: int
    time_us: int
    json: str
    offset: int
    received_us: int
    ahead_us: int | None

    @property
    def at_us(self) -> int:
        """When it was said, by the gateway's clock."""
        return set_right(self.time_us, self.ahead_us, self.received_us)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of a run."""

    attempt: int
    launch_id: str
    opened_us: int
    resume_step: int | None
    world_size: int


@dataclass(slots=True)
class Said:
    """What the events of a run say, folded in the order in which they were said."""

    opened: dict[str, dict[str, Any]] = field(default_factory=dict)
    """StreamOpened by stream, those of role rank only."""
    attempt_of: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Stream to attempt, rank and time of its opening; streams in the order in which they were opened."""
    last_words: dict[str, LastWord] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Last:
    """Last value of a metric over all ranks."""

    metric: str
    value: float


def fold(events: Iterable[Event]) -> Said:
    """Fold events."""
    said = Said()
    for event in in_order(events):
        message = json.loads(event.json)
        if event.kind == "stream_opened":
            if message.get("role") == "ROLE_RANK":
                said.opened[event.stream] = message
                said.attempt_of[event.stream] = (event.attempt, event.rank, event.at_us)
        elif event.kind == "stream_closed":
            said.last_words[event.stream] = LastWord(
                _ended(said, event, int(message.get("elapsed_us", 0))),
                int(message.get("exit_code", 0)),
                message.get("reason", ""),
                message.get("signal", ""),
                bool(message.get("preempted", False)),
            )
        elif event.kind == "stream_ended":
            code = message.get("exit_code")
            said.findings[message.get("stream", "")] = Finding(
                event.at_us,
                int(message.get("offset", 0)),
                None if code is None else int(code),
                message.get("signal", ""),
            )
        elif event.kind == "config_set":
            said.config.update(_entries(message))
            for key in message.get("removed", ()):
                said.config.pop(key, None)
        elif event.kind == "summary_set":
            said.summary.update(_entries(message))
    return said


def in_order(events: Iterable[Event]) -> list[Event]:
    """Events as they were said: in a stream by offset, streams among each other by when the gateway heard them.

    By no clock of a host, which may be set while it speaks. Within a stream the gateway's counts as far as offsets let
    it: what came late, or before that clock was set back, comes before all that lies behind it.
    """
    heard: dict[str, int] = {}
    keyed = []
    for event in sorted(events, key=lambda event: event.offset, reverse=True):
        heard[event.stream] = min(event.received_us, heard.get(event.stream, event.received_us))
        keyed.append((event.attempt, heard[event.stream], event.stream, event.offset, event))
    return [event for *_, event in sorted(keyed, key=lambda entry: entry[:4])]


def _ended(said: Said, event: Event, elapsed_us: int) -> int:
    """When a process said its last word: so long after its first as it has measured itself, where it has."""
    opened = said.attempt_of.get(event.stream)
    return opened[2] + elapsed_us if opened is not None and elapsed_us else event.at_us


def _entries(message: Mapping[str, Any]) -> dict[str, Any]:
    return {entry.get("key", ""): _value(entry.get("json", "")) for entry in message.get("entries", ())}


def _value(text: str) -> Any:
    """A JSON value; numbers that JSON lacks, NaN, Infinity, 1e999, become strings, and so does what is no JSON."""
    try:
        return json.loads(text, parse_constant=str, parse_float=_number)
    except (ValueError, RecursionError):
        return text


def _number(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text


def _said_again(values: Mapping[str, Any]) -> str:
    """A JSON object. Half of a character (a lone surrogate), which JSON can say and UTF-8 cannot, becomes a ?."""
    return json.dumps(values, ensure_ascii=False, allow_nan=False).encode(errors="replace").decode()


def attempts(said: Said) -> list[Attempt]:
    """The starts of a run, in order."""
    of: dict[int, list[str]] = {}
    for stream, (attempt, _, _) in said.attempt_of.items():
        of.setdefault(attempt, []).append(stream)
    out = []
    for attempt, streams in sorted(of.items()):
        streams.sort(key=lambda stream: said.attempt_of[stream][1])  # which keeps the order of their openings
        messages = [said.opened[stream] for stream in streams]
        steps = [int(message["resume_step"]) for message in messages if "resume_step" in message]
        out.append(
            Attempt(
                attempt,
                messages[0].get("launch_id", ""),
                min(said.attempt_of[stream][2] for stream in streams),
                min(steps) if steps else None,
                max(int(message.get("world_size", 1)) for message in messages),
            )
        )
    return out


def run_facts(
    said: Said,
    ledger: Iterable[LedgerRow],
    heartbeats: Mapping[str, int],
    stepped: Mapping[str, int],
    noticed: Mapping[str, int] = MappingProxyType({}),
) -> RunFacts:
    """The facts that a state is judged by.

    `heartbeats` are times of the gateway; `stepped` and `noticed` tell when points, and anything, were seen to come, by
    the clock that the state is judged by.
    """
    streams, heard = [], 0
    order = {stream: place for place, stream in enumerate(said.attempt_of, 1)}
    for row in ledger:
        heard = max(heard, row.received_us)
        if row.role != "rank":
            continue
        message = said.opened.get(row.stream, {})
        opened = said.attempt_of.get(row.stream, (0, 0, 0))[2] or min(row.opened_us or row.received_us, row.received_us)
        streams.append(
            StreamFacts(
                row.stream,
                row.rank,
                row.attempt,
                int(message.get("world_size", 1)),
                opened,
                max(row.received_us, heartbeats.get(row.stream, 0)),
                row.mark,
                stepped.get(row.stream),
                said.last_words.get(row.stream),
                said.findings.get(row.stream),
                noticed.get(row.stream),
                order.get(row.stream, 0),
            )
        )
    return RunFacts(streams, heard, max(noticed.values(), default=None))


def run_row(
    run: Run, said: Said, facts: RunFacts, verdict: Verdict, lasts: Sequence[Last], last_step: int | None
) -> dict[str, Any]:
    """The row of `run_rows`, but for its version. Times are microseconds."""
    ordered = sorted(said.opened, key=lambda stream: _precedence(said.attempt_of[stream]))  # keeps that of openings
    speakers = [said.opened[stream] for stream in ordered]

    def first(name: str, default: Any = "") -> Any:
        return next((message[name] for message in speakers if message.get(name)), default)

    opened = [stream.opened_us for stream in facts.streams]
    heard = [stream.heard_us for stream in facts.streams]
    summary: dict[str, Any] = {last.metric: _plain(last.value) for last in lasts[:SUMMARY_METRICS]}
    summary.update(said.summary)
    started = min(opened) if opened else facts.heard_us
    return {
        "project": run.project,
        "run_id": run.run_id,
        "experiment": first("experiment"),
        "name": first("name") or run.run_id,
        "group": first("group"),
        "job_type": first("job_type"),
        "state": str(verdict.state),
        "reason": verdict.reason,
        "user": first("user"),
        "host": first("host"),
        "world_size": max((stream.world_size for stream in facts.streams), default=0),
        "attempt": max((stream.attempt for stream in facts.streams), default=0),
        "started_at": started,
        "finished_at": None if verdict.finished_us is None else max(started, verdict.finished_us),
        "heartbeat_at": max(heard) if heard else facts.heard_us,
        "exit_code": verdict.exit_code,
        "config": _said_again(said.config),
        "tags": list(first("tags", [])),
        "notes": first("notes"),
        "git_commit": first("git_commit"),
        "summary": _said_again(summary),
        "last_step": last_step,
    }


def _precedence(opening: tuple[int, int, int]) -> tuple[int, int]:
    """Whose words about the run count: the newest attempt's, there the lowest rank's, there the first."""
    attempt, rank, _ = opening
    return -attempt, rank


def _plain(value: float) -> float | str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value
