"""What a token is for."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """Each call says which roles may make it: `gateway.access`."""

    WRITER = "writer"
    """A job: pushes, and asks about its project."""
    READER = "reader"
    """A page or a check: only asks."""
    ADMIN = "admin"
    """A person who answers for the project: does all of that, and rules on dead letters."""
