"""`python -m runtide.cli.child PARENT MODULE [ARGS]`: run a module that ends when its parent does.

A supervisor that was killed cannot stop its children, so each of them looks after itself: the kernel signals it on
Linux, a thread that watches the parent's pid does everywhere.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1
GRACE_S = 10.0
"""How long an orphan may take to stop by itself."""


def command(module: str, *arguments: str) -> list[str]:
    """The command line that runs `module` as a child of this process."""
    return [sys.executable, "-m", "runtide.cli.child", str(os.getpid()), module, *arguments]


def end_with_parent(parent: int) -> None:
    """Have SIGTERM come when the process `parent` ends, and SIGKILL `GRACE_S` later."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    threading.Thread(target=_watch, args=(parent,), name="watch-parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run the module named on the command line as `python -m` would."""
    end_with_parent(int(sys.argv[1]))
    module = sys.argv[2]
    sys.argv = sys.argv[2:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
