"""Row 7 of docs/reliability.md: the store stands still while jobs go on, and no part grows beyond its budget.

Four agents have more to send than every queue on the way may hold. What does not fit stays in the spools.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request

import psutil
import pytest
from runtide.testing.stack import Stack
from runtide.testing.waiting import until

pytestmark = [pytest.mark.fault(7), pytest.mark.slow]

MIB = 2**20
BUDGET = MIB
OF_PROJECT = BUDGET // 2
"""Less than the first Pushes of four agents, of one stream each."""
HOSTS = 4
MARKS, MARK_BYTES = 400, 30_000
"""The bytes of one host are more than its agent may have under way."""
GROWTH = 160 * MIB
"""How much gateway, sink and processor may grow: copies of what the budgets let in, and what the allocator keeps.
Measured: 124 MiB; 211 MiB with budgets that are a hundred times larger."""
AGENT, JOB_PROCESS = 128 * MIB, 96 * MIB
"""What an agent and a job may have in all."""

JOB = f"""
    import sys, time, runtide
    from pathlib import Path
    run = runtide.init("memory", run_id="stalled")
    for mark in range({MARKS}):
        run.mark(f"{{mark:06d}}" + "x" * {MARK_BYTES - 6})
        run.log({{"said": mark}}, step=mark)
    while not Path(sys.argv[1]).exists():
        time.sleep(0.05)
    run.finish(timeout=0)
"""


def memory(process: psutil.Process) -> int:
    return int(process.memory_info().rss)


def sent_away(stack: Stack) -> float:
    """How many Pushes a budget has sent away."""
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.state.ports.metrics}/metrics", timeout=10) as page:
        text = page.read().decode()
    found = re.search(r'^runtide_gateway_limited_total\{limit="project_in_flight_bytes"\} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def stored(stack: Stack, table: str, which: str) -> int:
    return int(stack.sql(f"SELECT count() FROM {table} WHERE run_id = 'stalled' AND {which}")[0][0])


def start_agent(stack: Stack, host: int) -> psutil.Process:
    command = [sys.executable, "-m", "runtide.agent", "--root", str(stack.home / f"host{host}")]
    agent = subprocess.Popen(command, env=stack.environment(), text=True, stderr=subprocess.DEVNULL)
    stack.jobs.append(agent)
    return psutil.Process(agent.pid)


def test_a_store_that_stands_still_fills_no_memory(stack: Stack) -> None:
    limits = {"in_flight_bytes": BUDGET, "project_in_flight_bytes": OF_PROJECT}
    stack.told = {"RUNTIDE_GATEWAY_LIMITS": json.dumps(limits), "RUNTIDE_BUS_BYTES": str(BUDGET)}
    stack.up("--no-dashboard")
    stack.run_job("import runtide; run = runtide.init('memory', run_id='warm'); run.log({'a': 1}); run.finish()")
    ingest, store = (psutil.Process(stack.state.parts[name].pid) for name in ("ingest", "clickhouse"))
    before = memory(ingest)
    end = stack.home / "end"
    for host in range(HOSTS):
        ranks = {"RANK": str(host), "LOCAL_RANK": "0", "WORLD_SIZE": str(HOSTS)}
        stack.job(JOB, str(end), RUNTIDE_DIR=str(stack.home / f"host{host}"), RUNTIDE_AGENT="external", **ranks)
    jobs = [psutil.Process(job.pid) for job in stack.jobs[-HOSTS:]]

    def spooled() -> int:
        return sum(path.stat().st_size for path in stack.home.glob("host*/*/*/*.seg"))

    until(lambda: spooled() >= HOSTS * MARKS * MARK_BYTES, 30, "the jobs have said everything")
    most = {"job": max(map(memory, jobs))}
    end.touch()
    store.send_signal(signal.SIGSTOP)
    try:
        agents = [start_agent(stack, host) for host in range(HOSTS)]

        def tried() -> bool:
            most["ingest"] = max(most.get("ingest", 0), memory(ingest))
            most["agent"] = max(most.get("agent", 0), *map(memory, agents))
            return sent_away(stack) >= 2

        until(tried, 30, "the room under way is full, and what does not fit is sent away")
    finally:
        store.send_signal(signal.SIGCONT)

    def all_in() -> bool:
        most["ingest"] = max(most["ingest"], memory(ingest))
        return stored(stack, "events", "kind = 'mark'") + stored(stack, "points", "1") == 2 * HOSTS * MARKS

    until(all_in, 40, "everything is in")
    grown = most["ingest"] - before
    shown = {name: size // MIB for name, size in most.items()} | {"ingest before": before // MIB}
    assert (grown < GROWTH, most["agent"] < AGENT, most["job"] < JOB_PROCESS) == (True, True, True), shown
    stack.wait_state("stalled", "finished")
    assert stack.verify("stalled")[0] == 0
