"""The bus room: one protocol, two implementations.

Gateway, sink and processor meet only here, in `wire` and in `warehouse`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

__all__ = ["SCHEMA", "Consumer", "Lapsed", "Message", "Publisher", "message_key"]

SCHEMA = "1"
"""What a value is that this release understands: a serialized `runtide.v1.Range`."""


@dataclass(frozen=True, slots=True)
class Message:
    """One serialized `Range` on the bus."""

    project: str
    """The tenant, from the token."""
    key: bytes
    """See `message_key`: what has the same key arrives in order."""
    value: bytes
    """A serialized `runtide.v1.Range`."""
    received_us: int
    """The gateway's clock when it took the range in, microseconds since the epoch."""
    ahead_us: int | None = None
    """By how much the sender's clock was ahead of the gateway's then; None where it did not say its time."""
    partition: int = 0
    position: int = 0
    """Where the bus keeps it; set for a consumed message."""
    schema: str = SCHEMA
    """What kind of value it is, as the gateway said that wrote it."""


def message_key(project: str, run_id: str, rank: int) -> bytes:
    """Key of a message: 64 ranks share one, so that a run of any size spreads over partitions."""
    return f"{project}\x00{run_id}\x00{max(rank, 0) // 64}".encode()


class Lapsed(Exception):
    """Whether the partitions are still ours is not known now: the group does not answer, or this process was frozen."""


class Publisher(Protocol):
    """The gateway's side."""

    async def publish(self, message: Message) -> None:
        """Return once the message is stored beyond any process death.

        Kafka: after acks=all. Local: after the rows are in ClickHouse.
        Raises Busy where the bus has no room, Unavailable where it did not answer within its own deadline.
        """

    async def close(self) -> None:
        """Stop; bounded in time, whatever the broker does."""


class Consumer(Protocol):
    """The sink's side: a member of a group, which owns some partitions."""

    async def poll(self, wait_s: float) -> Sequence[Message]:
        """Return what has come, in order per partition; empty after `wait_s` without anything."""

    async def commit(self, messages: Sequence[Message]) -> None:
        """Say that these, and all before them in their partitions, are stored."""

    async def close(self) -> None:
        """Leave the group."""

    @property
    def epoch(self) -> int:
        """Grows whenever partitions were assigned or lost: what was learned of streams before may be stale."""

    def hold(self, epoch: int) -> AbstractContextManager[bool]:
        """Say whether what was polled in an epoch is still ours, and let no partition go while inside.

        Raises Lapsed where that is not known. To be asked anew for every insert; from any thread.
        """

    @property
    def stopped(self) -> Sequence[str]:
        """Partitions of which nothing comes until a person has decided: why, one text each."""
