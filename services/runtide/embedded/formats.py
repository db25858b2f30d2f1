"""Output formats: their content types, and how the engine's chunks, each a whole document, become one document.

A format that is not in this table is not streamed: the engine makes the whole result, bounded.
"""

from __future__ import annotations

from collections.abc import Callable

DEFAULT = "TabSeparated"

_LINES = {
    "tabseparatedwithnames": 1,
    "tsvwithnames": 1,
    "jsoncompacteachrowwithnames": 1,
    "jsoncompactstringseachrowwithnames": 1,
    "tabseparatedwithnamesandtypes": 2,
    "tsvwithnamesandtypes": 2,
    "jsoncompacteachrowwithnamesandtypes": 2,
    "jsoncompactstringseachrowwithnamesandtypes": 2,
    "csvwithnames": 1,
    "csvwithnamesandtypes": 2,
}
_PLAIN = frozenset(
    {
        "native",
        "tabseparated",
        "tsv",
        "tabseparatedraw",
        "tsvraw",
        "raw",
        "csv",
        "jsoneachrow",
        "ndjson",
        "jsonlines",
        "jsoncompacteachrow",
        "jsonstringseachrow",
        "jsoncompactstringseachrow",
        "rowbinary",
        "rawblob",
        "msgpack",
        "lineasstring",
        "null",
    }
)
_ARROW_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"

_TYPES = {
    "json": "application/json; charset=UTF-8",
    "jsoncompact": "application/json; charset=UTF-8",
    "jsonstrings": "application/json; charset=UTF-8",
    "jsoncompactstrings": "application/json; charset=UTF-8",
    "jsoncolumns": "application/json; charset=UTF-8",
    "jsoneachrow": "application/x-ndjson; charset=UTF-8",
    "ndjson": "application/x-ndjson; charset=UTF-8",
    "jsonlines": "application/x-ndjson; charset=UTF-8",
    "jsoncompacteachrow": "application/x-ndjson; charset=UTF-8",
    "csv": "text/csv; charset=UTF-8; header=absent",
    "csvwithnames": "text/csv; charset=UTF-8; header=present",
    "csvwithnamesandtypes": "text/csv; charset=UTF-8; header=present",
    "xml": "application/xml; charset=UTF-8",
    "markdown": "text/markdown; charset=UTF-8",
    "arrow": "application/vnd.apache.arrow.file",
    "arrowstream": "application/vnd.apache.arrow.stream",
    "native": "application/octet-stream",
    "rowbinary": "application/octet-stream",
    "rowbinarywithnames": "application/octet-stream",
    "rowbinarywithnamesandtypes": "application/octet-stream",
    "parquet": "application/octet-stream",
    "orc": "application/octet-stream",
    "avro": "application/octet-stream",
    "msgpack": "application/octet-stream",
    "rawblob": "application/octet-stream",
}


def content_type(format_name: str) -> str:
    """The Content-Type of a format's documents."""
    name = format_name.lower()
    if name.startswith(("tabseparated", "tsv")):
        return "text/tab-separated-values; charset=UTF-8"
    return _TYPES.get(name, "text/plain; charset=UTF-8")


class Joiner:
    """Makes one document of the engine's chunks: `add` every chunk, then `end`."""

    def __init__(self, prefix: Callable[[bytes], int], suffix: bytes = b"") -> None:
        self._prefix, self._suffix = prefix, suffix
        self._begun = False

    def add(self, chunk: bytes) -> bytes:
        """The bytes that this chunk adds to the document."""
        body = chunk[: len(chunk) - len(self._suffix)] if self._suffix and chunk.endswith(self._suffix) else chunk
        if not self._begun:
            self._begun = True
            return body
        return body[self._prefix(body) :]

    def end(self) -> bytes:
        """The bytes that close the document."""
        return self._suffix if self._begun else b""


def joiner(format_name: str) -> Joiner | None:
    """The joiner of a format, or None when it cannot be streamed."""
    name = format_name.lower()
    if name in _PLAIN:
        return Joiner(lambda chunk: 0)
    if name in _LINES:
        lines = _LINES[name]
        return Joiner(_csv_lines(lines) if name.startswith("csv") else _lines(lines))
    if name == "rowbinarywithnames":
        return Joiner(_binary_header(1))
    if name == "rowbinarywithnamesandtypes":
        return Joiner(_binary_header(2))
    if name == "arrowstream":
        return Joiner(_arrow_schema, _ARROW_END)
    return None


def has_header(format_name: str) -> bool:
    """Whether even an empty result has bytes in this format."""
    name = format_name.lower()
    return name not in _PLAIN


def _lines(count: int) -> Callable[[bytes], int]:
    def length(chunk: bytes) -> int:
        at = 0
        for _ in range(count):
            at = chunk.index(b"\n", at) + 1
        return at

    return length


def _csv_lines(count: int) -> Callable[[bytes], int]:
    def length(chunk: bytes) -> int:
        at = 0
        for _ in range(count):
            at = chunk.index(b"\n", at) + 1
            while chunk.count(b'"', 0, at) % 2:  # a name with a line end within its quotes
                at = chunk.index(b"\n", at) + 1
        return at

    return length


def varint(chunk: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = shift = 0
    while True:
        byte = chunk[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _binary_header(strings_per_column: int) -> Callable[[bytes], int]:
    def length(chunk: bytes) -> int:
        columns, at = varint(chunk, 0)
        for _ in range(columns * strings_per_column):
            size, at = varint(chunk, at)
            at += size
        return at

    return length


def _arrow_schema(chunk: bytes) -> int:
    """Bytes of the schema message: marker, size, padded metadata; a schema has no body."""
    return 8 + int.from_bytes(chunk[4:8], "little")
