"""What all tests share.

A part that is missing is a reason to skip, unless everything was asked for. The store is a real engine, one for a file.
The report ends with the faults of docs/reliability.md, row by row: how many tests showed each, and in how many seconds.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from runtide.testing.embedded import EmbeddedClickHouse, embedded_clickhouse

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter
    from clickhouse_connect.driver.client import Client

__all__ = ["embedded_clickhouse"]

FAULTS = Path(__file__).parent.parent / "docs" / "reliability.md"

settings.register_profile("no deadline", deadline=None)  # how long an example takes is up to who else is at work
settings.load_profile("no deadline")

ALL = "RUNTIDE_TEST_ALL"
"""Set to 1 where everything must run, as in CI: then a missing part is a failure."""


def _require(part: object, reason: str) -> None:
    if part:
        return
    if os.environ.get(ALL) == "1":
        pytest.fail(f"{reason}, and {ALL}=1 asks for all tests")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def require() -> Callable[[object, str], None]:
    """`require(part, reason)`: go on if the part is there, skip if not, fail if not and RUNTIDE_TEST_ALL=1."""
    return _require


@pytest.fixture(scope="module")
def client(embedded_clickhouse: EmbeddedClickHouse) -> Iterator[Client]:
    """A client of the embedded ClickHouse that may write; the tables are there."""
    from runtide.warehouse.client import ClickHouseSettings, connect  # late: most tests need no store
    from runtide.warehouse.migrate import migrate

    server = embedded_clickhouse
    made = connect(ClickHouseSettings(server.host, server.port, "writer", server.password))
    migrate(made)
    yield made
    made.close()


def faults() -> dict[int, str]:
    """The faults by their row, as docs/reliability.md tells them."""
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", FAULTS.read_text(), re.MULTILINE)
    return {int(row): fault for row, fault in rows}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's rows go where its report can say them."""
    known = faults()
    for item in items:
        for row in sorted({row for mark in item.iter_markers("fault") for row in mark.args}):
            if row not in known:
                raise pytest.UsageError(f"{item.nodeid}: {FAULTS.name} has no row {row}")
            item.user_properties.append(("fault", row))


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Which rows were shown, by how many tests."""
    outcomes: dict[int, Counter[str]] = {}
    seconds: dict[int, float] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.getreports(outcome):
            for name, row in getattr(report, "user_properties", ()):  # a failed collection has none
                if name == "fault":
                    outcomes.setdefault(row, Counter())[outcome] += 1
                    seconds[row] = seconds.get(row, 0.0) + report.duration
    if outcomes:
        terminalreporter.section("faults, by their row in docs/reliability.md")
    for row, fault in faults().items():
        if row in outcomes:
            counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes[row].items())
            terminalreporter.write_line(f"{row:>2}  {counts} in {seconds[row]:.1f} s: {fault}")
