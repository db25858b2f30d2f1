"""Jobs as real processes over a spool of their own, and their streams read back from the files."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from runtide.spool import layout
from runtide.spool.layout import StreamInfo
from runtide.v1.records_pb2 import Record
from runtide.wire import framing


@dataclass
class ReadStream:
    """A stream as it lies on the disk."""

    info: StreamInfo
    records: list[Record] = field(default_factory=list)

    @property
    def opened(self) -> Record:
        return self.records[0]

    def said(self, kind: str) -> list[Record]:
        return [record for record in self.records if record.WhichOneof("said") == kind]

    def steps(self) -> list[tuple[int, dict[str, float]]]:
        """Steps with their names, by the key sets that stand before them."""
        names: dict[int, list[str]] = {}
        found = []
        for record in self.records:
            if record.HasField("key_set"):
                names[record.key_set.id] = list(record.key_set.names)
            elif record.HasField("step"):
                step = record.step
                found.append((step.step, dict(zip(names[step.key_set], step.values, strict=True))))
        return found

    def lines(self) -> list[str]:
        return [record.log_line.line for record in self.said("log_line")]

    def entries(self, kind: str = "config_set") -> dict[str, str]:
        return {entry.key: entry.json for record in self.said(kind) for entry in getattr(record, kind).entries}


def read_stream(folder: Path) -> ReadStream:
    found = ReadStream(StreamInfo.read(folder))
    expected = 0
    for offset, path in layout.segments(folder):
        assert offset == expected, "segments lie end to end"
        body = path.read_bytes()
        framing.check(body)
        for element in framing.elements(body):
            found.records.append(Record.FromString(body[element.record : element.end]))
        expected += len(body)
    return found


def read_streams(root: Path) -> list[ReadStream]:
    folders = sorted(path.parent for path in root.glob(f"*/*/{layout.STREAM_FILE}"))
    return [read_stream(folder) for folder in folders]


@dataclass
class Job:
    """Starts scripts that log."""

    root: Path
    env: dict[str, str]

    def run(self, script: str, env: dict[str, str] | None = None, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script],
            env={**self.env, **(env or {})},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        return done

    def start(self, script: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", script],
            env={**self.env, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def streams(self) -> list[ReadStream]:
        return read_streams(self.root)

    def stream(self) -> ReadStream:
        (found,) = self.streams()
        return found


def clean_env() -> dict[str, str]:
    prefixes = ("RUNTIDE_", "SLURM_", "OMPI_", "PMI_", "TORCHELASTIC_")
    names = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes) and name not in names}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """An offline job: nothing but its spool is touched, and nothing is collected beside it."""
    env = clean_env() | {
        "RUNTIDE_DIR": str(tmp_path / "spool"),
        "RUNTIDE_HOME": str(tmp_path / "home"),
        "RUNTIDE_MODE": "offline",
        "RUNTIDE_CAPTURE": "0",
        "XDG_RUNTIME_DIR": str(tmp_path),
    }
    return Job(tmp_path / "spool", env)
