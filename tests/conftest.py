"""What all tests share.

A part that is missing is a reason to skip, unless everything was asked for. The store is a real engine, one for a file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from runtide.testing.embedded import EmbeddedClickHouse, embedded_clickhouse

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

__all__ = ["embedded_clickhouse"]

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
