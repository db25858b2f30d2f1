"""The cells of a notebook or an IPython console, in the order in which they were executed.

Promises: IPython is never imported by us; nothing is read but its history, which holds the running cell too. A cell
that was executed twice is there twice, with what it said each time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from runtide.sdk import source
from runtide.v1.records_pb2 import SourceFile
from runtide.wire.secrets import mask_source
from runtide.wire.source_files import kept

EVERY_SECONDS = 30.0
"""After how long the end of a cell makes the cells be said again."""
_NAME = "notebook.ipynb"


class Notebook:
    """What was executed in this process's IPython."""

    def __init__(self, shell: Any, clock: Callable[[], float] = time.monotonic) -> None:
        """`shell` is an InteractiveShell."""
        self._shell, self._clock = shell, clock
        self._cells = _cells(shell)
        self._said = ""
        self._said_at = clock()
        self._after_cell: Callable[..., None] | None = None

    @classmethod
    def here(cls) -> Notebook | None:
        """The one that this code runs in; None outside of IPython and where it only runs a script."""
        found = sys.modules.get("IPython")
        shell = found.get_ipython() if found is not None else None
        return None if shell is None or not _cells(shell) else cls(shell)

    def news(self) -> Iterator[SourceFile]:
        """All cells so far, where there is a new one since the last time."""
        cells = self._look()
        safe = [(number, mask_source("cell.py", text)) for number, text in cells]  # escaped as JSON secrets hide
        content = _as_notebook(cells)
        said = kept(self._path(), "notebook", content, time.time_ns() // 1000, safe=_as_notebook(safe))
        files = list(said)
        self._said_at = self._clock()
        if files[0].digest != self._said:
            self._said = files[0].digest
            yield from files

    def watch(self, say: Callable[[], None]) -> None:
        """Call `say` when a cell has ended, at most once in EVERY_SECONDS."""

        def after_cell(*_: object) -> None:
            self._look()
            if self._clock() - self._said_at >= EVERY_SECONDS:
                say()

        self._after_cell = after_cell
        self._shell.events.register("post_run_cell", after_cell)

    def leave(self) -> None:
        """Watch no more."""
        if self._after_cell is not None:
            self._shell.events.unregister("post_run_cell", self._after_cell)
            self._after_cell = None

    def _look(self) -> list[tuple[int, str]]:
        """All cells so far: when the process ends IPython has forgotten them already."""
        self._cells = _cells(self._shell) or self._cells
        return self._cells

    def _path(self) -> str:
        """The notebook's file, where its editor tells it."""
        told = self._shell.user_ns.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME") or _NAME
        return source.shown(Path(str(told)))


def _cells(shell: Any) -> list[tuple[int, str]]:
    """Number and text of each cell, the running one included."""
    history = shell.history_manager  # None when the process ends
    texts = list(history.input_hist_raw) if history is not None else []
    return [(number, text) for number, text in enumerate(texts) if number and text]


def _as_notebook(cells: list[tuple[int, str]]) -> bytes:
    """A notebook file of format 4 that any editor opens."""
    listed = [
        {"cell_type": "code", "execution_count": number, "metadata": {}, "outputs": [], "source": text.splitlines(True)}
        for number, text in cells
    ]
    whole = {"cells": listed, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
    return json.dumps(whole, ensure_ascii=False, indent=1).encode("utf-8", "replace")
