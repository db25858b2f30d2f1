"""Kafka mode on this machine: every part a process of its own, started by its command and its variables."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from runtide.bus.kafka import KafkaSettings
from runtide.cli.home import Home, Ports, UpState
from runtide.cli.ports import free_port
from runtide.cli.supervisor import answers
from runtide.testing.stack import Stack
from runtide.testing.waiting import until


@dataclass
class KafkaStack(Stack):
    """Two gateways, two sinks, two processors, and the embedded ClickHouse in the place of a server."""

    bootstrap: str = ""
    parts: dict[str, list[subprocess.Popen[bytes]]] = field(default_factory=dict)
    gateways: list[int] = field(default_factory=list)

    def settings(self) -> KafkaSettings:
        """How the parts speak to the broker."""
        return KafkaSettings(bootstrap=self.bootstrap, topic_prefix=self.prefix, partitions=4)

    def __post_init__(self) -> None:
        self.prefix = f"test-{secrets.token_hex(4)}"
        self.clickhouse_port = free_port()
        self._told: dict[int, tuple[str, tuple[str, ...], dict[str, str]]] = {}

    @property
    def state(self) -> UpState:
        """Where the parts listen."""
        return UpState(0, 0.0, "", Ports(self.gateways[0] if self.gateways else 0, 0, self.clickhouse_port, None))

    def environment(self) -> dict[str, str]:
        """What parts, jobs and commands are started with."""
        found = super().environment() | {
            "RUNTIDE_KAFKA_BOOTSTRAP": self.bootstrap,
            "RUNTIDE_KAFKA_TOPIC_PREFIX": self.prefix,
            "RUNTIDE_KAFKA_PARTITIONS": "4",
            "RUNTIDE_CLICKHOUSE_PORT": str(self.clickhouse_port),
        }
        if self.gateways:
            found["RUNTIDE_URL"] = f"grpc://127.0.0.1:{self.gateways[0]}"
        return found

    def writer(self) -> dict[str, str]:
        """The store's writer, for the parts that write."""
        password = (self.home / "secret").read_text()
        return {"RUNTIDE_CLICKHOUSE_USERNAME": "writer", "RUNTIDE_CLICKHOUSE_PASSWORD": password}

    def start(self, name: str, *arguments: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start a part by its command."""
        process = self._run(name, arguments, variables)
        self.parts.setdefault(name, []).append(process)
        return process

    def again(self, name: str, number: int = 0) -> subprocess.Popen[bytes]:
        """Start a part that has ended again, as it was, in its place."""
        process = self._run(*self._told[self.parts[name][number].pid])
        self.parts[name][number] = process
        return process

    def _run(self, name: str, arguments: tuple[str, ...], variables: dict[str, str]) -> subprocess.Popen[bytes]:
        log = Home(self.home).open_log(name)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "runtide.cli", name, *arguments],
                env=self.environment() | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)
        self._told[process.pid] = name, arguments, variables
        return process

    def start_store(self) -> None:
        """ClickHouse, with its tables."""
        self.start("clickhouse", "--home", str(self.home), "--port", str(self.clickhouse_port))
        until(lambda: answers(f"http://127.0.0.1:{self.clickhouse_port}/ping"), 60, "ClickHouse")
        found = subprocess.run(
            [sys.executable, "-m", "runtide.cli", "migrate"],
            env=self.environment() | self.writer(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert found.returncode == 0, found.stderr

    def start_gateway(self, port: int | None = None) -> subprocess.Popen[bytes]:
        """One more gateway, or one again on a port that it had."""
        chosen, metrics = port or free_port(), free_port()
        process = self.start(
            "gateway", RUNTIDE_GATEWAY_PORT=str(chosen), RUNTIDE_GATEWAY_METRICS_PORT=str(metrics), **self.writer()
        )
        until(lambda: answers(f"http://127.0.0.1:{metrics}/healthz"), 60, "a gateway")
        if chosen not in self.gateways:
            self.gateways.append(chosen)
        return process

    def start_all(self) -> None:
        """Everything of deploy/compose.yaml but the dashboard."""
        self.start_store()
        for _ in range(2):
            self.start_gateway()
            self.start("sink", **self.writer())
            self.start("processor", RUNTIDE_PROCESSOR_PORT=str(free_port()), **self.writer())

    def logs(self) -> str:
        """The ends of all logs, for a failure's message."""
        found = [f"== {path.name}\n{path.read_text()[-2000:]}" for path in sorted((self.home / "logs").glob("*.log"))]
        return "\n".join(found)

    def end(self) -> None:
        """Stop everything, whatever state it is in."""
        running = [process for name in reversed(self.parts) for process in self.parts[name]]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        super().end()


def home_of(folder: Path) -> Path:
    """A home that exists already, since logs go there first."""
    made = Home(folder / "home")
    made.make()
    return made.folder
