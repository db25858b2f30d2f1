"""Row 7 of docs/reliability.md: the store stands still while jobs go on, and no part grows beyond its budget.

Four agents have more to send than every queue on the way may hold. What does not fit stays in the spools.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import urllib.request
from pathlib import Path

import psutil
import pytest
from runtide.testing.stack import Stack
from runtide.testing.waiting import until

pytestmark = [pytest.mark.fault(7), pytest.mark.slow]

MIB = 2**20
BUDGET = 4 * MIB
HOSTS = 4
MARKS, MARK_BYTES = 600, 30_000
GROWTH = 64 * MIB
"""How much any part may grow: some copies of what its budget lets in, and what the allocator keeps. All hosts together
have more than that to send, and hold more than twice as much of it at a gateway without a budget."""

JOB = f"""
    import sys, time, runtide
    from pathlib import Path
    run = runtide.init("memory", run_id="stalled")
    run.log({{"said": 0}}, step=0)
    while not Path(sys.argv[1]).exists():
        time.sleep(0.05)
    for mark in range({MARKS}):
        run.mark(f"{{mark:06d}}" + "x" * {MARK_BYTES - 6})
        run.log({{"said": mark}}, step=mark + 1)
    run.finish(timeout=0)
"""


def memory(stack: Stack) -> dict[str, int]:
    """What every process that carries data has in memory now."""
    parts = {f"job {job.pid}": psutil.Process(job.pid) for job in stack.jobs if job.poll() is None}
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if str(stack.home) in words:
            parts |= {f"{name} {process.pid}": process for name in ("cli.ingest", "runtide.agent") if name in words}
    found = {}
    for name, process in parts.items():
        with contextlib.suppress(psutil.NoSuchProcess):
            found[name] = process.memory_info().rss
    return found


def spooled(home: Path) -> int:
    return sum(path.stat().st_size for path in home.glob("host*/*/*/*.seg"))


def sent_away(stack: Stack) -> bool:
    """Whether a gateway's budget has been met."""
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.state.ports.metrics}/metrics", timeout=10) as page:
        text = page.read().decode()
    found = re.findall(
        r'^runtide_gateway_limited_total\{limit="(?:project_in_flight_bytes|bus)"\} (\S+)$', text, re.MULTILINE
    )
    return any(float(times) > 0 for times in found)


def test_a_store_that_stands_still_fills_no_memory(stack: Stack) -> None:
    limits = {"in_flight_bytes": 2 * BUDGET, "project_in_flight_bytes": BUDGET}
    stack.told = {"RUNTIDE_GATEWAY_LIMITS": json.dumps(limits), "RUNTIDE_BUS_BYTES": str(BUDGET)}
    stack.up("--no-dashboard")
    go = stack.home / "go"
    for host in range(HOSTS):
        ranks = {"RANK": str(host), "LOCAL_RANK": "0", "WORLD_SIZE": str(HOSTS)}
        stack.job(JOB, str(go), RUNTIDE_DIR=str(stack.home / f"host{host}"), **ranks)
    until(lambda: stored(stack, "points") == HOSTS, 30, "all have begun")
    before = memory(stack)
    most = dict(before)
    assert len(before) == 2 * HOSTS + 1
    store = psutil.Process(stack.state.parts["clickhouse"].pid)
    store.send_signal(signal.SIGSTOP)
    try:
        go.touch()

        def full() -> bool:
            now = memory(stack)
            most.update({name: max(size, most.get(name, 0)) for name, size in now.items()})
            return spooled(stack.home) >= HOSTS * MARKS * MARK_BYTES and sent_away(stack)

        until(full, 25, "the jobs have said everything, and what is over a budget was sent away")
    finally:
        store.send_signal(signal.SIGCONT)
    until(lambda: stored(stack, "events", "kind = 'mark'") == HOSTS * MARKS, 40, "all marks are in")
    until(lambda: stored(stack, "points") == HOSTS * (MARKS + 1), 20, "all points are in")
    growth = {name: (size - before[name]) / MIB for name, size in most.items() if name in before}
    assert {name: size for name, size in growth.items() if size > GROWTH / MIB} == {}
    code, _ = stack.verify("stalled")
    assert code == 0


def stored(stack: Stack, table: str, which: str = "1") -> int:
    return int(stack.sql(f"SELECT count() FROM {table} WHERE run_id = 'stalled' AND {which}")[0][0])
