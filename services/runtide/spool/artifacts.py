"""What a job leaves in its stream's folder for the agent to upload: a copy of the file, and what it is.

artifacts/N/data        the copy: a file, or a folder of files
artifacts/N/task.json   written last: from then on the agent takes it up
artifacts/N/sent.json   how far the agent is, and why nothing moves, if so
artifacts/N/done.json   in place of all of them: what it was stored as, or why it never will be
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtide.spool.layout import replace_file

ARTIFACTS_DIR = "artifacts"
DATA = "data"
_TASK, _SENT, _DONE = "task.json", "sent.json", "done.json"


@dataclass(frozen=True, slots=True)
class ArtifactTask:
    """task.json."""

    name: str
    kind: str
    time_us: int
    path: str
    """The file's own name, without folders."""
    size: int
    aliases: tuple[str, ...] = ()
    step: int | None = None
    metric: str = ""
    value: float | None = None
    goal: str = ""
    """min or max: which values of the metric are better."""
    metadata: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write it for good. Raises OSError."""
        replace_file(folder / _TASK, json.dumps(dataclasses.asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> ArtifactTask | None:
        """The task of a folder; None where it is done, or not ready. Raises OSError, ValueError and TypeError."""
        try:
            found = json.loads((folder / _TASK).read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        known = {each.name for each in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in found.items() if name in known})


@dataclass(frozen=True, slots=True)
class Sent:
    """sent.json: how far the agent is."""

    sent: int = 0
    error: str = ""

    def write(self, folder: Path) -> None:
        """Replace it. Raises OSError."""
        replace_file(folder / _SENT, json.dumps(dataclasses.asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Sent:
        """Read it; a missing or torn one is the beginning."""
        try:
            found = json.loads((folder / _SENT).read_text())
            return cls(int(found["sent"]), str(found["error"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls()


@dataclass(frozen=True, slots=True)
class Done:
    """done.json: what has become of it."""

    digest: str = ""
    error: str = ""
    """Why it never will be stored; empty when it is."""

    def write(self, folder: Path) -> None:
        """Write it in place of the task. Raises OSError."""
        replace_file(folder / _DONE, json.dumps(dataclasses.asdict(self)))
        for name in (_TASK, _SENT):
            (folder / name).unlink(missing_ok=True)

    @classmethod
    def read(cls, folder: Path) -> Done | None:
        """Read it; None while there is none. A folder that has gone with its stream was stored."""
        try:
            found = json.loads((folder / _DONE).read_text())
            return cls(str(found["digest"]), str(found["error"]))
        except FileNotFoundError:
            return None if folder.exists() else cls()
        except (OSError, ValueError, KeyError, TypeError):
            return None


def named(folder: Path) -> str:
    """By what the job's word that something was logged and the agent's that it is stored belong together."""
    return f"{folder.parent.parent.name}/{folder.name}"


def task_folders(stream_folder: Path) -> list[Path]:
    """The folders of a stream's artifacts, in the order in which they were logged. Raises OSError."""
    try:
        found = [path for path in (stream_folder / ARTIFACTS_DIR).iterdir() if path.name.isdigit()]
    except FileNotFoundError:
        return []
    return sorted(found, key=lambda path: int(path.name))
