"""Waiting for what was said to arrive, as long as there is hope and time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum

from runtide.sdk.agent_link import START_SECONDS, AgentLink, Preflight
from runtide.sdk.settings import Settings
from runtide.sdk.stats import position_of
from runtide.sdk.stream import Stream

_POLL_SECONDS = 0.02
_ASK_AGAIN_SECONDS = 30.0
_SIDECAR_SECONDS = 1.0
_PING_SECONDS = 0.3


class Arrival(Enum):
    """What has become of what was said."""

    ARRIVED = "arrived"
    UNDER_WAY = "under way"
    """The agent sends it; there was no time to wait for the end."""
    AWAY = "away"
    """No gateway is to be reached."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """The way from this process's spool to the gateway of its run."""

    link: AgentLink
    settings: Settings
    run_id: str
    launch_id: str

    def acknowledged(self, stream: Stream, timeout_s: float) -> Arrival:
        """Wait until everything is beyond any process death. Returns early where no gateway is to be reached."""
        end, deadline = stream.writer.offset, time.monotonic() + timeout_s
        if position_of(stream.writer).acknowledged >= end:
            return Arrival.ARRIVED
        if timeout_s <= 0:  # then what the agent has met tells
            moves = not position_of(stream.writer).error and self.link.ask({"op": "ping"}, _PING_SECONDS) is not None
            return Arrival.UNDER_WAY if moves else Arrival.AWAY
        if not self._worth_waiting(stream, deadline):
            return Arrival.ARRIVED if position_of(stream.writer).acknowledged >= end else Arrival.AWAY
        while position_of(stream.writer).acknowledged < end:
            if time.monotonic() >= deadline:
                return Arrival.UNDER_WAY
            time.sleep(_POLL_SECONDS)
        return Arrival.ARRIVED

    def stored(self, stream: Stream, timeout_s: float) -> bool:
        """Wait until everything said so far is in ClickHouse."""
        end, deadline, ask_at = stream.writer.offset, time.monotonic() + timeout_s, 0.0
        while position_of(stream.writer).stored < end:
            now = time.monotonic()
            if now >= deadline:
                return False
            if now >= ask_at:
                self.link.ensure()
                answer = self.link.ask({"op": "want_stored", "stream": stream.name}, min(1.0, deadline - now))
                ask_at = now + (_ASK_AGAIN_SECONDS if answer else 0.1)
            time.sleep(_POLL_SECONDS)
        return True

    def preflight(self, run_id: str, launch_id: str, deadline: float) -> Preflight:
        """Ask the gateway what it knows of a run."""
        told = self.settings
        return self.link.preflight(
            project=told.project,
            run_id=run_id,
            launch_id=launch_id,
            url=told.url,
            token=told.token,
            tls={"ca_file": told.ca_file, "cert_file": told.cert_file, "key_file": told.key_file},
            deadline=deadline,
        )

    def _worth_waiting(self, stream: Stream, deadline: float) -> bool:
        self.link.ensure()
        if not self.link.wait(min(deadline, time.monotonic() + START_SECONDS)):
            return self._sidecar_moves(stream, deadline)
        self.link.ask({"op": "flush", "stream": stream.name}, 0.5)
        return self.preflight(self.run_id, self.launch_id, deadline).reachable

    def _sidecar_moves(self, stream: Stream, deadline: float) -> bool:
        """Whether an agent that this process cannot talk to, in another container, ships the stream."""
        deadline = min(deadline, time.monotonic() + _SIDECAR_SECONDS)
        while position_of(stream.writer).acknowledged == 0 and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return position_of(stream.writer).acknowledged > 0
