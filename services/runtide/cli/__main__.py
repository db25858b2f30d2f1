"""`python -m runtide.cli` is the command `runtide`."""

from __future__ import annotations

import sys

from runtide.cli import main

if __name__ == "__main__":
    sys.exit(main())
