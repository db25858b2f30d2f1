"""Sees to it that the host has an agent for as long as a run is open, though somebody kills it.

A thread of its own that sleeps: log() knows nothing of it. It asks the agent every few seconds whether it is there, and
starts another where none answers, less and less often where that does not help. It does not live on in forked children;
the parent's serves them too, since an agent serves all of a spool.
"""

from __future__ import annotations

import threading

from runtide.sdk.agent_link import AgentLink

EVERY_SECONDS = 3.0
SELDOM_SECONDS = 60.0


class Keeper:
    """Looks after the agent of one spool root."""

    def __init__(self, link: AgentLink) -> None:
        self._link = link
        self._over = threading.Event()

    def start(self) -> None:
        """Look every few seconds from now on."""
        threading.Thread(target=self._keep, name="runtide-keeper", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()

    def _keep(self) -> None:
        pause = EVERY_SECONDS
        while not self._over.wait(pause):
            pause = EVERY_SECONDS if self._link.ensure() else min(pause * 2, SELDOM_SECONDS)
