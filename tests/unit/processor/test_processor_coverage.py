"""The coverage never claims what no hint announced."""

from __future__ import annotations

import pytest
from runtide.processor.coverage import Cursor, Stored, advanced, behind


@pytest.mark.parametrize(
    ("cursor", "stored", "ranges", "expected"),
    [
        pytest.param(Cursor(), Stored(100), [(0, 50), (50, 100)], Cursor(100), id="in order"),
        pytest.param(Cursor(), Stored(100), [(50, 100), (0, 50)], Cursor(100), id="any order"),
        pytest.param(Cursor(), Stored(100), [(0, 60), (40, 100)], Cursor(100), id="overlap"),
        pytest.param(Cursor(50), Stored(200), [(100, 200)], Cursor(50), id="a hint was lost"),
        pytest.param(Cursor(50), Stored(200, ((50, 100),)), [(100, 200)], Cursor(200, 50), id="a hole"),
        pytest.param(Cursor(50), Stored(200, ((50, 90),)), [(100, 200)], Cursor(50), id="a hole and a lost hint"),
        pytest.param(Cursor(200, 50), Stored(200), [(50, 100)], Cursor(200, 0), id="a hole closed"),
        pytest.param(Cursor(200, 50), Stored(200, ((60, 100),)), [(50, 60)], Cursor(200, 40), id="a hole part closed"),
        pytest.param(Cursor(200), Stored(200), [(50, 100)], Cursor(200), id="a copy"),
    ],
)
def test_advance(cursor: Cursor, stored: Stored, ranges: list[tuple[int, int]], expected: Cursor) -> None:
    assert advanced(cursor, stored, ranges) == expected


@pytest.mark.parametrize(
    ("cursor", "stored", "expected"),
    [
        (Cursor(100), Stored(100), False),
        (Cursor(90), Stored(100), True),
        (Cursor(100, 10), Stored(100), True),
        (Cursor(100, 10), Stored(100, ((0, 10),)), False),
    ],
)
def test_behind(cursor: Cursor, stored: Stored, expected: bool) -> None:
    assert behind(cursor, stored) is expected


def test_holes_are_not_stored() -> None:
    stored = Stored(100, ((10, 20),))
    assert stored.has(20, 100)
    assert stored.has(0, 10)
    assert not stored.has(0, 11)
    assert not stored.has(90, 101)
