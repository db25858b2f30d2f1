"""Every state of a run, and the way back to running."""

from __future__ import annotations

from dataclasses import replace

import pytest
from runtide.processor.states import SECOND, Finding, LastWord, RunFacts, StreamFacts, run_state
from runtide.wire.states import SILENT_SECONDS, STALLED_SECONDS, RunState

NOW = 1_800_000_000 * SECOND
START = NOW - 3600 * SECOND


def ago(seconds: float) -> int:
    return NOW - int(seconds * SECOND)


def stream(rank: int = 0, **more: object) -> StreamFacts:
    facts = StreamFacts(f"s{rank}", rank, 1, 1, START, ago(1), 1000, ago(1))
    return replace(facts, **more)  # type: ignore[arg-type]


def closed(code: int = 0, reason: str = "finish", signal: str = "", preempted: bool = False, at: float = 5) -> LastWord:
    return LastWord(ago(at), code, reason, signal, preempted)


def ended(code: int | None = None, signal: str = "", at: float = 2) -> Finding:
    return Finding(ago(at), 1000, code, signal)


SILENT = ago(SILENT_SECONDS + 1)
OF_ONE = [
    pytest.param(stream(), RunState.RUNNING, None, id="lives"),
    pytest.param(stream(heard_us=ago(SILENT_SECONDS - 1)), RunState.RUNNING, None, id="quiet for a while"),
    pytest.param(stream(heard_us=SILENT), RunState.CRASHED, None, id="silent"),
    pytest.param(stream(last_word=closed()), RunState.FINISHED, 0, id="closed"),
    pytest.param(stream(last_word=closed(), finding=ended()), RunState.FINISHED, 0, id="closed and ended"),
    pytest.param(stream(last_word=closed(3, "exception")), RunState.FAILED, 3, id="exception"),
    pytest.param(stream(last_word=closed(0, "exception")), RunState.FAILED, None, id="exception without a code"),
    pytest.param(stream(last_word=closed(143, "signal", "SIGTERM")), RunState.FAILED, 143, id="signal caught"),
    pytest.param(
        stream(last_word=closed(143, "signal", "SIGTERM", preempted=True)), RunState.PREEMPTED, 143, id="preempted"
    ),
    pytest.param(stream(finding=ended()), RunState.CRASHED, None, id="died without a word"),
    pytest.param(stream(finding=ended(-9, "SIGKILL")), RunState.CRASHED, -9, id="killed"),
    pytest.param(stream(finding=ended(3)), RunState.FAILED, 3, id="its parent knows the code"),
    pytest.param(stream(finding=ended(0)), RunState.FINISHED, 0, id="its parent knows that all is well"),
    pytest.param(stream(last_word=closed(0, "exit"), finding=ended(3)), RunState.FAILED, 3, id="sys.exit(3)"),
    pytest.param(stream(last_word=closed(0, "finish"), finding=ended(3)), RunState.FINISHED, 0, id="failed later"),
    pytest.param(stream(finding=ended(), mark=1001), RunState.RUNNING, None, id="spoke after it was found dead"),
    pytest.param(stream(stepped_us=ago(STALLED_SECONDS + 1)), RunState.STALLED, None, id="no step for long"),
    pytest.param(stream(stepped_us=None), RunState.RUNNING, None, id="never stepped"),
]


@pytest.mark.parametrize(("facts", "state", "code"), OF_ONE)
def test_one_process(facts: StreamFacts, state: RunState, code: int | None) -> None:
    verdict = run_state(RunFacts([facts], facts.heard_us), NOW)
    assert (verdict.state, verdict.exit_code) == (state, code)
    ended_states = (RunState.CRASHED, RunState.FAILED, RunState.FINISHED, RunState.PREEMPTED)
    assert (verdict.finished_us is not None) == (state in ended_states)


