"""What ran, said by the first process of a run and by no other: rank 0, and none of its forked children.

Promises: whatever goes wrong here is one line to the user and nothing else; what is said once is said again only when
it has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from runtide.sdk import source, values
from runtide.sdk.masking import mask
from runtide.sdk.notebook import Notebook
from runtide.sdk.notice import say
from runtide.sdk.settings import Settings
from runtide.spool.capture import CaptureTask
from runtide.v1.records_pb2 import Record, SourceFile


class WhatRan:
    """The files and the fingerprint that the job itself says, and what the agent is told to collect."""

    def __init__(self, told: Settings) -> None:
        """Read the entry script, or the cells so far."""
        self._notebook = Notebook.here()
        self._files = list(source.entry_script())
        self._config = ""
        cells = list(self._notebook.news()) if self._notebook else []
        self._files += cells
        entry = next((file.digest for file in [*cells, *self._files]), "")
        self.task: CaptureTask = source.task(told, entry, by_job=not told.start_agent)

    @classmethod
    def of(cls, told: Settings) -> WhatRan | None:
        """Read it; None, and a word to the user, where that fails."""
        try:
            return cls(told)
        except Exception as error:
            say(f"code and environment of the run are not kept: {type(error).__name__}: {error}")
            return None

    def news(self, config: Mapping[str, Any]) -> Iterator[Record]:
        """What has not been said yet, given the run's configuration."""
        files, self._files = self._files, []
        if not files and self._notebook is not None:
            files = list(self._notebook.news())
        yield from map(_record, files)
        said = source.config_fingerprint(
            {str(name): values.to_json(mask(str(name), value)) for name, value in values.flatten(config, ".")}
        )
        if config and said.config != self._config:
            self._config = said.config
            yield Record(fingerprint=said)

    def watch(self, say_news: Callable[[], None]) -> None:
        """Call `say_news` now and then as long as cells are executed."""
        if self._notebook is not None:
            self._notebook.watch(say_news)

    def leave(self) -> None:
        """Watch no more."""
        if self._notebook is not None:
            self._notebook.leave()


def _record(file: SourceFile) -> Record:
    return Record(source_file=file)
