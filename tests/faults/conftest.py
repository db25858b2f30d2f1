"""What tests of faults share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from runtide.testing.stack import Stack

from tests.offline_job import job

__all__ = ["job", "stack"]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack that is not up yet."""
    made = Stack(tmp_path / "home")
    yield made
    made.end()
