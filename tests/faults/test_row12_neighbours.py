"""Row 12 of docs/reliability.md: one project floods and is sent away by its own limit, another one is served."""

from __future__ import annotations

import json
import re
import urllib.request

import pytest
from runtide.spool.layout import POSITION_FILE
from runtide.testing.stack import Stack
from runtide.testing.waiting import until

pytestmark = [pytest.mark.fault(12), pytest.mark.slow]

LIMIT = 20_000
METRICS = 10
FLOOD = f"""
    import sys, time, runtide
    from pathlib import Path
    run = runtide.init("loud", run_id="flood")
    began, step = time.monotonic(), 0
    while not Path(sys.argv[1]).exists():
        for _ in range(100):
            run.log({{f"m{{k}}": step + k for k in range({METRICS})}}, step=step)
            step += 1
        time.sleep(max(0.0, began + step * {METRICS} / {LIMIT} - time.monotonic()))
    print(step)
    run.finish(timeout=0)
"""
"""One of these alone is at the limit of its project; two are twice over it."""
QUIET = """
    import runtide
    run = runtide.init("quiet", run_id="modest")
    for step in range(500):
        run.log({"loss": 1 / (step + 1)}, step=step)
    run.finish(timeout=0)
"""


def limited(stack: Stack) -> float:
    """How often the limit has sent a Push away."""
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.state.ports.metrics}/metrics", timeout=10) as page:
        text = page.read().decode()
    found = re.search(r'^runtide_gateway_limited_total\{limit="project_points_per_s"\} (\S+)$', text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def told(stack: Stack) -> str:
    """What the agent of the flood was told last."""
    positions = (stack.home / "loud").glob(f"*/*/{POSITION_FILE}")
    return next((error for path in positions if (error := json.loads(path.read_text()).get("error", ""))), "")


def stored(stack: Stack, project: str) -> int:
    return int(stack.sql(f"SELECT count() FROM points WHERE project = '{project}'")[0][0])


def test_a_flood_is_sent_away_and_its_neighbour_is_served(stack: Stack) -> None:
    stack.told = {"RUNTIDE_GATEWAY_LIMITS": json.dumps({"project_points_per_s": LIMIT, "burst_s": 1})}
    stack.up("--no-dashboard")
    over = stack.home / "over"
    for rank in range(2):
        ranks = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        stack.job(FLOOD, str(over), RUNTIDE_DIR=str(stack.home / "loud"), **ranks)
    floods = list(stack.jobs)
    until(lambda: limited(stack) > 0, 30, "the flood meets its limit")
    error = until(lambda: told(stack), 10, "its agent says why it waits")
    for word in ("RESOURCE_EXHAUSTED", "project_points_per_s", "'loud'", str(LIMIT), "nothing is lost"):
        assert word in error

    sent_away = limited(stack)
    stack.run_job(QUIET)
    until(lambda: stored(stack, "quiet") == 500, 20, "all of the modest project is in")
    until(lambda: limited(stack) > sent_away, 10, "the flood is sent away all the while")

    over.touch()
    logged = METRICS * sum(int(job.communicate(timeout=20)[0]) for job in floods)
    until(lambda: stored(stack, "loud") == logged, 60, "all of the flood is in at last")
    code, _ = stack.verify("flood")
    assert code == 0
