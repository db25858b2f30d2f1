"""A whole `runtide up` on free ports in a folder of its own, and jobs that log to it: real processes over loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import clickhouse_connect
import psutil

from runtide.cli.demo import agent_ended
from runtide.cli.home import Home, UpState
from runtide.testing.waiting import until


@dataclass
class Stack:
    """`runtide up --detach` in a folder."""

    home: Path
    jobs: list[subprocess.Popen[str]] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)
    """Variables that everything is started with beside the usual ones."""

    def runtide(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command as a person would."""
        return subprocess.run(
            [sys.executable, "-m", "runtide.cli", *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def up(self, *flags: str) -> None:
        """Start it on free ports and return when every part answers."""
        ports = [word for name in ("gateway", "clickhouse", "metrics", "dashboard") for word in (f"--{name}-port", "0")]
        found = self.runtide("up", "--detach", *ports, *flags)
        assert found.returncode == 0, found.stdout + found.stderr

    @property
    def state(self) -> UpState:
        """What `up` says of itself."""
        found = Home(self.home).read()
        assert found is not None
        return found

    def environment(self) -> dict[str, str]:
        """What jobs and commands of this stack are started with."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RUNTIDE_")}
        told = {
            "RUNTIDE_HOME": str(self.home),
            "RUNTIDE_SILENT": "1",
            "RUNTIDE_SAMPLE_SECONDS": "1",
            "RUNTIDE_ON_DUPLICATE": "ignore",
        }
        if (state := Home(self.home).read()) is not None:
            told["RUNTIDE_URL"] = f"grpc://127.0.0.1:{state.ports.gateway}"
        return clean | told | self.told

    def job(self, code: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start a training job; it is ended with the test at the latest."""
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), *arguments],
            env=self.environment() | variables,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.jobs.append(process)
        return process

    def run_job(self, code: str, *arguments: str, **variables: str) -> str:
        """Run a job to its end and return what it printed."""
        process = self.job(code, *arguments, **variables)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        return said

    def sql(self, query: str) -> list[Any]:
        """Rows of a query, as the read-only user."""
        return self._ask("default", "", query)

    def change(self, query: str) -> None:
        """Run a statement as the writer."""
        self._ask("writer", (self.home / "secret").read_text(), query)

    def _ask(self, user: str, password: str, query: str) -> list[Any]:
        client = clickhouse_connect.get_client(
            host="127.0.0.1",
            port=self.state.ports.clickhouse,
            username=user,
            password=password,
            database="runtide",
            autogenerate_session_id=False,
        )
        try:
            return list(client.query(query).result_rows) if user == "default" else [client.command(query)]
        finally:
            client.close()

    def verify(self, run: str) -> tuple[int, dict[str, Any]]:
        """Exit code and findings of `runtide verify`."""
        found = self.runtide("verify", run, "--json")
        assert found.stdout, found.stderr
        return found.returncode, json.loads(found.stdout)

    def wait_state(self, run: str, state: str, seconds: float = 30) -> None:
        """Wait until a run is in a state."""
        until(
            lambda: self.sql(f"SELECT 1 FROM runs WHERE run_id = '{run}' AND state = '{state}'"),
            seconds,
            f"run {run} is {state}",
        )

    def wait_agent(self, seconds: float = 30) -> None:
        """Wait until the agent has shipped everything and ended."""
        until(lambda: agent_ended(self.home / "spool"), seconds, "the agent ended")

    def end(self) -> None:
        """Stop everything, whatever state it is in."""
        for process in self.jobs:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self.runtide("down")
        for left in left_of(self.home):
            left.send_signal(signal.SIGKILL)


def left_of(home: Path) -> list[psutil.Process]:
    """Processes that have the home in their command line or environment."""
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            words = " ".join(process.cmdline()) + process.environ().get("RUNTIDE_HOME", "")
        except psutil.Error:
            continue
        if str(home) in words:
            found.append(process)
    return found
