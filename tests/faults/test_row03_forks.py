"""Forked children: each has a stream of its own or none, nothing hangs and nothing is written over."""

from __future__ import annotations

import pytest
from runtide.v1 import records_pb2 as wire

pytestmark = pytest.mark.fault(3)


def test_forked_children_have_streams_of_their_own(job):
    job.run("""
import os, runtide
run = runtide.init("p")
run.log({"parent": 1})
run.log({"lost": 1}, commit=False)
children = []
for n in range(3):
    pid = os.fork()
    if pid == 0:
        if n < 2:
            run.log({"child": n}); run.log({"child": n})
        os._exit(0)
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)
run.log({"parent": 2})
""")
    streams = job.streams()
    ranks = [stream for stream in streams if stream.info.role == wire.ROLE_RANK]
    children = [stream for stream in streams if stream.info.role == wire.ROLE_CHILD]
    assert len(ranks) == 1
    assert ranks[0].steps() == [(0, {"parent": 1}), (1, {"lost": 1, "parent": 2})]
    assert sorted(stream.steps()[0][1]["child"] for stream in children) == [0, 1]
    assert all(stream.info.pid != ranks[0].info.pid for stream in children)
    assert {stream.info.run_id for stream in streams} == {ranks[0].info.run_id}
    assert ranks[0].records[-1].HasField("stream_closed")
    assert not any(stream.said("stream_closed") for stream in children)


def test_a_pool_forked_while_threads_log_neither_hangs_nor_corrupts(job):
    job.run("""
import multiprocessing, threading, runtide
run = runtide.init("p")
stop = threading.Event()
def chatter(n):
    while not stop.is_set():
        run.log({f"thread{n}": 1.0})
        print("chatter", n)
threads = [threading.Thread(target=chatter, args=(n,)) for n in range(2)]
[t.start() for t in threads]
def work(n):
    print("working", n)
    if n % 2:
        run.log({"worker": n})
    return n
context = multiprocessing.get_context("fork")
for _ in range(3):
    with context.Pool(4) as pool:
        assert sum(pool.map(work, range(40))) == 780
stop.set()
[t.join() for t in threads]
run.finish()
""")
    streams = job.streams()  # reading checks every crc
    worked = [row["worker"] for stream in streams if stream.info.role == wire.ROLE_CHILD for _, row in stream.steps()]
    assert sorted(worked) == sorted(n for n in range(40) if n % 2 for _ in range(3))


def test_children_count_on_from_their_parent_and_workers_say_a_last_word(job):
    done = job.run("""
import multiprocessing, runtide
run = runtide.init("p")
for _ in range(5):
    run.log({"parent": 1})
def work(n):
    runtide.log({"child": n})
    runtide.log({"child": n})
def fail():
    work(7)
    raise ValueError("no")
context = multiprocessing.get_context("fork")
workers = [context.Process(target=work, args=(n,)) for n in range(3)] + [context.Process(target=fail)]
[worker.start() for worker in workers]
[worker.join() for worker in workers]
pool = context.Pool(2)
pool.map(work, range(10), chunksize=1)
pool.close()
pool.join()
run.log({"parent": 2})
""")
    streams = job.streams()
    children = [stream for stream in streams if stream.info.role == wire.ROLE_CHILD]
    assert {stream.info.rank for stream in streams} == {0}
    assert all([step for step, _ in stream.steps()] == list(range(5, 5 + len(stream.steps()))) for stream in children)
    last = [stream.records[-1].stream_closed for stream in children]
    assert sorted((word.exit_code, word.reason) for word in last) == [(0, "exit")] * (len(last) - 1) + [
        (1, "exception")
    ]
    assert all(word.points == len(stream.steps()) > 0 for word, stream in zip(last, children, strict=True))
    assert done.stderr.count("forked children log without step=") == 1
    (rank,) = [stream for stream in streams if stream.info.role == wire.ROLE_RANK]
    assert rank.steps()[-1] == (5, {"parent": 2})


def test_a_forked_child_that_inits_is_a_run_of_its_own(job):
    job.run("""
import os, runtide
run = runtide.init("p")
pid = os.fork()
if pid == 0:
    mine = runtide.init("p")
    assert mine.id != run.id
    assert (mine.run_id, run.run_id) == (mine.id, run.id)
    mine.log({"a": 1})
    mine.finish()
    os._exit(0)
os.waitpid(pid, 0)
""")
    assert len({stream.info.run_id for stream in job.streams()}) == 2
