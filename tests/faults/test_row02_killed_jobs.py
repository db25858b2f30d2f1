"""What is killed changes nothing in the outcome."""

import os
import signal

import pytest
from runtide.cli.home import PartState
from runtide.testing.stack import Stack
from runtide.testing.waiting import until

LOGGED = """
    import os, signal, sys, runtide
    run = runtide.init("kill")
    print(run.id, flush=True)
    for step in range(int(sys.argv[1])):
        run.log({"a": float(step), "b": -float(step)}, step=step)
    os.kill(os.getpid(), signal.SIGKILL)
"""

RANK = """
    import sys, time, runtide
    steps, pause = int(sys.argv[1]), float(sys.argv[2])
    with runtide.init("ranks") as run:
        for step in range(steps):
            run.log({f"m{k}": step + k / 10 for k in range(10)}, step=step)
            if pause:
                time.sleep(pause)
"""


@pytest.mark.fault(2)
def test_a_job_that_is_killed_has_exactly_what_log_returned_for(stack: Stack) -> None:
    stack.up("--no-dashboard")
    job = stack.job(LOGGED, "777")
    assert job.stdout is not None
    run = job.stdout.readline().strip()
    assert job.wait(60) == -signal.SIGKILL
    stack.wait_state(run, "crashed", 10)
    steps = stack.sql(
        f"SELECT metric, count(), uniqExact(step), max(step) FROM metrics WHERE run_id = '{run}' GROUP BY 1"
    )
    assert sorted(steps) == [("a", 777, 777, 776), ("b", 777, 777, 776)]
    stack.wait_agent()
    assert stack.verify(run)[0] == 0


@pytest.mark.fault(2)
def test_a_run_that_lives_is_never_called_crashed(stack: Stack) -> None:
    stack.up("--no-dashboard")
    job = stack.job(RANK, "80", "0.1")
    seen: set[str] = set()

    def ended() -> bool:
        seen.update(state for (state,) in stack.sql("SELECT state FROM runs"))
        return "finished" in seen

    until(ended, 60, "the run finished")
    assert job.wait(10) == 0
    assert seen == {"running", "finished"}


def eight_ranks(stack: Stack, steps: int, pause: float = 0) -> str:
    """Start eight processes of one run and return its id."""
    run = f"eight-{steps}"
    for rank in range(8):
        stack.job(
            RANK,
            *(str(steps), str(pause)),
            RUNTIDE_RUN_ID=run,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE="8",
        )
    return run


def wait_stored(stack: Stack, run: str) -> None:
    for job in stack.jobs:
        assert job.wait(120) == 0
    stack.wait_state(run, "finished", 90)
    stack.wait_agent(60)


@pytest.mark.fault(2)
@pytest.mark.slow
def test_eight_processes_into_one_run(stack: Stack) -> None:
    stack.up("--no-dashboard")
    run = eight_ranks(stack, 2000)
    wait_stored(stack, run)
    rows = stack.sql(f"SELECT count(), uniqExact(rank, step, metric), sum(value) FROM points WHERE run_id = '{run}'")
    total = 8 * sum(10 * step + 4.5 for step in range(2000))
    assert rows[0][:2] == (160_000, 160_000)
    assert rows[0][2] == pytest.approx(total, rel=1e-12)
    code, found = stack.verify(run)
    assert code == 0, found["problems"]
    assert found["stored_points"] == found["declared_points"] == 160_000
    stats = stack.sql(f"SELECT count(), min(ranks), max(std) FROM step_stats WHERE run_id = '{run}'")
    assert stats == [(20_000, 8, 0.0)]
    stack.change(
        "ALTER TABLE runtide.points DELETE WHERE rank = 3 AND step = 1234 AND metric = 'm7' SETTINGS mutations_sync = 2"
    )
    code, found = stack.verify(run)
    assert code == 1
    assert any("rank 3" in text and "step 1234" in text and "m7" in text for text in found["problems"])


@pytest.mark.fault(18)
@pytest.mark.slow
def test_killing_the_store_and_the_ingest_changes_nothing(stack: Stack) -> None:
    stack.up("--no-dashboard")
    run = eight_ranks(stack, 600, 0.02)

    def part(name: str) -> PartState:
        return stack.state.parts[name]

    def kill(name: str, more_than: int) -> None:
        until(lambda: stack.sql(f"SELECT count() FROM points WHERE run_id = '{run}'")[0][0] > more_than, 60, "rows")
        before = part(name)
        os.kill(before.pid, signal.SIGKILL)
        until(lambda: part(name).restarts > before.restarts and part(name).ready, 60, f"{name} came back")

    kill("clickhouse", 2_000)
    kill("ingest", 10_000)
    wait_stored(stack, run)
    code, found = stack.verify(run)
    assert code == 0, found["problems"]
    assert found["stored_points"] == 48_000
    assert stack.sql(f"SELECT count() FROM metrics WHERE run_id = '{run}'") == [(48_000,)]
    log = (stack.home / "logs" / "up.log").read_text()
    assert "clickhouse was killed by SIGKILL" in log
    assert "ingest was killed by SIGKILL" in log
