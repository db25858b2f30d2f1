"""The agent's own words about a run: one stream per run and destination, in the same spool, shipped like any other."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil

from runtide.spool.layout import StreamInfo
from runtide.spool.writer import SpoolWriter, Worth, new_stream_id, opened
from runtide.v1.records_pb2 import ROLE_AGENT, Heartbeat, Reading, Record, Sample, StreamClosed, StreamEnded

log = logging.getLogger(__name__)

HEARTBEAT_STREAMS = 4000
"""Stream ids in one Heartbeat, which is a record and has its limit."""

BUDGET_BYTES = 64 << 20
"""Disk that the agent's own words may take while no gateway is there; then they are dropped and counted."""


class OwnStream:
    """What the agent says to one run. A disk that is full drops records here and disturbs nothing else."""

    def __init__(self, host_folder: Path, info: StreamInfo) -> None:
        """Open it beside `info`, one of the streams that it speaks about. Raises OSError."""
        process = psutil.Process()
        self.info = replace(
            info,
            stream=new_stream_id(),
            rank=-1,
            host=info.host or socket.gethostname(),
            role=ROLE_AGENT,
            pid=process.pid,
            started=process.create_time(),
            parent_reports=False,
        )
        self._writer = SpoolWriter.create(host_folder, self.info, budget_bytes=BUDGET_BYTES)
        self._dropping = False
        self._say(Record(stream_opened=opened(self.info)))

    def heartbeat(self, streams: Iterable[str]) -> None:
        """Say which streams' processes live."""
        for some in _chunks(list(streams)):
            self._say(Record(heartbeat=Heartbeat(time_us=now_us(), streams=some)))

    def sample(self, time_us: int, readings: list[Reading], rank: int = -1) -> None:
        """Say what was read at an instant of the sampling grid."""
        if readings:
            self._say(Record(sample=Sample(time_us=time_us, readings=readings, rank=rank)))

    def ended(self, ended: StreamEnded) -> bool:
        """Say how a stream ended."""
        ended.time_us = now_us()
        return self._say(Record(stream_ended=ended), Worth.LAST)

    def say(self, records: Iterable[Record]) -> bool:
        """Say what was collected; False where the disk did not take all of it."""
        return not [record for record in records if not self._say(record)]

    def close(self) -> None:
        """Say the last word."""
        if self._writer.closed:
            return
        self._writer.settle()
        closed = StreamClosed(
            time_us=now_us(), reason="finish", records=self._writer.records, points=self._writer.points
        )
        self._say(Record(stream_closed=closed), Worth.LAST)
        self._writer.close()

    def _say(self, record: Record, worth: Worth = Worth.DATA) -> bool:
        said = self._writer.append_record(record, worth)
        if said == self._dropping:
            self._dropping = not said
            log.warning("stream=%s own records %s", self.info.stream, "kept again" if said else self._writer.error)
        return said


def _chunks(streams: list[str]) -> Iterator[list[str]]:
    """Lists that fit into a record each; one, and be it empty, at least."""
    for start in range(0, max(1, len(streams)), HEARTBEAT_STREAMS):
        yield streams[start : start + HEARTBEAT_STREAMS]


def now_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000
