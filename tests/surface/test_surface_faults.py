"""Every fault that docs/reliability.md lists is shown by a test that bears its row, and by the file that it names."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent.parent
ROW = re.compile(r"^\| (\d+) \|.*\| (.*) \|$", re.MULTILINE)
MARK = re.compile(r"pytest\.mark\.fault\(([\d, ]+)\)")


def marked(path: Path) -> set[int]:
    return {int(row) for rows in MARK.findall(path.read_text()) for row in rows.split(",")}


def test_every_row_has_its_tests() -> None:
    rows = {int(row): shown for row, shown in ROW.findall((TESTS.parent / "docs/reliability.md").read_text())}
    assert len(rows) >= 26
    assert set(rows) == {row for path in TESTS.rglob("test_*.py") for row in marked(path)}
    for row, shown in rows.items():
        paths = [(TESTS.parent / "docs" / link).resolve() for link in re.findall(r"\]\(([^)]+)\)", shown)]
        assert any(row in marked(path) for path in paths), f"row {row} names no test that bears it"
