"""Stopping what `runtide up` has started, from another process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from runtide.cli.home import Home, UpState

DOWN_S = 20.0
"""How long `down` waits before it kills."""


def stop(home: Home, say: Callable[[str], None]) -> bool:
    """Stop what runs in this home and say so; True where something ran."""
    state = home.read()
    if state is None or not (state.alive or any(part.alive for part in state.parts.values())):
        home_note = "nothing runs" if home.folder.is_dir() else "no such home, nothing runs"
        say(f"{home_note} in {home.folder}")
        return False
    began = time.monotonic()
    if state.alive:
        os.kill(state.pid, signal.SIGTERM)
    while _alive(state) and time.monotonic() - began < DOWN_S:
        time.sleep(0.05)
    for name in (killed := _alive(state)):
        pid = state.pid if name == "up" else state.parts[name].pid
        os.kill(pid, signal.SIGKILL)
    home.forget()
    note = f", {', '.join(killed)} had to be killed" if killed else ""
    say(f"runtide is down after {time.monotonic() - began:.1f} s{note}")
    return True


def _alive(state: UpState) -> list[str]:
    names = [name for name, part in state.parts.items() if part.alive]
    return [*names, "up"] if state.alive else names
