"""What data is made of, as one SHA-256: equal content has an equal digest, on every host and in every process.

Promises: what has no content that can be read is refused, never guessed. No library is imported: arrays and frames are
known by what they can do. The order of rows counts, that of the files in a folder does not, and neither does how a
table is cut into chunks. Works through content in pieces, at about the speed of SHA-256; of texts and mixed columns at
that of JSON.
"""

from __future__ import annotations

import array
import hashlib
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtide.wire.errors import BadInput

_ROWS = 65_536
"""Rows that are worked through at once."""
_BYTES = 1 << 22
_PLAIN = {str, int, float, bool, type(None)}
_SAFE = frozenset({"datetime", "decimal", "uuid", "fractions", "pathlib", "ipaddress"})
"""Modules whose values say all of themselves in their repr."""


@dataclass(slots=True)
class Content:
    """What can be said of some data."""

    kind: str
    """file, folder, array, pandas, polars, arrow, huggingface, values, reference."""
    digest: str = ""
    rows: int | None = None
    size: int = 0
    schema: dict[str, str] = field(default_factory=dict)
    """Column to its type, in order."""
    uri: str = ""
    note: str = ""


def content(given: Any) -> Content:
    """Read data through. Raises BadInput for what is no data, and OSError."""
    if isinstance(given, os.PathLike):
        return _of_path(Path(given))
    if (fingerprint := getattr(given, "_fingerprint", None)) is not None and hasattr(given, "features"):
        return _of_hugging_face(given, str(fingerprint))
    if (table := _columns(given)) is not None:
        return _of_table(given, *table)
    if isinstance(given, Mapping):
        return _of_parts({str(name): part for name, part in given.items()})
    if isinstance(given, tuple | list) and any(_is_array(part) or _columns(part) is not None for part in given):
        return _of_parts({str(at): part for at, part in enumerate(given)})
    found = _as_array(given)
    if _is_array(found):
        return _of_array(found)
    if isinstance(given, list | tuple):
        return _of_values(given)
    kind = type(given)
    limit = "it is a path, a URI, an array, a frame or a table; for anything else give version="
    raise BadInput("the dataset", f"of type {kind.__module__}.{kind.__qualname__}", limit)


def _of_path(path: Path) -> Content:
    path = path.expanduser()
    if not path.exists():
        raise BadInput("the dataset's path", repr(str(path)), "there is no such file or folder")
    if not path.is_dir():
        return Content("file", _file_digest(path), size=path.stat().st_size, uri=str(path.absolute()))
    digest, size, files = hashlib.sha256(), 0, 0
    for name, file in sorted(_files(path)):
        digest.update(f"{json.dumps(name)} {_file_digest(file)}\n".encode())
        size += file.stat().st_size
        files += 1
    return Content("folder", digest.hexdigest(), size=size, uri=str(path.absolute()), note=f"{files} files")


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for here, _, names in os.walk(folder, followlinks=False):
        for name in names:
            file = Path(here, name)
            if file.is_file():
                yield file.relative_to(folder).as_posix(), file


def _file_digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _of_hugging_face(given: Any, fingerprint: str) -> Content:
    features = getattr(given, "features", None) or {}
    return Content(
        "huggingface",
        hashlib.sha256(f"huggingface {fingerprint}".encode()).hexdigest(),
        rows=int(given.num_rows),
        size=int(getattr(getattr(given, "data", None), "nbytes", 0) or 0),
        schema={str(name): str(getattr(kind, "dtype", kind)) for name, kind in features.items()},
        note=f"by its fingerprint {fingerprint}",
    )


def _columns(given: Any) -> tuple[str, list[tuple[str, str, Any]]] | None:
    """What library a table is of, and name, type and values of each column; None for what is no table."""
    library = type(given).__module__.partition(".")[0]
    if library == "pyarrow" and hasattr(given, "column_names"):
        return "arrow", [(name, str(given.column(name).type), given.column(name)) for name in given.column_names]
    if library == "polars" and hasattr(given, "get_columns"):
        return "polars", [(each.name, str(each.dtype), each) for each in given.get_columns()]
    if library == "pandas" and hasattr(given, "dtypes"):
        frame = given.to_frame() if not hasattr(given, "columns") else given
        found = [(str(name), str(frame.dtypes.iloc[at]), frame.iloc[:, at]) for at, name in enumerate(frame.columns)]
        if type(frame.index).__name__ != "RangeIndex":
            found.insert(0, (f"index {frame.index.name or ''}".strip(), str(frame.index.dtype), frame.index))
        return "pandas", found
    return None


def _of_table(given: Any, library: str, columns: Sequence[tuple[str, str, Any]]) -> Content:
    digest = hashlib.sha256()
    for name, kind, values in columns:
        digest.update(f"column {json.dumps([name, kind])}\n".encode())
        if library == "pandas" and _is_array(plain := values.to_numpy()) and plain.dtype.kind != "O":
            _feed_array(digest, plain)
        elif library == "arrow" and (width := _fixed_width(values)):
            for chunk in values.chunks if hasattr(values, "chunks") else [values]:
                start = chunk.offset * width
                if len(chunk):
                    digest.update(memoryview(chunk.buffers()[1])[start : start + len(chunk) * width])
        else:
            _feed_values(digest, values)
    return Content(
        library,
        digest.hexdigest(),
        rows=len(given),
        size=_table_bytes(given),
        schema={name: kind for name, kind, _ in columns},
    )


