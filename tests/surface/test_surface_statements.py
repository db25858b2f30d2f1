"""No statement of ours relies on the order of columns: a later release may add some, and the parts of today go on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

SERVICES = Path(__file__).parents[2] / "services" / "runtide"
MADE_UP = SERVICES / "testing"
"""Its rows are made for a database of the same release."""
INSERT = re.compile(r"INSERT INTO (?:TABLE )?[\w.{}$]+\s+(?=\S)(?!\(|\{\w*COLUMNS\})", re.IGNORECASE)
STAR = re.compile(r"SELECT\s+(?:DISTINCT\s+)?\*\s+FROM\s+(?!\()", re.IGNORECASE)
INNER = re.compile(r"\(\s*$")
"""A star within a subquery gives its columns by name to the query around it."""
BY_NAME = {"cli/reading.py", "api/run.py", "api/export.py"}
"""Show every column that a view has, each under its name."""


def faults(text: str) -> list[str]:
    """Inserts that do not name their columns, and stars that decide about the columns of an answer."""
    found = [match[0] for match in INSERT.finditer(text)]
    return found + [match[0] for match in STAR.finditer(text) if not INNER.search(text[: match.start()])]


def statements() -> list[Path]:
    paths = [*SERVICES.rglob("*.py"), *SERVICES.rglob("*.sql")]
    return sorted(path for path in paths if MADE_UP not in path.parents)


def test_every_insert_names_its_columns_and_every_answer_too() -> None:
    found = {str(path.relative_to(SERVICES)): faults(path.read_text()) for path in statements()}
    assert {name: wrong for name, wrong in found.items() if wrong and name not in BY_NAME} == {}
    assert sum("INSERT INTO" in path.read_text() for path in statements()) > 1
    assert all(found[name] for name in BY_NAME)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("INSERT INTO runtide.points SELECT metric, step FROM x", True),
        ("INSERT INTO runtide.points VALUES (1)", True),
        ("insert into {table}\n  select 1", True),
        ("INSERT INTO runtide.points (metric, step) SELECT metric, step FROM x", False),
        ("INSERT INTO runtide.series_tiers {_TIER_COLUMNS}\nSELECT 1", False),
        ("SELECT * FROM runtide.points", True),
        ("SELECT stream FROM (SELECT * FROM runtide.ledger FINAL) AS l", False),
    ],
)
def test_a_statement_that_relies_on_an_order_is_seen(text: str, wrong: bool) -> None:
    assert bool(faults(text)) is wrong
