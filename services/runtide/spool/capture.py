"""What a job leaves in its stream's folder for the agent: where its code lies, and what only the job can know.

The agent collects the rest beside the job, which must not wait for git, and removes the file when it is said.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CAPTURE_FILE = "capture.json"


@dataclass(frozen=True, slots=True)
class CaptureTask:
    """capture.json."""

    time_us: int
    folder: str
    """Where the running script lies."""
    search: tuple[str, ...] = ()
    """The job's sys.path, made absolute: where its packages are."""
    leave_out: tuple[str, ...] = ()
    """Folders of which nothing is taken: the spool holds tokens."""
    entry: str = ""
    """Digest of the script or notebook."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the job knows of its environment, as it will stand in Environment.json."""
    by_job: bool = False
    """The job has started a collector of its own, since it has no agent on this host."""

    def text(self) -> str:
        """As it is written."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def read(cls, folder: Path) -> CaptureTask | None:
        """Read the task that lies in a stream's folder; None where there is none. Raises ValueError and TypeError."""
        try:
            text = (folder / CAPTURE_FILE).read_text()
        except FileNotFoundError:
            return None
        return cls.parsed(text)

    @classmethod
    def parsed(cls, text: str) -> CaptureTask:
        """What `text` made. Raises ValueError and TypeError."""
        found = json.loads(text)
        known = {each.name for each in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in found.items() if name in known})
