"""What all tests share: a part that is missing is a reason to skip, unless everything was asked for."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

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
