"""What state a run is in, from facts about its processes. Pure: no clock, no store.

Only streams of role rank decide, those of the newest attempt, and of each rank the one opened last. A process counts as
living while it, or an agent's heartbeat that names it, was heard within SILENT_SECONDS, unless it said its last word or
its agent found it ended. Nothing is remembered, so a run goes back to running by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtide.wire.states import ENDED, SILENT_SECONDS, STALLED_SECONDS, RunState

SECOND = 1_000_000
OPENING_SECONDS = 60.0
"""How long after the start of an attempt ranks that have not spoken yet are awaited."""


@dataclass(frozen=True, slots=True)
class LastWord:
    """A StreamClosed: what the process said of its own end."""

    at_us: int
    exit_code: int = 0
    reason: str = "finish"
    signal: str = ""
    preempted: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """A StreamEnded: what the agent found of the process's end."""

    at_us: int
    offset: int = 0
    exit_code: int | None = None
    signal: str = ""


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """One stream of role rank. Times are microseconds since the epoch; `heard_us` is by the gateway's clock."""

    stream: str
    rank: int
    attempt: int = 1
    world_size: int = 1
    opened_us: int = 0
    heard_us: int = 0
    """Last data or heartbeat."""
    mark: int = 0
    stepped_us: int | None = None
    """Last step that came."""
    last_word: LastWord | None = None
    finding: Finding | None = None
    noticed_us: int | None = None
    """When that data or heartbeat was seen, by the clock that this is judged by; None: it is the gateway's."""
    order: int = 0
    """Its place among the openings of the run's streams."""

    @property
    def heard_here_us(self) -> int:
        """What silence is counted from."""
        return self.heard_us if self.noticed_us is None else self.noticed_us


