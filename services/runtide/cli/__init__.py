"""The command line: composition of all the rooms happens here.

`agent`, `sync` and `run` go straight to their rooms, so that the base installation has them; every other command needs
an extra, and says which one where it is missing.
"""

from __future__ import annotations

import importlib
import sys

from runtide.cli.extras import check_extra
from runtide.wire.errors import RuntideError

__all__ = ["main"]

BASE_COMMANDS = {"agent": "runtide.agent.main", "sync": "runtide.agent.sync", "run": "runtide.agent.parent"}
"""Commands of the base installation, and the module whose `main(argv) -> int` runs each."""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    command = arguments[0] if arguments else ""
    try:
        if command in BASE_COMMANDS:
            return int(importlib.import_module(BASE_COMMANDS[command]).main(arguments[1:]))
        check_extra(command)
        return int(importlib.import_module("runtide.cli.app").run(arguments))
    except RuntideError as error:
        print(f"runtide: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
