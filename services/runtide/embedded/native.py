"""Native blocks for clients that name the revision of the protocol they read (`client_protocol_version`).

The engine writes blocks of revision 0, which is what a client without a revision gets. For others a server adds, and so
does `revise`:

- from 54405: information about each block before it. Below, a server takes LowCardinality out of the types; such a
  client is refused.
- from 54454: a byte behind each column's type, which says whether it is laid out in a way of its own. It is always 0,
  as the engine writes no sparse and no replicated columns at revision 0.
- from 54480: one more field of the information about a block, empty in every result.
- from 54492: strings in another layout; such a client is refused.

What a server does beyond that, and this module does not, because the engine's bytes cannot tell:

- The time zone of a `DateTime('Zone')` column is not in its type (it is in DateTime64, and in types around a DateTime):
  the moments are right, and clients show them in the server's zone.
- Dynamic and JSON stay in the first version of their layout, which a server leaves at 54473; the version is in the
  data.
- A type whose values have no size that can be read, as AggregateFunction, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from clickhouse_connect.datatypes import registry

from runtide.embedded.errors import BAD_ARGUMENTS, NOT_IMPLEMENTED, ServerError
from runtide.embedded.formats import varint

LOWEST, HIGHEST = 54405, 54491
_LAYOUT_OF_COLUMNS = 54454
_BUCKETS = 54480
# Field 1, no overflow row; field 2, of no bucket; field 3, no buckets out of order.
_INFO, _INFO_BUCKETS, _INFO_END = b"\x01\x00\x02\xff\xff\xff\xff", b"\x03\x00", b"\x00"

_SAME_AS = {
    "Point": "Tuple(Float64, Float64)",
    "Ring": "Array(Point)",
    "LineString": "Array(Point)",
    "MultiPoint": "Array(Point)",
    "Polygon": "Array(Ring)",
    "MultiLineString": "Array(Ring)",
    "MultiPolygon": "Array(Polygon)",
}
_NULL = 255  # the alternative of a Variant that has no value
_SHARED = "SharedVariant"
# The registry keeps every type that it was asked for, and clients invent types.
_MAX_TYPES = 10_000

_Pass = Callable[[int], None]
"""Moves over the values of so many rows; not called for none."""


def read_revision(value: str) -> int:
    """The revision that a client asks for; 0 when it asks for none.

    Raises: ServerError for a revision whose blocks cannot be made.
    """
    try:
        revision = int(value or "0")
    except ValueError:
        raise ServerError(BAD_ARGUMENTS, f"client_protocol_version is {value!r}, which is not a number") from None
    if revision and not LOWEST <= revision <= HIGHEST:
        raise ServerError(
            NOT_IMPLEMENTED,
            f"Native for client_protocol_version {revision}: this server writes 0 and {LOWEST} to {HIGHEST}",
        )
    return revision


def revise(document: bytes, revision: int) -> bytes:
    """Whole blocks of revision 0, as a server writes them for this one.

    Raises: ServerError for a column whose end cannot be found.
    """
    if not revision:
        return document
    info = _INFO + (_INFO_BUCKETS if revision >= _BUCKETS else b"") + _INFO_END
    layout = b"\x00" if revision >= _LAYOUT_OF_COLUMNS else b""
    parts: list[bytes | memoryview] = []
    place, view, name = _Place(document), memoryview(document), ""
    try:
        while place.at < len(document):
            start = place.at
            parts.append(info)
            columns, rows = place.number(), place.number()
            for _ in range(columns):
                place.strings(1)
                name = place.text()
                parts += (view[start : place.at], layout)
                start = place.at
                if rows:
                    place.column(_find(name))(rows)
            parts.append(view[start : place.at])
    except (IndexError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(name) from error
    if place.at != len(document):
        raise _refused(name)
    return b"".join(parts)


class _Place:
    """A place in a document, which moves over numbers, texts and columns.

    A column begins with what its types say of themselves, outer before inner; then come the values. So `column` moves
    over the beginning at once, and returns what moves over the values.
    """

    def __init__(self, document: bytes) -> None:
        self._document, self.at = document, 0

    def number(self) -> int:
        """A number of variable length."""
        value, self.at = varint(self._document, self.at)
        return value

    def text(self) -> str:
        """A string that is meant to be read."""
        size = self.number()
        self.at += size
        return self._document[self.at - size : self.at].decode()

    def strings(self, rows: int) -> None:
        """Move over strings."""
        document, at = self._document, self.at
        for _ in range(rows):
            size = document[at]
            at += 1
            if size >= 0x80:
                size, at = varint(document, at - 1)
            at += size
        self.at = at

    def column(self, kind: Any) -> _Pass:
        """Move over the beginning of a column of this type."""
        if kind.low_card:
            self._fixed(8)
            return self._dictionary(self._values(kind))
        values = self._values(kind)
        return self._with_nulls(values) if kind.nullable else values

    def _fixed(self, size: int) -> int:
        self.at += size
        return int.from_bytes(self._document[self.at - size : self.at], "little")

    def _values(self, kind: Any) -> _Pass:
        base = kind.base_type
        if base == "String":
            return self.strings
        if base == "Array":
            return self._lists([self.column(kind.element_type)])
        if base == "Map":
            return self._lists([self.column(kind.key_type), self.column(kind.value_type)])
        if base == "Tuple" and kind.element_types:
            return _each([self.column(element) for element in kind.element_types])
        if base == "Nested":
            return self.column(kind.tuple_array)
        if base == "SimpleAggregateFunction":
            return self.column(kind.element_type)
        if base in ("Variant", "Geometry"):
            return self._variant(kind.name, kind.element_types)
        if base == "Dynamic":
            return self._dynamic(kind.name)
        if base == "JSON":
            return self._json(kind)
        if base in _SAME_AS:
            return self.column(_find(_SAME_AS[base]))
        size = 1 if base == "Tuple" else kind.byte_size
        if not size:
            raise _refused(kind.name)
        return self._of_size(size)

    def _of_size(self, size: int) -> _Pass:
        def go(rows: int) -> None:
            self.at += rows * size

        return go

    def _with_nulls(self, values: _Pass) -> _Pass:
        return _each([self._of_size(1), values])

    def _dictionary(self, values: _Pass) -> _Pass:
        def go(rows: int) -> None:
            width = 1 << (self._fixed(8) & 0xFF)
            values(self._fixed(8))
            keys = self._fixed(8)
            self.at += keys * width

        return go

    def _lists(self, elements: Sequence[_Pass]) -> _Pass:
        def go(rows: int) -> None:
            self.at += (rows - 1) * 8
            if total := self._fixed(8):  # where the last list ends
                for element in elements:
                    element(total)

        return go

    def _variant(self, name: str, kinds: Sequence[Any]) -> _Pass:
        if self._fixed(8):  # alternatives in runs, which the engine does not write here
            raise _refused(name)
        alternatives = [self.column(kind) for kind in kinds]

        def go(rows: int) -> None:
            chosen = self._document[self.at : self.at + rows]
            self.at += rows
            for index, alternative in enumerate(alternatives[:_NULL]):
                if count := chosen.count(index):
                    alternative(count)

        return go

    def _dynamic(self, name: str) -> _Pass:
        version = self._fixed(8)
        if version == 1:
            self.number()  # how many types there may be
        elif version != 2:
            raise _refused(name)
        names = sorted([_SHARED, *(self.text() for _ in range(self.number()))])
        return self._variant(name, [_find("String" if each == _SHARED else each) for each in names])

    def _json(self, kind: Any) -> _Pass:
        version = self._fixed(8)
        if version == 1:  # as text
            return self.strings
        if version == 0:
            self.number()  # how many paths there may be
        elif version != 2:
            raise _refused(kind.name)
        paths = self.number()
        self.strings(paths)
        typed = [self.column(typed) for typed in kind.typed_types]
        dynamic = [self._dynamic(kind.name) for _ in range(paths)]
        return _each([*typed, *dynamic, self._lists([self.strings, self.strings])])


def _each(parts: Sequence[_Pass]) -> _Pass:
    def go(rows: int) -> None:
        for part in parts:
            part(rows)

    return go


def _find(name: str) -> Any:
    if len(registry.type_cache) > _MAX_TYPES:
        registry.type_cache.clear()
    try:
        return registry.get_from_name(name)
    except Exception as error:  # the registry has no one class for what it cannot read
        raise _refused(name) from error


def _refused(name: str) -> ServerError:
    return ServerError(
        NOT_IMPLEMENTED,
        f"Native with a client_protocol_version: this server cannot find the end of a column of type {name}; "
        "convert it in the query, or ask for another format",
    )
