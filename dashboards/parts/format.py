"""Numbers and times for people: units, sensible digits, relative times. Pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime


def number(value: float | None) -> str:
    """Five significant digits, thousands set apart, NaN and Inf by name."""
    if value is None:
        return "–"  # noqa: RUF001 - an en dash is what stands for nothing in a table
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "−Inf"  # noqa: RUF001
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1e5 or abs(value) < 1e-4:
        return f"{value:.3e}"
    return f"{value:,.5g}" if abs(value) < 1e4 else f"{value:,.1f}"


def count(value: int | None) -> str:
    """A count in full, thousands set apart."""
    return "–" if value is None else f"{value:,}"  # noqa: RUF001


def size(value: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: float | None) -> str:
    """The two largest units."""
    if seconds is None:
        return "–"  # noqa: RUF001
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def delay(seconds: float | None) -> str:
    """A delay: milliseconds below a second."""
    return f"{1000 * seconds:.0f} ms" if seconds is not None and seconds < 1 else duration(seconds)


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago, in one unit."""
    if moment is None:
        return "–"  # noqa: RUF001
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    if seconds < 1:
        return "now"
    for limit, width, unit in ((60, 1, "s"), (3600, 60, "min"), (172800, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds // width)} {unit} ago"
    return f"{int(seconds // 86400)} d ago"


def exact(moment: datetime | None) -> str:
    """The exact time, for those who hover."""
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
