"""Errors in the words of a ClickHouse server: code, text and HTTP status. The engine's own texts pass through unchanged
but for what a server would not say twice."""

from __future__ import annotations

import re

_CODE = re.compile(r"Code: (\d+)\. DB::(?:Net)?Exception: ", re.DOTALL)
_NAME = re.compile(r"\(([A-Z][A-Z0-9_]+)\)\s*(?:\(version [^)]*\))?\s*$")
_TWICE = re.compile(
    r"^(Code: (\d+)\. DB::Exception: )Code: \2\. DB::Exception: (.*) \(([A-Z0-9_]+)\) \(version [^)]*\)\. \(\4\)$",
    re.DOTALL,
)

SYNTAX_ERROR = (62, "SYNTAX_ERROR")
READONLY = (164, "READONLY")
AUTHENTICATION_FAILED = (516, "AUTHENTICATION_FAILED")
UNKNOWN_COMPRESSION_METHOD = (89, "UNKNOWN_COMPRESSION_METHOD")
CANNOT_DECOMPRESS = (271, "CANNOT_DECOMPRESS")
CHECKSUM_DOESNT_MATCH = (40, "CHECKSUM_DOESNT_MATCH")
BAD_ARGUMENTS = (36, "BAD_ARGUMENTS")
NOT_IMPLEMENTED = (48, "NOT_IMPLEMENTED")
ACCESS_DENIED = (497, "ACCESS_DENIED")
INTO_OUTFILE_NOT_ALLOWED = (358, "INTO_OUTFILE_NOT_ALLOWED")
TOO_MANY_SIMULTANEOUS_QUERIES = (202, "TOO_MANY_SIMULTANEOUS_QUERIES")
SETTING_CONSTRAINT_VIOLATION = (452, "SETTING_CONSTRAINT_VIOLATION")
REQUEST_TOO_LARGE = (223, "QUERY_IS_TOO_LARGE")
TOO_MANY_ROWS_OR_BYTES = (396, "TOO_MANY_ROWS_OR_BYTES")

# As in the server's exceptionCodeToHTTPStatus.
_STATUS: dict[int, int] = {
    194: 401,  # REQUIRED_PASSWORD
    **dict.fromkeys(
        (192, 193, 516, 520), 403
    ),  # UNKNOWN_USER, WRONG_PASSWORD, AUTHENTICATION_FAILED, SET_NON_GRANTED_ROLE
    **dict.fromkeys(
        (36, 427, 6, 25, 26, 38, 41, 72, 441, 675, 676, 27, 376, 15, 44, 56, 223, 8, 167, 168, 62, 117, 53, 321, 69),
        400,
    ),
    **dict.fromkeys((60, 46, 47, 50, 56, 81, 115, 106, 63, 73, 336, 78, 139), 404),
    223: 413,  # QUERY_IS_TOO_LARGE
    48: 501,  # NOT_IMPLEMENTED
    **dict.fromkeys(
        (209, 76, 439, 202), 503
    ),  # SOCKET_TIMEOUT, CANNOT_OPEN_FILE, CANNOT_SCHEDULE_TASK, too many queries
    381: 411,  # HTTP_LENGTH_REQUIRED
    159: 408,  # TIMEOUT_EXCEEDED
}

OF_WRITING = (
    *("NOT_ENOUGH_SPACE", "CANNOT_WRITE_TO_FILE_DESCRIPTOR", "CANNOT_WRITE_TO_FILE", "CANNOT_OPEN_FILE"),
    *("CANNOT_CLOSE_FILE", "CANNOT_FSYNC", "CANNOT_TRUNCATE_FILE", "CANNOT_CREATE_DIRECTORY", "FILE_DOESNT_EXIST"),
    *("MEMORY_LIMIT_EXCEEDED", "CANNOT_ALLOCATE_MEMORY", "CANNOT_SCHEDULE_TASK", "TOO_MANY_PARTS", "ABORTED"),
    *("TABLE_IS_READ_ONLY", "ATOMIC_RENAME_FAIL", "POCO_EXCEPTION", "STD_EXCEPTION", "UNKNOWN_EXCEPTION"),
)
"""Errors that may come up while a part is written."""


class ServerError(Exception):
    """An answer that is an error: `code` and `text` as ClickHouse says them, and the HTTP status that goes with it."""

    def __init__(self, kind: tuple[int, str], message: str) -> None:
        self.code, self.name = kind
        self.message = message
        super().__init__(f"Code: {self.code}. DB::Exception: {message} ({self.name})")

    @property
    def status(self) -> int:
        """The HTTP status of the server for this code."""
        return _STATUS.get(self.code, 500)

    def text(self, version: str) -> str:
        """The line that a server answers."""
        return f"Code: {self.code}. DB::Exception: {self.message} ({self.name}) (version {version})"


class Disconnected(Exception):
    """The client has gone; nobody reads the answer."""


def from_engine(error: Exception) -> ServerError:
    """Read the engine's exception text as code, name and message."""
    text = str(error).strip()
    found = _CODE.search(text)
    if not found:
        return ServerError((1002, "UNKNOWN_EXCEPTION"), text)
    text = text[found.start() :]
    text = _TWICE.sub(r"\1\3 (\4)", text)
    found = _CODE.match(text)
    named = _NAME.search(text)
    start = found.end() if found else 0
    code = int(found.group(1)) if found else 1002
    if not named:
        return ServerError((code, "UNKNOWN_EXCEPTION"), text[start:])
    return ServerError((code, named.group(1)), text[start : named.start()].rstrip())
