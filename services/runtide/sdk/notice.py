"""Short lines to the person at the terminal, and the rule for what goes wrong: said once, never raised into the job."""

from __future__ import annotations

import os
import sys

_OFF = frozenset({"", "0", "false", "no", "off"})


def switched_on(name: str, default: bool = False) -> bool:
    """Read a yes-or-no environment variable."""
    told = os.environ.get(name)
    return default if told is None else told.strip().lower() not in _OFF


def strict() -> bool:
    """Whether RUNTIDE_STRICT asks for exceptions where there would be a warning."""
    return switched_on("RUNTIDE_STRICT")


def say(text: str) -> None:
    """Print one line to stderr, unless RUNTIDE_SILENT is set. A closed stderr is nobody's problem."""
    stderr = sys.stderr
    if stderr is None or switched_on("RUNTIDE_SILENT"):
        return
    try:
        stderr.write(f"runtide: {text}\n")
        stderr.flush()
    except (OSError, ValueError):
        return


class Once:
    """Says each thing once."""

    MAX_SUBJECTS = 1000

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, subject: str, text: str) -> None:
        """Say `text` the first time that `subject` comes up."""
        if subject in self._said or len(self._said) >= self.MAX_SUBJECTS:
            return
        self._said.add(subject)
        say(text)
