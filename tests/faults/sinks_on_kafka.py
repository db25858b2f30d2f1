"""Sinks as processes over a Kafka, and a load published straight onto the bus: what faults of the group need, no more.

Eight runs, two on each partition, so that every partition has something to say at any time.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from aiokafka.partitioner import murmur2
from runtide.bus import message_key
from runtide.bus.kafka import KafkaPublisher, KafkaSettings
from runtide.cli.ports import free_port
from runtide.testing.embedded import EmbeddedClickHouse
from runtide.testing.streams import MadeStream
from runtide.testing.waiting import until
from runtide.warehouse.client import Client
from runtide.warehouse.verify import Verification, verify_run

PARTITIONS = 4
STEPS = 5
"""Of each run in each range."""
PACE_S = 0.1


@dataclass
class SinkProcess:
    """`runtide sink`, started by its command."""

    process: subprocess.Popen[bytes]
    log: Path
    metrics_port: int

    @property
    def partitions(self) -> list[int]:
        """What it was assigned last."""
        found = re.findall(r"partitions_assigned partitions=\[(.*)\]", self.log.read_text())
        return [int(number) for number in found[-1].split(",") if number] if found else []

    @property
    def records(self) -> int:
        """What it says that it has stored."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as page:
            text = page.read().decode()
        found = re.search(r"^runtide_sink_records_total (\S+)$", text, re.MULTILINE)
        assert found, text
        return int(float(found[1]))

    @property
    def is_frozen(self) -> bool:
        """Whether it was stopped as by SIGSTOP."""
        return bool(psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED)

    def wake(self) -> None:
        """Let it go on."""
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.terminate()
        return self.process.wait(20)


@dataclass
class Sinks:
    """A group of sinks, and the load that they share."""

    bootstrap: str
    server: EmbeddedClickHouse
    client: Client
    folder: Path
    session_s: float = 6.0
    started: list[SinkProcess] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prefix = f"test-{secrets.token_hex(4)}"
        self.load = Load(self.settings)

    @property
    def settings(self) -> KafkaSettings:
        """How everybody speaks to the broker."""
        return KafkaSettings(self.bootstrap, self.prefix, PARTITIONS, group=self.prefix)

    def start(self, **variables: str) -> SinkProcess:
        """One more member of the group."""
        port, log = free_port(), self.folder / f"sink{len(self.started)}.log"
        told = {
            "RUNTIDE_KAFKA_BOOTSTRAP": self.bootstrap,
            "RUNTIDE_KAFKA_TOPIC_PREFIX": self.prefix,
            "RUNTIDE_KAFKA_PARTITIONS": str(PARTITIONS),
            "RUNTIDE_KAFKA_GROUP": self.prefix,
            "RUNTIDE_KAFKA_SESSION_TIMEOUT_S": str(self.session_s),
            "RUNTIDE_CLICKHOUSE_PORT": str(self.server.port),
            "RUNTIDE_CLICKHOUSE_USERNAME": "writer",
            "RUNTIDE_CLICKHOUSE_PASSWORD": self.server.password,
            "RUNTIDE_SINK_METRICS_PORT": str(port),
        }
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "runtide.cli", "sink"],
                env=os.environ | told | variables,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.started.append(SinkProcess(process, log, port))
        return self.started[-1]

    def wait_shared(self, *members: SinkProcess) -> None:
        """Wait until these, and nobody else, have the partitions."""
        until(
            lambda: (
                all(shares := [each.partitions for each in members])
                and sorted(itertools.chain(*shares)) == [*range(PARTITIONS)]
            ),
            40,
            f"{len(members)} sinks share the partitions\n{self.logs()}",
        )

    def steps(self) -> dict[str, int]:
        """The last step that is stored of each run; -1 before its first."""
        sql = "SELECT run_id, max(step) FROM runtide.points WHERE run_id IN {runs:Array(String)} GROUP BY run_id"
        found = dict(self.client.query(sql, parameters={"runs": self.load.runs}).result_rows)
        return {run: found.get(run, -1) for run in self.load.runs}

    def wait_later(self, steps: dict[str, int], more: int = STEPS, seconds: float = 45) -> None:
        """Wait until every run has come further than this."""
        until(
            lambda: all(step >= steps[run] + more for run, step in self.steps().items()),
            seconds,
            f"every run goes on\n{self.logs()}",
        )

    def stop_merges(self) -> None:
        """A merge would take copies away before they are counted."""
        self.client.command("SYSTEM STOP MERGES runtide.points")
        self.client.command("SYSTEM STOP MERGES runtide.events")

    def check(self) -> None:
        """End the load; everything is stored, once, in the base tables and without FINAL."""
        self.load.end()
        until(lambda: set(self.steps().values()) == {self.load.step - 1}, 45, f"all steps\n{self.logs()}")
        for table, row in (("points", "(stream, offset, metric)"), ("events", "(stream, offset)")):
            sql = f"SELECT count(), uniqExact{row} FROM runtide.{table} WHERE run_id IN {{runs:Array(String)}}"
            ((count, distinct),) = self.client.query(sql, parameters={"runs": self.load.runs}).result_rows
            assert count == distinct > 0, table
        until(lambda: all(each.declared_records for each in self._verified()), 20, "all last words")
        found = self._verified()
        assert [problem for each in found for problem in each.problems] == []
        assert sum(each.stored_points for each in found) == 2 * self.load.step * len(found)

    def _verified(self) -> list[Verification]:
        return [verify_run(self.client, "p", run) for run in self.load.runs]

    def logs(self) -> str:
        """The ends of all logs."""
        return "\n".join(f"== {each.log.name}\n{each.log.read_text()[-1500:]}" for each in self.started)

    def end(self) -> None:
        """Stop everything, whatever state it is in."""
        self.load.end()
        for each in self.started:
            each.process.kill()
            each.process.wait()


class Load:
    """A thread that publishes what eight runs say, range by range, until it is told to end."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self.step = 0
        self.streams = [
            MadeStream(f"s{partition}{name}", run_id=run_on(partition, f"{settings.topic_prefix}-{partition}{name}"))
            for partition in range(PARTITIONS)
            for name in "ab"
        ]
        self.runs = [stream.run_id for stream in self.streams]
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._publish()), name="load")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Say the last words of all runs, and return when the bus has them."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(30)

    async def _publish(self) -> None:
        publisher = KafkaPublisher(self._settings)
        for stream in self.streams:
            stream.open().key_set(1, "loss", "acc")
        sent = dict.fromkeys(self.runs, 0)
        last = False
        while not last:
            due, last = time.monotonic() + PACE_S, self._ending.is_set()
            for stream in self.streams:
                stream.steps(1, range(self.step, self.step + STEPS))
                if last:
                    stream.close()
            self.step += STEPS
            messages = [stream.message(stream.range(sent[stream.run_id])) for stream in self.streams]
            await asyncio.gather(*(publisher.publish(message) for message in messages))
            sent = {stream.run_id: len(stream.body) for stream in self.streams}
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await publisher.close()


def run_on(partition: int, name: str) -> str:
    """A run's id that Kafka's partitioner puts on a partition."""
    return next(
        run
        for run in (f"{name}-{number}" for number in itertools.count())
        if (murmur2(message_key("p", run, 0)) & 0x7FFFFFFF) % PARTITIONS == partition
    )
