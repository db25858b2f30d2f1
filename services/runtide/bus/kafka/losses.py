"""What a sink wants and the topic no longer has: named, and gone past only when a person has accepted exactly that.

A loss is known by the offset that was wanted, so what was accepted once never covers another one, however often the
log's start moves on meanwhile and however long the word stays in a unit file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runtide.wire.errors import BadInput

Place = tuple[str, int]
"""Topic and partition."""


@dataclass(frozen=True, slots=True)
class Loss:
    """The sink's group wants `wanted` of a partition that has [first, end)."""

    topic: str
    partition: int
    wanted: int
    first: int
    end: int

    @property
    def name(self) -> str:
        """How it is accepted."""
        return f"{self.topic}:{self.partition}:{self.wanted}"

    def __str__(self) -> str:
        where = f"topic {self.topic} partition {self.partition}"
        if self.wanted < self.first:
            what = (
                f"the sink wants offset {self.wanted}, but the first one there is {self.first}: "
                f"{self.first - self.wanted} messages were deleted (retention) before they were stored"
            )
        else:
            what = (
                f"the sink wants offset {self.wanted}, but the topic has [{self.first}, {self.end}): "
                "it was made anew, or its brokers lost messages"
            )
        return (
            f"{where}: {what}. Nothing of this partition is stored until the loss is accepted: restart all sinks with "
            f"--accept-loss {self.name} (RUNTIDE_SINK_ACCEPT_LOSS); runtide verify shows what is missing then"
        )


def read_accepted(words: Iterable[str]) -> Mapping[Place, int]:
    """Offsets that are given up, by topic and partition. Raises BadInput for what is no TOPIC:PARTITION:OFFSET."""
    found: dict[Place, int] = {}
    for word in words:
        topic, partition, offset = ["", "", *word.strip().rsplit(":", 2)][-3:]
        if not (topic and partition.isdecimal() and offset.isdecimal()):
            raise BadInput("--accept-loss", repr(word), "it is TOPIC:PARTITION:OFFSET, as the sink's error names it")
        found[topic, int(partition)] = int(offset)
    return found
