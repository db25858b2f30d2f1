"""Rows 4 and 21 of docs/reliability.md: disks that are full, on real ones of some MiB."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from runtide.testing.disks import can_mount, fill, make_room, small_disk
from runtide.testing.stack import Stack
from runtide.testing.waiting import until


@pytest.fixture(autouse=True)
def small_disks(require: Callable[[object, str], None]) -> None:
    require(can_mount(), "only root on Linux may mount a small disk")


FILLS_THE_SPOOL = """
    import json, sys, time, runtide
    from pathlib import Path
    run = runtide.init("disks", run_id="spool")
    values = {f"m{k}": 0.0 for k in range(100)}
    step = 0
    slowest = 0.0
    def log():
        global step, slowest
        began = time.monotonic()
        run.log(values, step=step)
        slowest = max(slowest, time.monotonic() - began)
        step += 1
    while not run.stats().dropped.records:
        for _ in range(200):
            log()
    for _ in range(500):
        log()
    Path(sys.argv[1]).touch()
    while not Path(sys.argv[2]).exists():
        time.sleep(0.05)
    for _ in range(500):
        log()
    run.finish(timeout=0)
    dropped = run.stats().dropped
    print(json.dumps([step, dropped.records, dropped.points, slowest]))
"""

RANDOM = """
    import random, time, runtide
    run = runtide.init("disks", run_id="store")
    for step in range(1500):
        run.log({f"m{k}": random.random() for k in range(20)}, step=step)
        time.sleep(0.002)
    run.finish(timeout=0)
"""


@pytest.mark.fault(4)
def test_a_full_spool_drops_and_declares_exactly_what_it_dropped(stack: Stack, tmp_path: Path) -> None:
    stack.up("--no-dashboard")
    full, room = tmp_path / "full", tmp_path / "room"
    with small_disk(tmp_path / "spool", 40) as disk:
        job = stack.job(FILLS_THE_SPOOL, str(full), str(room), RUNTIDE_DIR=str(disk), RUNTIDE_AGENT="external")
        until(full.exists, 60, "the spool is full")
        assert shutil.disk_usage(disk).free < 1 << 20
        synced = stack.runtide("sync", str(disk))
        assert synced.returncode == 0, synced.stdout + synced.stderr
        assert shutil.disk_usage(disk).free > 16 << 20  # what has arrived is deleted
        room.touch()
        assert job.wait(60) == 0
        assert job.stdout is not None
        steps, records, points, slowest = json.loads(job.stdout.readline())
        assert stack.runtide("sync", str(disk)).returncode == 0
    stack.wait_state("spool", "finished", 30)
    code, found = stack.verify("spool")
    assert code == 0, found["problems"]
    assert found["gaps"] == records > 0
    assert found["stored_points"] == 100 * steps - points
    assert stack.sql("SELECT max(step) FROM metrics WHERE run_id = 'spool'") == [(steps - 1,)]
    assert slowest < 5  # a shared machine; it waits for the disk only


@pytest.mark.fault(21)
def test_a_store_whose_disk_is_full_goes_on_when_there_is_room(stack: Stack) -> None:
    with small_disk(stack.home / "clickhouse", 64) as disk:
        stack.up("--no-dashboard")
        until(lambda: stack.sql("SELECT count() FROM points") == [(0,)], 20, "the tables are there")
        fill(disk, 0.2)
        job = stack.job(RANDOM)
        until(
            lambda: "store busy" in (stack.home / "logs" / "ingest.log").read_text(), 60, "the sink says that it waits"
        )
        assert job.wait(60) == 0
        before = {name: (part.pid, part.restarts) for name, part in stack.state.parts.items()}
        time.sleep(1.0)
        make_room(disk)
        stack.wait_state("store", "finished", 90)
        stack.wait_agent(60)
        code, found = stack.verify("store")
        assert code == 0, found["problems"]
        assert found["stored_points"] == 30_000
        assert found["gaps"] == 0
        assert {name: (part.pid, part.restarts) for name, part in stack.state.parts.items()} == before
        stack.runtide("down")
