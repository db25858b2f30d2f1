"""How commands show rows: a table for people, JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

__all__ = ["cell", "print_json", "print_table", "show"]

Found = TypeVar("Found")


def print_table(found: Sequence[Mapping[str, Any]], title: str | None = None, empty: str = "nothing") -> None:
    """Print rows of equal columns as a table; on a narrow terminal cells wrap, in a pipe they do not."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=10_000)
    if not found:
        console.print(empty)
        return
    table = Table(title=title, title_justify="left", header_style="bold", pad_edge=False)
    for name, value in found[0].items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in found:
        table.add_row(*(cell(value) for value in row.values()))
    console.print(table, markup=False)


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
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
