"""How commands show rows: a table for people, JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

__all__ = ["cell", "print_json", "print_table", "show"]

Found = TypeVar("Found")


LONGEST_CELL = 200
"""Characters of one cell in a table; JSON and CSV have all of them."""


def print_table(found: Sequence[Mapping[str, Any]], title: str | None = None, empty: str = "nothing") -> None:
    """Print rows of equal columns as a table. Where a terminal is too narrow the lines run on, so ids stay whole."""
    console = Console()
    if not found:
        console.print(empty)
        return
    table = Table(title=title, title_justify="left", header_style="bold", pad_edge=False)
    for name, value in found[0].items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in found:
        table.add_row(*(_shortened(cell(value)) for value in row.values()))
    wide = Console(width=10_000)
    if wide.measure(table).maximum > console.width:
        if console.is_terminal:
            table.box = None  # lines of a box that run on cannot be read
        console = wide
    console.print(table, markup=False)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"


def cell(value: object) -> str:
    """One value for people."""
    if value is None:
        return ""
    if isinstance(value, float):
        return str(value) if not math.isfinite(value) else f"{value:.6g}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value)
    return str(value)


def show(found: Found, as_json: bool, for_people: Callable[[Found], None]) -> None:
    """Print what was found: as JSON, or as people read it."""
    if as_json:
        print_json(found)
    else:
        for_people(found)


def print_json(found: object) -> None:
    """Print one JSON document; times as ISO 8601, NaN and Inf as strings, since JSON has neither."""
    print(json.dumps(_plain(found), indent=1, allow_nan=False, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
