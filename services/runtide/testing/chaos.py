"""Chaos: many writers, the whole stack as processes, faults drawn from a seed; then everything has to be there, once.

Two oracles judge, independent of each other: `verify`, which lays what is stored end to end and compares it with what
each stream declared, and the writers themselves, each of which notes in a file of its own how many of its log() calls
have returned. A writer that is killed may have logged one step more than it could note, never one less.

The seed decides which faults come, whom they hit and how long they last. When they hit is up to the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import random
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from clickhouse_connect.driver.exceptions import ClickHouseError

from runtide.bus.kafka import ensure_topics
from runtide.testing.kafka_stack import KafkaStack
from runtide.testing.stack import Stack
from runtide.warehouse.client import ClickHouseSettings, Client, connect
from runtide.warehouse.errors import StoreError
from runtide.warehouse.verify import Verification, verify_run

PROJECT = "chaos"
METRICS = 10
"""Points of each step."""
RANKS = 3
"""Processes of one run."""
RECOVERY_S = 90.0
"""A stack that takes longer than this until rows come again has not recovered."""
DRAIN_S = 240.0
"""How long everything may take into the store after the last fault."""

WRITER = f"""
import os, sys, time, runtide
note = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
steps, pause = int(sys.argv[2]), float(sys.argv[3])
run = runtide.init("{PROJECT}")
for step in range(steps):
    run.log({{f"m{{k}}": step + k / 16 for k in range({METRICS})}}, step=step)
    os.pwrite(note, (step + 1).to_bytes(8, "little"), 0)
    time.sleep(pause)
