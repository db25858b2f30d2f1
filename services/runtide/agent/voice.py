"""What the agent itself says, to every run that has streams of this host: heartbeats and resource samples.

Promises: one stream of our own for each run and destination, as long as somebody of this host speaks there; a disk that
would not take one is tried again, and holds nothing else up. Sampling goes to a thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from runtide.agent.own import OwnStream
from runtide.agent.sample import Sampler
from runtide.agent.served import Run, Served
from runtide.spool.layout import StreamInfo
from runtide.v1.records_pb2 import ROLE_AGENT, ROLE_RANK

log = logging.getLogger(__name__)

FAILED_S = 5.0
"""How long a disk that would not take a stream of our own is left alone."""


class Voice:
    """The agent's own streams, by run."""

    def __init__(self, home: Path, served: Served, clock: Callable[[], float]) -> None:
        """Nothing is said yet; `home` is the folder for our own streams."""
        self._home, self._served, self._clock = home, served, clock
        self._own: dict[Run, OwnStream] = {}
        self._open_at = 0.0
        self._sampler: Sampler | None = None

    @property
    def runs(self) -> set[Run]:
        """The runs that are spoken to."""
        return set(self._own)

    def says(self, stream: str) -> bool:
        """Whether a stream is one of our own that is still open."""
        return any(own.info.stream == stream for own in self._own.values())

    def to(self, info: StreamInfo) -> OwnStream | None:
        """Return our own stream of a stream's run, opened where there is none; None while the disk takes none."""
        run = Run.of(info)
        if run not in self._own and self._clock() >= self._open_at:
            try:
                self._own[run] = OwnStream(self._home, info)
            except OSError as error:
                log.warning("run=%s no stream of our own: %s", info.run_id, error)
                self._open_at = self._clock() + FAILED_S
            else:
                self._own[run].heartbeat(self._living(run))
        return self._own.get(run)

    def leave(self, run: Run) -> None:
        """Say the last word to a run."""
        self._own.pop(run).close()

    def close(self) -> None:
        """Say the last word to all."""
        for run in self.runs:
            self.leave(run)

    def _living(self, run: Run) -> list[str]:
        return [
            stream.info.stream
            for stream in self._served
            if stream.info.role != ROLE_AGENT and stream.speaks and Run.of(stream.info) == run
        ]

    async def heartbeats(self, period_s: float) -> float:
        """Say which streams' processes live; returns when to say it again."""
        for run, own in self._own.items():
            own.heartbeat(self._living(run))
        return period_s

    async def samples(self, period_s: float) -> float:
        """Sample on a time grid, so that two agents of a host write the same row."""
        if self._sampler is None:
            self._sampler = await asyncio.to_thread(Sampler)
        now = time.time()  # asked once: a clock that is set in between would make this a long sleep
        tick = (now // period_s + 1) * period_s
        await asyncio.sleep(tick - now)
        if self._own:
            await self._sample(self._sampler, round(tick * 1_000_000))
        return 0.0

    async def _sample(self, sampler: Sampler, time_us: int) -> None:
        ranks = {
            (Run.of(stream.info), stream.info.rank, stream.info.pid)
            for stream in self._served
            if stream.info.role == ROLE_RANK and stream.speaks
        }
        readings = await asyncio.to_thread(sampler.read, {pid for _, _, pid in ranks})
        for own in self._own.values():
            own.sample(time_us, readings.host)
        for run, rank, pid in ranks:
            if run in self._own and pid in readings.trees:
                self._own[run].sample(time_us, readings.trees[pid], rank)
