"""Columns that users hand in, as plain lists: of lists, numpy, torch, pandas, polars, Arrow, without importing any.

What cannot be a column is refused with its field, the value and what is taken.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from runtide.sdk.values import NotANumber, number
from runtide.wire.errors import BadInput

_SHOWN = 60


def column(field: str, given: Any) -> list[Any]:
    """One value for each sample, scalars of other libraries as Python's own."""
    found = [_scalar(value) for value in items(field, given)]
    if not found:
        raise BadInput(field, "empty", "a figure is made of one value at least")
    for at, value in enumerate(found):
        if isinstance(value, Mapping) or is_row(value):
            raise BadInput(f"{field}[{at}]", f"of type {type(value).__name__}", "each sample has one value")
    return found


def finite(field: str, given: Any) -> list[float]:
    """A column of finite numbers."""
    found = numbers(field, given)
    for at, value in enumerate(found):
        if not math.isfinite(value):
            raise BadInput(f"{field}[{at}]", value, "it is a finite number")
    return found


def numbers(field: str, given: Any) -> list[float]:
    """A column of numbers, NaN and Inf too."""
    found: list[float] = []
    for at, value in enumerate(column(field, given)):
        try:
            found.append(number(value))
        except NotANumber as error:
            raise BadInput(f"{field}[{at}]", str(error), "it is a number") from error
    return found


def flat(field: str, given: Any) -> list[float]:
    """The numbers of an array of any shape, NaN and Inf too."""
    if len(getattr(given, "shape", ())) > 1:
        given = given.reshape(-1)
    return numbers(field, given)


def labels(field: str, given: Any) -> list[Hashable]:
    """A column of classes: texts, whole numbers, truth values."""
    found = column(field, given)
    for at, value in enumerate(found):
        if not isinstance(value, Hashable) or value is None or value != value:
            raise BadInput(f"{field}[{at}]", repr(value)[:_SHOWN], "a class is a text or a number")
    return found


def rows(field: str, given: Any) -> list[list[float]]:
    """Numbers in two dimensions, all rows of one length."""
    found = [finite(f"{field}[{at}]", row) for at, row in enumerate(items(field, given))]
    for at, row in enumerate(found):
        if len(row) != len(found[0]):
            raise BadInput(f"{field}[{at}]", f"{len(row)} numbers long", f"{field}[0] has {len(found[0])}")
    return found


def is_row(value: Any) -> bool:
    """Whether a value is one of several numbers, as rows of a matrix are."""
    return isinstance(value, list | tuple) or bool(getattr(value, "shape", ()))


def same_length(first: str, one: Sequence[Any], second: str, other: Sequence[Any]) -> None:
    """Raise BadInput where two columns are not of the same samples."""
    if len(one) != len(other):
        raise BadInput(f"length of {second}", len(other), f"{first} has {len(one)} values, one for each sample")


def items(field: str, given: Any) -> list[Any]:
    """What a sequence holds, as a list."""
    for name in ("tolist", "to_pylist", "to_list"):
        if callable(take := getattr(given, name, None)):
            found = take()
            if isinstance(found, list):
                return found
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise BadInput(field, f"of type {type(given).__name__}", "it is a sequence, one value for each sample")
    return list(given)


def _scalar(value: Any) -> Any:
    """Python's own value of a scalar of numpy, torch or jax."""
    if isinstance(value, str | int | float) and type(value).__module__ == "builtins":
        return value
    item = getattr(value, "item", None)
    return item() if callable(item) and math.prod(getattr(value, "shape", ())) == 1 else value