LIVES, DONE = stream(0, world_size=2), stream(1, world_size=2, last_word=closed())
OF_SEVERAL = [
    pytest.param([LIVES, stream(1, world_size=2)], RunState.RUNNING, id="both live"),
    pytest.param([LIVES, DONE], RunState.RUNNING, id="one is done already"),
    pytest.param([LIVES, stream(1, heard_us=SILENT)], RunState.DEGRADED, id="one is silent"),
    pytest.param([LIVES, stream(1, finding=ended())], RunState.DEGRADED, id="one died"),
    pytest.param([LIVES, stream(1, last_word=closed(1))], RunState.DEGRADED, id="one failed"),
    pytest.param([DONE, replace(DONE, rank=0, stream="s0")], RunState.FINISHED, id="both done"),
    pytest.param([DONE, stream(0, heard_us=SILENT)], RunState.CRASHED, id="one done, one silent"),
    pytest.param([stream(0, heard_us=SILENT), stream(1, heard_us=SILENT)], RunState.CRASHED, id="both silent"),
    pytest.param([stream(0, last_word=closed(1)), stream(1, finding=ended())], RunState.FAILED, id="failed and died"),
    pytest.param(
        [stream(0, last_word=closed(preempted=True)), stream(1, last_word=closed(1))],
        RunState.PREEMPTED,
        id="preempted and failed",
    ),
    pytest.param([stream(0, world_size=8)], RunState.RUNNING, id="only rank 0 ever logs"),
    pytest.param([stream(0, world_size=8, last_word=closed())], RunState.FINISHED, id="only rank 0 ever logged"),
    pytest.param([stream(0, world_size=8), stream(1, world_size=8)], RunState.DEGRADED, id="six never opened"),
    pytest.param(
        [stream(0, world_size=8, opened_us=ago(30)), stream(1, world_size=8, opened_us=ago(30))],
        RunState.RUNNING,
        id="six are still starting",
    ),
    pytest.param(
        [replace(DONE, world_size=3, opened_us=ago(30)), stream(0, opened_us=ago(30), last_word=closed())],
        RunState.RUNNING,
        id="two done before the third opened",
    ),
    pytest.param(
        [stream(0, heard_us=SILENT), stream(0, stream="s0b", attempt=2)], RunState.RUNNING, id="the next attempt lives"
    ),
    pytest.param(
        [stream(0), stream(0, stream="s0b", attempt=2, last_word=closed(1))], RunState.FAILED, id="the newest decides"
    ),
    pytest.param(
        [stream(0, heard_us=SILENT), stream(0, stream="s0b", opened_us=START + 1)], RunState.RUNNING, id="reopened"
    ),
]


@pytest.mark.parametrize(("streams", "state"), OF_SEVERAL)
def test_several_processes(streams: list[StreamFacts], state: RunState) -> None:
    assert run_state(RunFacts(streams, NOW), NOW).state is state


def test_no_rank_yet() -> None:
    assert run_state(RunFacts((), ago(1)), NOW).state is RunState.RUNNING
    assert run_state(RunFacts((), SILENT), NOW).state is RunState.CRASHED


def test_the_first_to_fail_is_named() -> None:
    streams = [stream(0, last_word=closed(1, at=5)), stream(1, last_word=closed(7, "exception", at=9))]
    verdict = run_state(RunFacts(streams, NOW), NOW)
    assert verdict.reason == "rank 1 exit code 7 (exception)"
    assert verdict.exit_code == 7
    assert verdict.finished_us == ago(5)


@pytest.mark.parametrize(
    "lost",
    [
        stream(heard_us=SILENT),
        stream(finding=ended()),
        stream(stepped_us=ago(STALLED_SECONDS + 1)),
    ],
)
def test_back_to_running_by_itself(lost: StreamFacts) -> None:
    assert run_state(RunFacts([lost], 0), NOW).state is not RunState.RUNNING
    heard = replace(lost, heard_us=ago(0), stepped_us=ago(0), mark=2000)
    assert run_state(RunFacts([heard], 0), NOW).state is RunState.RUNNING
