"""What can go wrong, as one tree. `code` is stable; `retryable` says whether the same bytes may succeed later.

RuntideError
  BadInput            the caller broke a limit; names field, value and limit
  Refused             the gateway will never take these bytes
  NotAllowed          token missing, wrong, of a lesser role, or of another project
  Busy                not now: `retry_after_s` says when
  Unavailable         the other side is away
  MissingExtra        the command needs an optional part of the installation
"""

from __future__ import annotations


class RuntideError(Exception):
    """Base of all errors that runtide raises on purpose."""

    code = "error"
    retryable = False


class BadInput(RuntideError):
    """A value breaks a limit."""

    code = "bad_input"

    def __init__(self, field: str, value: object, limit: str) -> None:
        super().__init__(f"{field} is {value}, but {limit}")
        self.field, self.value, self.limit = field, str(value), limit


class Refused(RuntideError):
    """The gateway has refused these bytes for good."""

    code = "refused"


class NotAllowed(RuntideError):
    """The token is missing, unknown, of a role that may not, or of another project."""

    code = "not_allowed"


class Busy(RuntideError):
    """The other side has no room now."""

    code = "busy"
    retryable = True

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(RuntideError):
    """The other side cannot be reached, or did not answer in time."""

    code = "unavailable"
    retryable = True


class MissingExtra(RuntideError):
    """A command needs packages that the base installation does not have."""

    code = "missing_extra"

    def __init__(self, command: str, extra: str) -> None:
        super().__init__(f"{command} needs more packages: pip install 'runtide[{extra}]'")
