"""Numbers and times as people read them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest

from dashboards.parts import format as say


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "–"),  # noqa: RUF001
        (math.nan, "NaN"),
        (math.inf, "Inf"),
        (0.0, "0"),
        (12.0, "12"),
        (1234567.0, "1,234,567"),
        (0.0500841234, "0.050084"),
        (1234.5678, "1,234.6"),
        (0.00000123456, "1.235e-06"),
        (-0.25, "-0.25"),
    ],
)
def test_numbers(value: float | None, words: str) -> None:
    assert say.number(value) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (61, "1 min 01 s"), (3725, "1 h 02 min"), (200000, "2 d 7 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert say.duration(seconds) == words


@pytest.mark.parametrize(("seconds", "words"), [(None, "–"), (0.0814, "81 ms"), (1.24, "1.2 s"), (75, "1 min 15 s")])  # noqa: RUF001
def test_delays(seconds: float | None, words: str) -> None:
    assert say.delay(seconds) == words


def test_sizes_in_binary_units() -> None:
    assert [say.size(n) for n in (0, 1023, 1536, 5 * 2**30)] == ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.3, "now"), (5, "5 s ago"), (119, "1 min ago"), (7200, "2 h ago"), (180000, "2 d ago")]
)
def test_relative_times(seconds: float, words: str) -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    assert say.ago(now - timedelta(seconds=seconds), now) == words