@dataclass(frozen=True, slots=True)
class RunFacts:
    """All streams of role rank, and when anything at all was last heard of the run."""

    streams: Sequence[StreamFacts] = ()
    heard_us: int = 0
    noticed_us: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A state, why, and how it ended where it did."""

    state: RunState
    reason: str = ""
    finished_us: int | None = None
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class _Fate:
    """How one process stands; `state` RUNNING means that it lives."""

    facts: StreamFacts
    state: RunState
    reason: str
    at_us: int
    exit_code: int | None = None


def run_state(facts: RunFacts, now_us: int) -> Verdict:
    """Judge a run at the instant `now_us`."""
    if not facts.streams:
        return _without_ranks(facts, now_us)
    deciding = newest(facts.streams)
    fates = [_fate(stream, now_us) for stream in deciding]
    living = [fate for fate in fates if fate.state is RunState.RUNNING]
    world = max(stream.world_size for stream in deciding)
    # One rank alone that speaks is a usual way to log; some but not all is not.
    missing = max(0, world - len(fates)) if len(fates) > 1 else 0
    awaited = missing > 0 and 0 <= now_us - min(s.opened_us for s in deciding) < OPENING_SECONDS * SECOND
    if living:
        return _going_on(fates, living, 0 if awaited else missing, now_us)
    if awaited and all(fate.state is RunState.FINISHED for fate in fates):
        return Verdict(RunState.RUNNING, f"{missing} of {world} ranks have not opened yet")
    return _ended(fates)


def newest(streams: Sequence[StreamFacts]) -> list[StreamFacts]:
    """Of each rank of the newest attempt the stream that was opened last, in order of ranks."""
    attempt = max(stream.attempt for stream in streams)
    chosen: dict[int, StreamFacts] = {}
    for stream in streams:
        if stream.attempt == attempt:
            other = chosen.get(stream.rank)
            if other is None or _opening(stream) > _opening(other):
                chosen[stream.rank] = stream
    return [chosen[rank] for rank in sorted(chosen)]


def _opening(stream: StreamFacts) -> tuple[int, int, str]:
    return stream.order, stream.opened_us, stream.stream


def _without_ranks(facts: RunFacts, now_us: int) -> Verdict:
    heard = facts.heard_us if facts.noticed_us is None else facts.noticed_us
    if now_us - heard <= SILENT_SECONDS * SECOND:
        return Verdict(RunState.RUNNING, "no rank has opened yet")
    return Verdict(
        RunState.CRASHED, f"no rank has opened and nothing was heard for {SILENT_SECONDS:g} s", facts.heard_us
    )


def _fate(facts: StreamFacts, now_us: int) -> _Fate:
    found = facts.finding
    if found is not None and facts.mark > found.offset and facts.last_word is None:
        found = None  # it has spoken since: the finding was wrong
    if facts.last_word is not None:
        return _by_last_word(facts, facts.last_word, found)
    if found is not None:
        return _by_finding(facts, found)
    if now_us - facts.heard_here_us > SILENT_SECONDS * SECOND:
        return _Fate(facts, RunState.CRASHED, f"silent for {SILENT_SECONDS:g} s", facts.heard_us)
    return _Fate(facts, RunState.RUNNING, "", facts.heard_us)


def _by_last_word(facts: StreamFacts, word: LastWord, found: Finding | None) -> _Fate:
    if word.preempted:
        return _Fate(facts, RunState.PREEMPTED, f"preempted {word.signal}".strip(), word.at_us, word.exit_code)
    code = word.exit_code
    if code == 0 and word.reason == "exit" and found is not None:
        # At interpreter exit a process cannot know its own exit code; its parent does.
        if found.exit_code is not None:
            code = found.exit_code
        elif found.signal:
            return _Fate(facts, RunState.CRASHED, f"killed by {found.signal}", found.at_us)
    if code != 0:
        return _Fate(facts, RunState.FAILED, _because(word, code), word.at_us, code)
    if word.reason in ("exception", "signal"):
        return _Fate(facts, RunState.FAILED, _because(word, code), word.at_us, None)
    return _Fate(facts, RunState.FINISHED, "", word.at_us, 0)


def _because(word: LastWord, code: int) -> str:
    said = f"{word.reason} {word.signal}".strip() if word.reason in ("exception", "signal") or word.signal else ""
    return f"exit code {code} ({said})" if said else f"exit code {code}"


def _by_finding(facts: StreamFacts, found: Finding) -> _Fate:
    if found.signal:
        return _Fate(facts, RunState.CRASHED, f"killed by {found.signal}", found.at_us, found.exit_code)
    if found.exit_code is None:
        return _Fate(facts, RunState.CRASHED, "ended without a last word", found.at_us)
    if found.exit_code != 0:
        return _Fate(facts, RunState.FAILED, f"exit code {found.exit_code}", found.at_us, found.exit_code)
    return _Fate(facts, RunState.FINISHED, "", found.at_us, 0)


def _going_on(fates: list[_Fate], living: list[_Fate], missing: int, now_us: int) -> Verdict:
    lost = [fate for fate in fates if fate.state in ENDED and fate.state is not RunState.FINISHED]
    said = [f"rank {fate.facts.rank} {fate.reason}" for fate in lost[:3]]
    if len(lost) > 3:
        said.append(f"{len(lost) - 3} more ranks lost")
    if missing:
        said.append(f"{missing} ranks have never opened")
    if said:
        return Verdict(RunState.DEGRADED, ", ".join(said))
    stepped = [fate.facts.stepped_us for fate in living if fate.facts.stepped_us is not None]
    if stepped and now_us - max(stepped) > STALLED_SECONDS * SECOND:
        return Verdict(RunState.STALLED, f"no step for {STALLED_SECONDS:g} s")
    return Verdict(RunState.RUNNING)


def _ended(fates: list[_Fate]) -> Verdict:
    finished = max(fate.at_us for fate in fates)
    for state in (RunState.PREEMPTED, RunState.FAILED, RunState.CRASHED):
        # The first to end is the cause, the others often follow it.
        of_state = sorted((fate for fate in fates if fate.state is state), key=lambda fate: fate.at_us)
        if of_state:
            first = of_state[0]
            return Verdict(state, _told(first, fates), finished, first.exit_code)
    return Verdict(RunState.FINISHED, "", finished, 0)


def _told(fate: _Fate, fates: list[_Fate]) -> str:
    return fate.reason if len(fates) == 1 else f"rank {fate.facts.rank} {fate.reason}"
