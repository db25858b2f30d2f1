"""What the parts of a run need of it to say something."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from runtide.v1.records_pb2 import Record


class Speaker(ABC):
    """A run, as its parts see it."""

    _disabled: bool

    @abstractmethod
    def _guard(self, do: Callable[..., object], *arguments: object) -> None:
        """Do it, and let no error of it into the job."""

    @abstractmethod
    def _say(self, record: Record) -> None:
        """Keep a record in the stream."""

    @abstractmethod
    def _last_step(self) -> int:
        """The step of the last log()."""
