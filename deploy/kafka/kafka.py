#!/usr/bin/env python3
"""A real Apache Kafka on this machine, without Docker: fetched by Maven, run by Java, one node in KRaft mode.

    kafka.py start [--data DIR] [--port N]     fetch if needed, start, return when it answers
    kafka.py stop [--data DIR]                 end it, in order
    kafka.py fetch                             only fetch

It listens on 127.0.0.1 only, has a heap of at most 512 MB, and keeps all it has in the data folder. The version stands
in pom.xml. Needs Java 17, Maven and Python; nothing of runtide.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

HERE = Path(__file__).resolve().parent
READY_S = 60.0
STOP_S = 20.0
HEAP = "512M"

PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller_port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}/log
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=4
"""


class Failed(Exception):
    """What the operator has to know."""


def version() -> str:
    """Return the version of Kafka, which stands in pom.xml."""
    found = re.search(r"<kafka\.version>([^<]+)</kafka\.version>", (HERE / "pom.xml").read_text())
    if found is None:
        raise Failed("pom.xml names no kafka.version")
    return found[1]


def fetch() -> Path:
    """Return the folder of Kafka's jars, fetching them once for each version."""
    folder = HERE / "target" / f"kafka-{version()}"
    complete = folder / ".complete"
    if not complete.exists():
        command = [_program("mvn"), "-q", "-B", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies"]
        if subprocess.run(command, check=False).returncode:
            raise Failed("Maven could not fetch Kafka; its words are above")
        complete.touch()
    return folder


def start(data: Path, port: int) -> int:
    """Start a broker and return its process id once it answers."""
    if (running := _running(data)) is not None:
        raise Failed(f"it runs already as process {running}; stop it first: kafka.py stop --data {data}")
    if _answers(port):
        raise Failed(f"port {port} is taken; choose another with --port")
    java = [_program("java"), f"-Xmx{HEAP}", "-Xms128M", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError"]
    java += [f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}", "-cp", f"{fetch()}/*"]
    data.mkdir(parents=True, exist_ok=True)
    config = data / "server.properties"
    config.write_text(PROPERTIES.format(port=port, controller_port=_free_port(), data=data))
    _format(java, data, config)
    with (data / "kafka.log").open("ab") as log:
        broker = subprocess.Popen(
            [*java, "kafka.Kafka", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    (data / "kafka.pid").write_text(str(broker.pid))
    deadline = time.monotonic() + READY_S
    while not _answers(port):
        if broker.poll() is not None:
            raise Failed(f"it ended with {broker.returncode} before it answered; see {data / 'kafka.log'}")
        if time.monotonic() > deadline:
            stop(data)
            raise Failed(f"it did not answer within {READY_S:g} s; see {data / 'kafka.log'}")
        time.sleep(0.1)
    return broker.pid


def stop(data: Path) -> None:
    """End the broker of a data folder, in order if it can; nothing happens where none runs."""
    pid = _running(data)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        while _running(data) is not None and time.monotonic() < deadline:
            time.sleep(0.1)
        if _running(data) is not None:
            os.kill(pid, signal.SIGKILL)
    (data / "kafka.pid").unlink(missing_ok=True)


def _format(java: list[str], data: Path, config: Path) -> None:
    """Give a new data folder its identity."""
    if (data / "log" / "meta.properties").exists():
        return
    cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A", 1)
    done = subprocess.run(
        [*java, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Failed(f"the data folder could not be formatted:\n{done.stdout}{done.stderr}")


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise Failed(f"{name} is needed and is not in PATH")
    return path


def _running(data: Path) -> int | None:
    """Return the process id of the folder's broker if it lives: the id alone might be another process's by now."""
    try:
        pid = int((data / "kafka.pid").read_text())
    except (OSError, ValueError):
        return None
    shown = subprocess.run(["ps", "-o", "stat=,args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    ours = f"kafka.Kafka {data / 'server.properties'}" in shown.stdout and not shown.stdout.startswith("Z")
    return pid if ours else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    """Ask for the versions of Kafka's protocol: a broker that answers is ready."""
    question = struct.pack(">hhih", 18, 0, 1, -1)  # ApiVersions 0, correlation 1, no client id
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(struct.pack(">i", len(question)) + question)
            return len(connection.recv(8)) > 0
    except OSError:
        return False


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="A real Apache Kafka on this machine, by Maven and Java.")
    parser.add_argument("command", choices=("start", "stop", "fetch"))
    parser.add_argument("--data", type=Path, default=HERE / "data", help="data folder (deploy/kafka/data)")
    parser.add_argument("--port", type=int, default=9092, help="port on 127.0.0.1 (9092)")
    told = parser.parse_args()
    data = told.data.absolute()
    try:
        if told.command == "start":
            begun = time.monotonic()
            pid = start(data, told.port)
            took = time.monotonic() - begun
            print(f"Kafka {version()} at 127.0.0.1:{told.port}, process {pid}, ready after {took:.1f} s")
        elif told.command == "stop":
            stop(data)
        else:
            print(fetch())
    except Failed as error:
        print(f"kafka.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
