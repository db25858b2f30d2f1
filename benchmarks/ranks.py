"""One run of very many ranks: 1,024 on four hosts, ten metrics at 1 Hz, through `runtide up`.

    python benchmarks/ranks.py [--ranks 1024] [--hosts 4] [--seconds 300] [--json]

Each simulated host is a process that writes the streams of its ranks into a spool of its own, so with an agent of its
own. Afterwards every row is counted, step_stats is compared with what was logged, the run is verified, and the
processor time of every part is given as a share of one core.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
from runtide.testing.waiting import until
from stack import Stack, agents, embedded, report

METRICS = 10
RUN = "many-ranks"


def value(rank: int, step: int, metric: int) -> float:
    """What a rank logs; known to the check as well."""
    return rank + step / 16 + metric * 1000


def write_host(host: int, ranks: int, hosts: int, seconds: int, url: str) -> None:
    """Be one host: write its ranks' streams at 1 Hz, then say the last words and wait for the agent."""
    from runtide.sdk.agent_link import AgentLink
    from runtide.spool.layout import StreamInfo, default_root, host_folder
    from runtide.spool.writer import KeySetUse, SpoolWriter, new_stream_id
    from runtide.v1.records_pb2 import ROLE_RANK, Record, StreamClosed, StreamOpened
    from runtide.wire.framing import StepEncoder

    root = default_root()
    process = psutil.Process()
    names = tuple(f"train/m{metric}" for metric in range(METRICS))
    encoder = StepEncoder(1, METRICS)
    writers: dict[SpoolWriter, tuple[int, KeySetUse]] = {}
    for rank in range(host * ranks // hosts, (host + 1) * ranks // hosts):
        info = StreamInfo(
            stream=new_stream_id(),
            project="bench",
            run_id=RUN,
            rank=rank,
            attempt=1,
            host=f"host-{host}",
            role=ROLE_RANK,
            pid=process.pid,
            started=process.create_time(),
            url=url,
            launch_id="bench",
        )
        writer = SpoolWriter.create(host_folder(root), info)
        writers[writer] = rank, KeySetUse.of(1, names)
        opened = StreamOpened(
            time_us=time.time_ns() // 1000,
            role=ROLE_RANK,
            project="bench",
            run_id=RUN,
            host=info.host,
            pid=info.pid,
            rank=rank,
            world_size=ranks,
            launch_id="bench",
            attempt=1,
        )
        writer.append_record(Record(stream_opened=opened))
    AgentLink(root).ensure()
    began = time.monotonic()
    for step in range(seconds):
        now = time.time_ns() // 1000
        for writer, (rank, use) in writers.items():
            writer.append_step(encoder.encode(step, now, [value(rank, step, m) for m in range(METRICS)]), use)
        time.sleep(max(0.0, began + step + 1 - time.monotonic()))
    for writer in writers:
        closed = StreamClosed(
            time_us=time.time_ns() // 1000, reason="finish", records=writer.records, points=writer.points
        )
        writer.append_record(Record(stream_closed=closed))
        writer.close()


def measure(stack: Stack, ranks: int, hosts: int, seconds: int) -> dict[str, object]:
    """Run the hosts and return the figures."""
    client = stack.client()
    before = stack.cpu_seconds()
    began = time.monotonic()
    jobs = []
    for host in range(hosts):
        env = stack.environment() | {"RUNTIDE_DIR": str(stack.home / f"spool-{host}")}
        command = [sys.executable, str(Path(__file__).absolute()), "--be-host", str(host), "--url", stack.url]
        command += ["--ranks", str(ranks), "--hosts", str(hosts), "--seconds", str(seconds)]
        jobs.append(subprocess.Popen(command, env=env))
    shipping: dict[int, float] = {}
    while any(job.poll() is None for job in jobs):
        for agent in agents(stack):
            with contextlib.suppress(psutil.NoSuchProcess):
                spent = agent.cpu_times()
                shipping[agent.pid] = spent.user + spent.system
        time.sleep(1)
    expected = ranks * seconds * METRICS
    ended = time.monotonic()
    where = f"FROM runtide.{{}} WHERE run_id = '{RUN}'"

    def ask(query: str) -> tuple[float, ...]:
        return tuple(client.query(query).first_row)

    until(lambda: ask(f"SELECT count() {where.format('points')}")[0] >= expected, 300, "all rows stored")
    stored = time.monotonic()
    total = f"SELECT sum(ranks), count() {where.format('step_stats')}"
    until(lambda: ask(total) == (expected, seconds * METRICS), 300, "all steps derived")
    derived = time.monotonic()
    spent = {part: now - before[part] for part, now in stack.cpu_seconds().items()}
    lowest, highest = value(0, 0, 0), value(ranks - 1, 0, 0)
    mean, std = (lowest + highest) / 2, math.sqrt((ranks**2 - 1) / 12)
    wrong = ask(
        f"SELECT countIf(abs(mean - ({mean} + step / 16 + m * 1000)) > 1e-6 OR abs(std - {std}) > 1e-6 OR"
        f" min_rank != 0 OR max_rank != {ranks - 1} OR ranks != {ranks})"
        f" FROM (SELECT *, toInt32(substring(metric, 8)) AS m {where.format('step_stats')})"
    )[0]
    verify = subprocess.run(
        [sys.executable, "-m", "runtide.cli", "verify", RUN, "--project", "bench", "--home", str(stack.home)],
        stdout=subprocess.DEVNULL,
        check=False,
    )
    figures: dict[str, object] = {
        "ranks": ranks,
        "points": expected,
        "rows in the base table": ask(f"SELECT count() {where.format('points')}")[0],
        "wrong rows in step_stats": wrong,
        "verify exit code": verify.returncode,
        "seconds from last log to stored": round(stored - ended, 2),
        "seconds from last log to derived": round(derived - ended, 2),
        "core share agents": round(sum(shipping.values()) / (ended - began), 3),
    }
    for part, seconds_spent in spent.items():
        figures[f"core share {part}"] = round(seconds_spent / (derived - began), 3)
    return figures


def main() -> None:
    """Parse the command line, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=1024)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--be-host", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.be_host is not None:
        write_host(arguments.be_host, arguments.ranks, arguments.hosts, arguments.seconds, arguments.url)
        os._exit(0)
    with embedded() as stack:
        report(measure(stack, arguments.ranks, arguments.hosts, arguments.seconds), arguments.json)


if __name__ == "__main__":
    main()
