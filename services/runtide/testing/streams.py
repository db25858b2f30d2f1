"""Streams made up for tests: every kind of record, cut into ranges at any record edges."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from runtide.bus import Message, message_key
from runtide.v1 import records_pb2 as v1
from runtide.v1.ingest_pb2 import Range
from runtide.wire.framing import StepEncoder, elements, seal

NOW_US = 1_790_000_000_000_000
"""A fixed moment in 2026."""


def element(**said: object) -> bytes:
    """One record as it stands in a stream."""
    return seal(v1.Record(**said).SerializeToString())  # type: ignore[arg-type]


@dataclass
class MadeStream:
    """A stream in memory, and how to cut it."""

    stream: str
    project: str = "p"
    run_id: str = "r"
    rank: int = 0
    attempt: int = 1
    host: str = "h"
    role: v1.Role = v1.ROLE_RANK
    body: bytearray = field(default_factory=bytearray)
    names: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def open(self) -> MadeStream:
        """Its first record."""
        return self.add(
            stream_opened=v1.StreamOpened(
                time_us=NOW_US,
                role=self.role,
                run_id=self.run_id,
                launch_id="launch",
                attempt=self.attempt,
                world_size=8,
            )
        )

    def add(self, **said: object) -> MadeStream:
        """Any record."""
        return self.add_bytes(element(**said))

    def add_bytes(self, raw: bytes) -> MadeStream:
        """Bytes as they are."""
        self.body += raw
        return self

    def key_set(self, number: int, *names: str) -> MadeStream:
        """Define metric names."""
        self.names[number] = names
        return self.add(key_set=v1.KeySet(id=number, names=names))

    def step(self, number: int, step: int, *values: float) -> MadeStream:
        """One step of a key set."""
        return self.add_bytes(StepEncoder(number, len(values)).encode(step, NOW_US + step, values))

    def steps(self, number: int, steps: Sequence[int]) -> MadeStream:
        """Steps with made-up values."""
        encoder = StepEncoder(number, len(self.names[number]))
        for step in steps:
            values = [step + place / 10 for place in range(len(self.names[number]))]
            self.add_bytes(encoder.encode(step, NOW_US + step, values))
        return self

    def close(self) -> MadeStream:
        """Its last record, which declares what came before."""
        records = sum(1 for _ in elements(bytes(self.body)))
        return self.add(
            stream_closed=v1.StreamClosed(time_us=NOW_US, reason="finish", records=records, points=self.points)
        )

    @property
    def points(self) -> int:
        """Points of all steps."""
        found = (v1.Record.FromString(bytes(self.body[at.record : at.end])) for at in elements(bytes(self.body)))
        return sum(len(record.step.values) for record in found)

    @property
    def edges(self) -> list[int]:
        """Offsets at which records begin, and the end."""
        return [at.start for at in elements(bytes(self.body))] + [len(self.body)]

    def range(self, start: int = 0, end: int | None = None) -> Range:
        """The bytes [start, end) as they would be shipped."""
        return Range(
            stream=self.stream,
            offset=start,
            run_id=self.run_id,
            rank=self.rank,
            attempt=self.attempt,
            host=self.host,
            role=self.role,
            key_sets=[v1.KeySet(id=number, names=names) for number, names in self.names.items()],
            body=bytes(self.body[start:end]),
        )

    def gap(self, start: int, end: int, records: int = 1) -> Range:
        """The word that [start, end) will never come."""
        found = self.range(start, start)
        found.gap.CopyFrom(v1.Gap(time_us=NOW_US, reason="refused", records=records, length=end - start))
        return found

    def cut(self, dice: random.Random, pieces: int) -> list[Range]:
        """The whole stream, in about this many ranges."""
        edges = self.edges
        chosen = sorted({edges[0], edges[-1], *dice.sample(edges, min(pieces, len(edges)))})
        return [self.range(start, end) for start, end in itertools.pairwise(chosen)]

    def message(self, range_: Range, received_us: int = NOW_US) -> Message:
        """A range on the bus."""
        key = message_key(self.project, self.run_id, self.rank)
        return Message(self.project, key, range_.SerializeToString(), received_us)


def varied_stream(stream: str, steps: int = 40, **who: object) -> MadeStream:
    """A stream with every kind of record that has a table of its own, and some others."""
    made = MadeStream(stream, **who).open().key_set(1, "loss", "acc").key_set(2, "lr")  # type: ignore[arg-type]
    for step in range(steps):
        made.steps(1, [step])
        if step % 3 == 0:
            made.steps(2, [step])
        if step % 5 == 0:
            host, device = v1.Reading(name="cpu_percent", value=1.5), v1.Reading(device="gpu0", name="watts", value=9)
            made.add(sample=v1.Sample(time_us=NOW_US + step, rank=-1, readings=[host, device]))
        if step % 4 == 1:
            made.add(log_line=v1.LogLine(time_us=NOW_US + step, console=v1.CONSOLE_STDOUT, line=f"line {step}"))
        if step % 20 == 7:
            made.add(figure=v1.Figure(time_us=NOW_US, name="cm", kind="confusion_matrix", step=step, json="{}"))
        if step % 11 == 5:
            made.add_bytes(seal(v1.Record(step=v1.Step(key_set=99, step=step, values=[1])).SerializeToString()))
    return made.close()