def _fixed_width(column: Any) -> int:
    """Bytes of one value of a column of Arrow whose values lie in one buffer; 0 for others, and where some are null."""
    try:
        bits = int(column.type.bit_width)
    except (AttributeError, ValueError):
        return 0
    nested = column.type.num_fields or str(column.type).startswith(("dictionary", "extension"))
    return 0 if column.null_count or bits % 8 or nested else bits // 8


def _table_bytes(given: Any) -> int:
    if callable(usage := getattr(given, "memory_usage", None)):
        used = usage(index=True)
        return int(used.sum() if hasattr(used, "sum") else used)
    if callable(estimate := getattr(given, "estimated_size", None)):
        return int(estimate())
    return int(getattr(given, "nbytes", 0))


def _of_parts(parts: Mapping[str, Any]) -> Content:
    """Several data as one, such as features and labels, or the splits of a dataset."""
    found = {name: content(part if not isinstance(part, str) else Path(part)) for name, part in parts.items()}
    digest = hashlib.sha256()
    for name, part in sorted(found.items(), key=lambda item: item[0]):
        digest.update(f"{json.dumps(name)} {part.digest}\n".encode())
    rows, kinds = {part.rows for part in found.values()}, {part.kind for part in found.values()}
    return Content(
        kinds.pop() if len(kinds) == 1 else "values",
        digest.hexdigest(),
        rows=rows.pop() if len(rows) == 1 else None,
        size=sum(part.size for part in found.values()),
        schema={
            f"{name}/{column}" if column else name: kind
            for name, part in found.items()
            for column, kind in part.schema.items()
        },
    )


def _is_array(given: Any) -> bool:
    return hasattr(given, "dtype") and hasattr(given, "shape") and hasattr(given, "tobytes")


def _as_array(given: Any) -> Any:
    """A tensor as the array that its own library makes of it; anything else as it is."""
    if callable(detach := getattr(given, "detach", None)):
        given = detach().cpu().numpy()
    elif not hasattr(given, "tobytes") and hasattr(given, "__array__") and "numpy" in sys.modules:
        given = given.__array__()
    return given


def _of_array(given: Any) -> Content:
    digest = hashlib.sha256(f"array {given.dtype.str} {tuple(map(int, given.shape))}\n".encode())
    _feed_array(digest, given)
    each = ", ".join(str(length) for length in given.shape[1:])
    schema = {name: str(given.dtype[name]) for name in given.dtype.names or ()}
    return Content(
        "array",
        digest.hexdigest(),
        rows=int(given.shape[0]) if given.shape else 1,
        size=int(given.nbytes),
        schema=schema or {"": f"{given.dtype}[{each}]" if each else str(given.dtype)},
    )


def _feed_array(digest: Any, given: Any) -> None:
    """Feed an array row by row, in the order of its indices whatever its layout."""
    if given.dtype.hasobject:
        _feed_values(digest, given)
    elif not given.shape or not given.nbytes:
        digest.update(given.tobytes())
    else:
        rows = max(1, _BYTES * len(given) // given.nbytes)
        for start in range(0, len(given), rows):
            digest.update(given[start : start + rows].tobytes())


def _of_values(given: Sequence[Any]) -> Content:
    digest = hashlib.sha256(b"values\n")
    _feed_values(digest, given)
    return Content("values", digest.hexdigest(), rows=len(given), size=0)


def _feed_values(digest: Any, values: Any) -> None:
    """Feed values of any type, the same in whatever they are held."""
    for start in range(0, len(values), _ROWS):
        part = values[start : start + _ROWS]
        for name in ("to_pylist", "tolist", "to_list"):
            if callable(take := getattr(part, name, None)):
                part = take()
                break
        _feed_part(digest, list(part))


def _feed_part(digest: Any, part: list[Any]) -> None:
    kinds = set(map(type, part))
    if kinds == {float}:
        found = array.array("d", part)
        if sys.byteorder == "big":
            found.byteswap()
        digest.update(b"d")
        digest.update(found)
    elif kinds <= _PLAIN:
        digest.update(b"j")
        digest.update(json.dumps(part, separators=(",", ":")).encode())
    else:
        digest.update(b"v")
        for value in part:
            digest.update(_canonical(value))


def _canonical(value: Any) -> bytes:
    """One value as bytes that say all of it. Raises BadInput for what cannot be known from outside."""
    if type(value) in _PLAIN:
        return json.dumps(value).encode() + b"\n"
    if isinstance(value, complex):
        return f"{value!r}\n".encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return b"b%d:" % len(value) + bytes(value)
    if isinstance(value, Mapping):
        inner = (_canonical(name) + _canonical(each) for name, each in value.items())
        return b"{" + b"".join(inner) + b"}"
    if isinstance(value, list | tuple):
        return b"[" + b"".join(map(_canonical, value)) + b"]"
    if isinstance(value, set | frozenset):
        return b"(" + b"".join(sorted(map(_canonical, value))) + b")"
    if _is_array(value) and math.prod(value.shape) != 1 and not value.dtype.hasobject:
        return f"a{value.dtype.str}{tuple(value.shape)}".encode() + bytes(value.tobytes())
    kind = type(value)
    if callable(item := getattr(value, "item", None)) and math.prod(getattr(value, "shape", ())) == 1:
        inner = item()
        return _canonical(inner) if type(inner) is not kind else f"{inner!r}\n".encode()
    if kind.__module__.startswith("pandas.") or any(
        each.__module__.partition(".")[0] in _SAFE for each in kind.__mro__
    ):
        return f"{kind.__name__} {value!r}\n".encode("utf-8", "surrogatepass")
    raise BadInput("a value of the dataset", f"of type {kind.__module__}.{kind.__qualname__}", "give version= with it")
