"""`python -m runtide.embedded --home DIR --port N`: the embedded ClickHouse alone."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from runtide.embedded.engine import HomeInUse
from runtide.embedded.server import EmbeddedServer, PortTaken


def main(argv: list[str]) -> int:
    """Serve until told to stop; 1 with a message when it cannot start."""
    parser = argparse.ArgumentParser(
        prog="python -m runtide.embedded", description="ClickHouse's HTTP interface over chDB"
    )
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("RUNTIDE_HOME", "~/.runtide")).expanduser())
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; loopback unless you say so")
    parser.add_argument("--port", type=int, default=8123, help="port to listen on")
    parser.add_argument(
        "--allow-host", action="append", default=[], help="a further name that clients may call this server by"
    )
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        EmbeddedServer(options.home, options.host, options.port, allowed_hosts=tuple(options.allow_host)).run()
    except (HomeInUse, PortTaken) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