run.finish(timeout=0)
"""


@dataclass(slots=True)
class Fault:
    """Something that was done to the stack."""

    kind: str
    """kill or freeze."""
    part: str
    for_s: float = 0.0
    """How long a frozen part was left so, or a killed one before it was started again."""
    at_s: float = 0.0
    recovered_s: float = 0.0
    """From the fault until rows came again."""


@dataclass(slots=True)
class Writer:
    """One process that logs, and where it notes what log() returned for."""

    run: str
    rank: int
    steps: int
    note: Path
    process: subprocess.Popen[bytes]
    killed: bool = False

    @property
    def returned(self) -> int:
        """How many calls of log() it knows to have returned."""
        return int.from_bytes(self.note.read_bytes(), "little") if self.note.exists() else 0


@dataclass(slots=True)
class Outcome:
    """What came of it. Clean if every writer's calls are stored, once, and verify agrees."""

    seed: int
    seconds: float = 0.0
    faults: list[Fault] = field(default_factory=list)
    runs: int = 0
    writers: int = 0
    records: int = 0
    points: int = 0
    duplicates: int = 0
    missing: int = 0
    gaps: int = 0
    dead: int = 0
    drained_s: float = 0.0
    """From the last fault until everything was in."""
    problems: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing is lost and nothing is twice."""
        return not self.problems

    @property
    def kills(self) -> int:
        """Processes killed."""
        return sum(fault.kind == "kill" for fault in self.faults)

    @property
    def longest_recovery_s(self) -> float:
        """Of all faults."""
        return max((fault.recovered_s for fault in self.faults), default=0.0)

    def by_fault(self) -> list[dict[str, Any]]:
        """A line for each kind of fault and part: how often, and the longest time until rows came again."""
        lines: dict[tuple[str, str], list[Fault]] = {}
        for fault in self.faults:
            lines.setdefault((fault.kind, fault.part), []).append(fault)
        return [
            {
                "fault": kind,
                "part": part,
                "times": len(same),
                "longest recovery s": round(max(fault.recovered_s for fault in same), 1),
            }
            for (kind, part), same in sorted(lines.items())
        ]

    def told(self) -> str:
        """The outcome in two lines."""
        return (
            f"seed {self.seed}: {len(self.faults)} faults, {self.kills} of them kills, in {self.seconds:.0f} s; "
            f"longest recovery {self.longest_recovery_s:.1f} s; all in {self.drained_s:.1f} s after the last\n"
            f"{self.runs} runs, {self.writers} writers, {self.records} records, {self.points} points; duplicates "
            f"{self.duplicates}, missing ranges {self.missing}, gaps {self.gaps}, dead letters {self.dead}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return dataclasses.asdict(self) | {
            "kills": self.kills,
            "longest_recovery_s": self.longest_recovery_s,
            "clean": self.clean,
        }


class Target(ABC):
    """A stack that can be hurt: which parts it has, and how they come back."""

    store_port: int

    def __init__(self, stack: Stack) -> None:
        self.stack = stack

    @abstractmethod
    def start(self) -> None:
        """Start everything."""

    @abstractmethod
    def parts(self) -> list[str]:
        """Names of the parts that faults may hit."""

    @abstractmethod
    def pid(self, part: str) -> int:
        """The process that a part is now."""

    @abstractmethod
    def bring_back(self, part: str) -> None:
        """After a kill: start it again, where nobody else does."""

    @abstractmethod
    def addresses(self) -> Sequence[str]:
        """Of the gateways."""


class UpTarget(Target):
    """`runtide up`, whose supervisor brings parts back; the supervisor itself is brought back here."""

    def start(self) -> None:
        """Start everything."""
        self.stack.up("--no-dashboard")
        self._ports = self.stack.state.ports
        self.store_port = self._ports.clickhouse

    def parts(self) -> list[str]:
        """Names of the parts that faults may hit."""
        return ["clickhouse", "ingest", "up"]

    def pid(self, part: str) -> int:
        """The process that a part is now."""
        state = self.stack.state
        return state.pid if part == "up" else state.parts[part].pid

    def bring_back(self, part: str) -> None:
        """Start `up` again on the same ports."""
        if part == "up":
            ports = self._ports
            self.stack.up(
                "--no-dashboard",
                *("--gateway-port", str(ports.gateway), "--clickhouse-port", str(ports.clickhouse)),
                *("--metrics-port", str(ports.metrics)),
            )

    def addresses(self) -> Sequence[str]:
        """Of the gateways."""
        return [f"grpc://127.0.0.1:{self._ports.gateway}"]


class KafkaTarget(Target):
    """Two gateways, sinks and processors on a Kafka that is there, and one ClickHouse."""

    stack: KafkaStack

    def start(self) -> None:
        """Start everything."""
        asyncio.run(ensure_topics(self.stack.settings()))
        self.stack.start_all()
        self.store_port = self.stack.clickhouse_port

    def parts(self) -> list[str]:
        """Names of the parts that faults may hit."""
        return ["clickhouse", *(f"{name} {number}" for name in ("gateway", "sink", "processor") for number in (0, 1))]

    def pid(self, part: str) -> int:
        """The process that a part is now."""
        return self._process(part).pid

    def bring_back(self, part: str) -> None:
        """Start a part again, in the place of the one that was killed."""
        name, number = _numbered(part)
        self._process(part).wait()
        self.stack.again(name, number)

    def addresses(self) -> Sequence[str]:
        """Of the gateways."""
        return [f"grpc://127.0.0.1:{port}" for port in self.stack.gateways]

    def _process(self, part: str) -> subprocess.Popen[bytes]:
        name, number = _numbered(part)
        return self.stack.parts[name][number]


def _numbered(part: str) -> tuple[str, int]:
    name, _, number = part.partition(" ")
    return name, int(number or 0)


class Chaos:
    """One run of chaos against one target, which it starts and leaves running."""

    def __init__(self, target: Target, seed: int, say: Callable[[str], None]) -> None:
        self._target, self._seed, self._say = target, seed, say
        self._dice = random.Random(seed)  # noqa: S311  faults, not secrets
        self._writers: list[Writer] = []
        self._notes = target.stack.home.parent / "notes"
        self._client: Client | None = None
        self._began = time.monotonic()

    def run(self, seconds: float, kills: int = 0, writers: int = 2) -> Outcome:
        """Do harm for `seconds`, or until `kills` processes were killed where that is given; then drain and judge.

        `writers` runs of RANKS processes log at any time.
        """
        self._notes.mkdir(parents=True, exist_ok=True)
        logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # that the store is away is the point
        self._target.start()
        self._began = time.monotonic()
        outcome = Outcome(self._seed)
        while outcome.kills < kills if kills else time.monotonic() - self._began < seconds:
            self._keep_writing(writers)
            time.sleep(self._dice.uniform(0.1, 1.5))
            fault = self._draw()
            outcome.faults.append(fault)
            self._inflict(fault)
            self._say(
                f"{fault.at_s:6.1f} s  {fault.kind} {fault.part}"
                + (f" for {fault.for_s:.1f} s" if fault.for_s else "")
                + f", rows again after {fault.recovered_s:.1f} s"
            )
            if fault.recovered_s >= RECOVERY_S:
                outcome.problems.append(f"no rows for {RECOVERY_S:.0f} s after {fault.kind} {fault.part}")
                break
        outcome.seconds = time.monotonic() - self._began
        self._judge(outcome)
        return outcome

    # Writers.

    def _keep_writing(self, runs: int) -> None:
        while sum(writer.process.poll() is None for writer in self._writers) <= (runs - 1) * RANKS:
            self._start_run()

    def _start_run(self) -> None:
        number = len(self._writers) // RANKS
        run = f"chaos-{self._seed}-{number}"
        steps = self._dice.randrange(100, 2000)
        pause = self._dice.choice([0.002, 0.005, 0.02])
        addresses = self._target.addresses()
        for rank in range(RANKS):
            note = self._notes / f"{run}-{rank}"
            variables = {
                "RUNTIDE_URL": addresses[rank % len(addresses)],
                "RUNTIDE_RUN_ID": run,
                "RUNTIDE_CONSOLE": "0",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(RANKS),
            }
            process = subprocess.Popen(
                [sys.executable, "-c", WRITER, str(note), str(steps), str(pause)],
                env=self._target.stack.environment() | variables,
                stdout=subprocess.DEVNULL,
            )
            self._writers.append(Writer(run, rank, steps, note, process))

    # Faults.

    def _draw(self) -> Fault:
        """The next fault. Everything is drawn, whether it is used or not, so that a seed means the same always."""
        part = self._dice.choice([*self._target.parts(), "agent", "writer"])
        freeze = self._dice.random() < 0.25
        short, long = self._dice.uniform(0.0, 2.0), self._dice.choice([1.0, 4.0, 13.0])
        if part in ("writer", "up") or not freeze:
            return Fault("kill", part, short if part.partition(" ")[0] in _STARTED_HERE else 0.0)
        return Fault("freeze", part, long)

    def _inflict(self, fault: Fault) -> None:
        before = self._rows()
        began = time.monotonic()
        fault.at_s = began - self._began
        if fault.part == "writer":
            self._kill_writer()
        elif fault.part == "agent":
            for process in self._agents():
                _signalled(process.pid, signal.SIGKILL if fault.kind == "kill" else signal.SIGSTOP)
                if fault.kind == "freeze":
                    time.sleep(fault.for_s)
                    _signalled(process.pid, signal.SIGCONT)
        else:
            pid = self._target.pid(fault.part)
            _signalled(pid, signal.SIGKILL if fault.kind == "kill" else signal.SIGSTOP)
            time.sleep(fault.for_s)
            if fault.kind == "freeze":
                _signalled(pid, signal.SIGCONT)
            else:
                self._target.bring_back(fault.part)
        while time.monotonic() - began < RECOVERY_S and self._rows() <= before:
            self._keep_writing(1)
            time.sleep(0.05)
        fault.recovered_s = time.monotonic() - began

    def _kill_writer(self) -> None:
        living = [writer for writer in self._writers if writer.process.poll() is None]
        if living:
            writer = living[self._dice.randrange(len(living))]
            writer.killed = True
            _signalled(writer.process.pid, signal.SIGKILL)

    def _agents(self) -> Iterator[psutil.Process]:
        spool = str(self._target.stack.home / "spool")
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if "runtide.agent" in (words := " ".join(process.cmdline())) and spool in words:
                    yield process

    # Judgement.

    def _judge(self, outcome: Outcome) -> None:
        ended = time.monotonic()
        for writer in self._writers:
            writer.process.wait(120)
            if writer.process.returncode != (-signal.SIGKILL if writer.killed else 0):
                outcome.problems.append(f"{writer.run} rank {writer.rank} ended with {writer.process.returncode}")
        runs = sorted({writer.run for writer in self._writers})
        found: dict[str, Verification] = {}
        self._say(f"{len(self._writers)} writers have ended; waiting until everything is in")
        while time.monotonic() - ended < DRAIN_S:
            # what a killed agent left behind is shipped by the next one
            self._target.stack.runtide("sync", str(self._target.stack.home / "spool"), timeout=DRAIN_S)
            found = {run: self._verified(run) for run in runs if run not in found or not found[run].clean}
            if not self._wrong(found, []):
                break
            time.sleep(1.0)
        found = {run: self._verified(run) for run in runs}
        outcome.drained_s = time.monotonic() - ended
        outcome.runs, outcome.writers = len(runs), len(self._writers)
        for verified in found.values():
            outcome.records += verified.stored_records
            outcome.points += verified.stored_points
            outcome.duplicates += verified.duplicates
            outcome.missing += verified.missing_ranges
            outcome.gaps += verified.gaps
            outcome.dead += verified.dead
        self._wrong(found, outcome.problems)

    def _wrong(self, found: dict[str, Verification], problems: list[str]) -> list[str]:
        """What is not as it has to be, by either oracle."""
        for run, verified in found.items():
            problems.extend(f"{run}: {problem}" for problem in verified.problems)
            if verified.gaps or verified.dead:
                problems.append(f"{run}: {verified.gaps} gaps, {verified.dead} dead letters")
        rows = (
            self._ask("SELECT run_id, rank, count(), uniqExact(step, metric) FROM points GROUP BY run_id, rank") or []
        )
        stored = {(run, rank): (count, distinct) for run, rank, count, distinct in rows}
        for writer in self._writers:
            if writer.run not in found:
                continue
            count, distinct = stored.get((writer.run, writer.rank), (0, 0))
            least = writer.returned * METRICS if writer.killed else writer.steps * METRICS
            most = least + METRICS if writer.killed else least
            if count != distinct:
                problems.append(f"{writer.run} rank {writer.rank}: {count} rows, {distinct} of them different")
            if not least <= distinct <= most:
                problems.append(
                    f"{writer.run} rank {writer.rank}: {distinct} points stored, log() returned for {least}"
                )
        return problems

    def _verified(self, run: str) -> Verification:
        return verify_run(self._connected(), PROJECT, run)

    def _rows(self) -> int:
        found = self._ask("SELECT sum(points) FROM ledger FINAL")
        return int(found[0][0]) if found else -1

    def _ask(self, query: str) -> Sequence[Sequence[Any]] | None:
        """Rows, or None while the store is away."""
        try:
            return self._connected().query(query).result_rows
        except (ClickHouseError, StoreError, OSError):
            self._client = None
            return None

    def _connected(self) -> Client:
        if self._client is None:
            self._client = connect(ClickHouseSettings(port=self._target.store_port, answer_timeout_s=5.0))
        return self._client


_STARTED_HERE = frozenset({"clickhouse", "gateway", "sink", "processor", "up"})


def _signalled(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
