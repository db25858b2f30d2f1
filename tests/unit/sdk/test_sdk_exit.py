"""Forked children, and every way in which a process can leave."""

from __future__ import annotations

import os
import signal

import pytest


@pytest.mark.parametrize(
    ("ending", "code", "expected"),
    [
        ("", 0, (0, "exit", "")),
        ("raise ValueError('x')", 1, (1, "exception", "")),
        ("sys.exit(3)", 3, (3, "exit", "")),
        ("sys.exit('text')", 1, (1, "exit", "")),
        ("sys.exit()", 0, (0, "exit", "")),
        ("raise KeyboardInterrupt", -signal.SIGINT, (130, "signal", "SIGINT")),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -signal.SIGTERM, (143, "signal", "SIGTERM")),
        ("run.finish(7)", 0, (7, "finish", "")),
    ],
)
def test_how_a_process_left_is_its_last_word(job, ending, code, expected):
    job.run(
        f"""
import os, signal, sys, time, runtide
run = runtide.init("p")
def main():
    run.log({{"a": 1}})
    {ending}
main()
""",
        code=code,
    )
    closed = job.stream().records[-1].stream_closed
    assert (closed.exit_code, closed.reason, closed.signal) == expected
    assert closed.points == 1


def test_an_exit_that_somebody_caught_does_not_count(job):
    job.run("""
import sys, runtide
runtide.init("p")
def inner():
    try:
        sys.exit(3)
    except SystemExit:
        pass
inner()
""")
    assert job.stream().records[-1].stream_closed.exit_code == 0


def test_hooks_and_handlers_that_were_there_are_called(job):
    done = job.run(
        """
import os, signal, sys
sys.excepthook = lambda *args: print("my hook", args[0].__name__)
signal.signal(signal.SIGTERM, lambda number, frame: print("my handler", number))
import runtide
run = runtide.init("p")
os.kill(os.getpid(), signal.SIGTERM)
run.log({"still": 1})
raise ValueError
""",
        code=1,
    )
    assert done.stdout == f"my handler {int(signal.SIGTERM)}\nmy hook ValueError\n"
    stream = job.stream()
    assert stream.records[-1].stream_closed.reason == "exception"
    assert len(stream.steps()) == 1


def test_a_scheduler_that_stops_the_job_has_preempted_it(job):
    job.run(
        "import os, runtide, signal, time; runtide.init('p'); os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)",
        env={"SLURM_JOB_ID": "5"},
        code=-signal.SIGTERM,
    )
    assert job.stream().records[-1].stream_closed.preempted


def test_a_signal_ends_a_process_that_hangs_outside_of_python(job):
    process = job.start("""
import ctypes, runtide
run = runtide.init("p")
run.log({"a": 1})
print("ready", flush=True)
mutex = ctypes.create_string_buffer(128)
libc = ctypes.CDLL(None)
libc.pthread_mutex_lock(mutex)
libc.pthread_mutex_lock(mutex)  # never comes back, as a collective operation that misses a rank
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM
    closed = job.stream().records[-1].stream_closed
    assert (closed.reason, closed.signal) == ("signal", "SIGTERM")


def test_a_signal_to_a_child_is_not_taken_for_one_to_the_parent(job):
    job.run("""
import multiprocessing, signal, time, runtide
run = runtide.init("p")
context = multiprocessing.get_context("fork")
for _ in range(20):
    child = context.Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join(20)
    assert child.exitcode == -15, child.exitcode
assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
run.log({"alive": 1})
""")
    assert job.streams()[0].records[-1].stream_closed.reason == "exit"


def test_an_event_loop_keeps_its_own_signal_handling(job):
    job.run("""
import asyncio, os, signal, runtide
run = runtide.init("p")
async def main():
    seen = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, seen.set)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(seen.wait(), 10)
asyncio.run(main())
run.log({"alive": 1})
""")
    assert job.stream().steps() == [(0, {"alive": 1})]


def test_a_block_that_raises_says_so_and_lets_it_through(job):
    done = job.run(
        """
import runtide
with runtide.init("p") as run:
    run.log({"a": 1})
    raise RuntimeError("boom")
""",
        code=1,
    )
    assert "boom" in done.stderr
    closed = job.stream().records[-1].stream_closed
    assert (closed.exit_code, closed.reason) == (1, "exception")
