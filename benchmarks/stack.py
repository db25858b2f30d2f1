"""Starts the stack that a benchmark measures, and reads the processor time of its parts.

Embedded: `runtide up`. Kafka: a broker that is already there (RUNTIDE_TEST_KAFKA=host:port) and every part as a process
of its own, two gateways, two sinks and two processors as in deploy/compose.yaml.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import clickhouse_connect
import psutil
from runtide.cli.ports import free_port
from runtide.cli.supervisor import answers
from runtide.testing.waiting import until


@dataclass
class Stack:
    """A running stack: where it listens, and the processes of each part."""

    home: Path
    gateways: list[int]
    clickhouse: int
    parts: dict[str, list[psutil.Process]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Address of the first gateway."""
        return f"grpc://127.0.0.1:{self.gateways[0]}"

    def environment(self, gateway: int = 0) -> dict[str, str]:
        """What a job needs to know to speak to this stack and to keep its spool apart."""
        port = self.gateways[gateway % len(self.gateways)]
        return os.environ | {
            "RUNTIDE_URL": f"grpc://127.0.0.1:{port}",
            "RUNTIDE_DIR": str(self.home / "spool"),
            "RUNTIDE_SILENT": "1",
            "RUNTIDE_CONSOLE": "0",
        }

    def client(self) -> clickhouse_connect.driver.Client:
        """A read-only SQL client."""
        return clickhouse_connect.get_client(
            host="127.0.0.1", port=self.clickhouse, database="runtide", autogenerate_session_id=False
        )

    def cpu_seconds(self) -> dict[str, float]:
        """Processor time so far of each part, its children included."""
        spent = {}
        for part, processes in self.parts.items():
            spent[part] = sum(_tree_cpu(process) for process in processes)
        return spent


def _tree_cpu(process: psutil.Process) -> float:
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                total += times.user + times.system
    return total


@contextlib.contextmanager
def embedded() -> Iterator[Stack]:
    """`runtide up` without its dashboard, on free ports, in a temporary home."""
    with tempfile.TemporaryDirectory(prefix="runtide-bench-") as folder:
        home = Path(folder)
        gateway, clickhouse, metrics = free_port(), free_port(), free_port()
        up = [
            *(sys.executable, "-m", "runtide.cli", "up", "--home", folder, "--detach", "--no-dashboard"),
            *("--gateway-port", str(gateway), "--clickhouse-port", str(clickhouse), "--metrics-port", str(metrics)),
        ]
        subprocess.run(up, check=True, stdout=subprocess.DEVNULL)
        stack = Stack(home, [gateway], clickhouse)
        try:
            for process in psutil.process_iter(["cmdline"]):
                command = " ".join(process.info["cmdline"] or [])
                if str(home) not in command:
                    continue
                if "runtide.embedded" in command:
                    stack.parts["clickhouse"] = [process]
                elif "ingest" in command:
                    stack.parts["gateway + sink + processor"] = [process]
            yield stack
        finally:
            subprocess.run(
                [sys.executable, "-m", "runtide.cli", "down", "--home", folder], check=False, stdout=subprocess.DEVNULL
            )


@contextlib.contextmanager
def kafka(bootstrap: str) -> Iterator[Stack]:
    """Two gateways, two sinks and two processors on a Kafka that is there, and the embedded ClickHouse."""
    with tempfile.TemporaryDirectory(prefix="runtide-bench-") as folder, contextlib.ExitStack() as running:
        home = Path(folder)
        stack = Stack(home, [free_port(), free_port()], free_port())

        def start(part: str, *command: str, **variables: str) -> None:
            log = running.enter_context((home / f"{part}.log").open("a"))
            process = subprocess.Popen(
                [sys.executable, "-m", "runtide.cli", *command], env=env | variables, stdout=log, stderr=log
            )
            running.callback(_end, process)
            stack.parts.setdefault(part, []).append(psutil.Process(process.pid))

        env = dict(os.environ)
        start("clickhouse", "clickhouse", "--home", folder, "--port", str(stack.clickhouse))
        until(lambda: answers(f"http://127.0.0.1:{stack.clickhouse}/ping"), 60, "ClickHouse")
        env |= {
            "RUNTIDE_KAFKA_BOOTSTRAP": bootstrap,
            "RUNTIDE_KAFKA_TOPIC_PREFIX": f"bench-{os.getpid()}",
            "RUNTIDE_CLICKHOUSE_PORT": str(stack.clickhouse),
            "RUNTIDE_CLICKHOUSE_USERNAME": "writer",
            "RUNTIDE_CLICKHOUSE_PASSWORD": (home / "secret").read_text().strip(),
        }
        subprocess.run([sys.executable, "-m", "runtide.cli", "migrate"], check=True, env=env, stdout=subprocess.DEVNULL)
        for port in stack.gateways:
            metrics = free_port()
            start("gateway", "gateway", RUNTIDE_GATEWAY_PORT=str(port), RUNTIDE_GATEWAY_METRICS_PORT=str(metrics))
            until(lambda url=f"http://127.0.0.1:{metrics}/healthz": answers(url), 60, "a gateway")
        for _ in range(2):
            start("sink", "sink")
            start("processor", "processor", RUNTIDE_PROCESSOR_PORT=str(free_port()))
        stack.parts["broker"] = _listening_on(int(bootstrap.rpartition(":")[2]))
        yield stack


def _listening_on(port: int) -> list[psutil.Process]:
    """The process of ours that listens there, where the broker is on this machine."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.AccessDenied, psutil.NoSuchProcess):
            if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in process.net_connections()):
                found.append(process)
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def agents(stack: Stack) -> list[psutil.Process]:
    """The agents that serve this stack's spool."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        command = " ".join(process.info["cmdline"] or [])
        if "runtide.agent" in command and str(stack.home) in command:
            found.append(process)
    return found


def report(figures: dict[str, object], as_json: bool) -> None:
    """Print figures as one JSON object, or a line each."""
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:40} {value}")
