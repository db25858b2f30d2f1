"""What users hand in, as what the wire knows: numbers for metrics, JSON for configuration.

numpy, torch and jax are never imported: their scalars are numbers through `__float__` or `item()`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from runtide.wire import limits
from runtide.wire.errors import BadInput

MAX_DEPTH = 32
_REPR_CHARS = 1000
_DEEP = 200
_UNKNOWN = object()
CIRCLE = object()
"""Stands for a value that holds itself, so that it is refused by its name and costs nothing else."""


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class NotANumber(ValueError):
    """A metric value is none; the text says what it is instead."""

    limit = "metrics are numbers"


class TooLarge(NotANumber):
    """A whole number that no float holds."""

    limit = f"metrics are floats of 64 bits, at most {sys.float_info.max:.2g}"


def number(value: Any) -> float:
    """Turn a metric value into a float. Raises NotANumber."""
    if isinstance(value, float | int):
        try:
            return float(value)
        except OverflowError as error:
            sign = "-" if value < 0 else ""
            raise TooLarge(f"about {sign}10**{math.log10(abs(value)):.0f}") from error
    if isinstance(value, str | bytes | complex) or value is None:
        raise NotANumber(f"of type {_what(value)}")
    if (shape := getattr(value, "shape", None)) is not None and math.prod(shape) != 1:
        raise NotANumber(f"of type {_what(value)} with shape {tuple(shape)}")
    try:
        if callable(item := getattr(value, "item", None)):
            value = item()
            if isinstance(value, str | bytes | complex):
                raise NotANumber(f"of type {_what(value)}")
        return float(value)
    except NotANumber:
        raise
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise NotANumber(f"of type {_what(value)}") from error


def name_problem(what: str, name: object) -> BadInput | None:
    """Say what is wrong with the name of a metric or entry (`what`); None when nothing is."""
    if not isinstance(name, str):
        return BadInput(f"the name of {what}", f"{name!r:.80} of type {_what(name)}", "names are strings")
    if not name or name.isspace():
        return BadInput(f"the name of {what}", "blank" if name else "empty", "a name has a visible character at least")
    if _CONTROL.search(name):
        return BadInput(
            f"the name of {what}", f"{name!r:.80}", "names have no control characters, ends of line included"
        )
    size = len(name.encode("utf-8", "replace"))
    if size > limits.NAME_BYTES:
        return BadInput(f"the name {name[:60]!r}...", f"{size} bytes long", f"it has at most {limits.NAME_BYTES} bytes")
    try:
        name.encode()
    except UnicodeEncodeError:
        return BadInput(f"the name of {what}", f"{name!r:.80}", "names are valid Unicode")
    return None


def flatten(data: Mapping[Any, Any], separator: str, prefix: str = "", depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Yield (joined name, leaf) of nested mappings; dataclasses and namespaces count as mappings."""
    for key, value in data.items():
        name = f"{prefix}{key}" if prefix else key
        inner = as_mapping(value)
        if inner and depth < MAX_DEPTH:
            yield from flatten(inner, separator, f"{name}{separator}", depth + 1)
        else:
            yield name, value


def as_mapping(value: object) -> Mapping[Any, Any] | None:
    """See a value as a mapping where it is one: a dict, a dataclass, an argparse namespace, a pydantic model, a
    configuration of OmegaConf and so of Hydra.
    """
    if _of_omegaconf(value):
        value = _resolved(value)
    if isinstance(value, Mapping):
        return value
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if callable(dump := getattr(value, "model_dump", None)):
        found = dump()
        return found if isinstance(found, Mapping) else None
    if any(kind.__name__ in {"Namespace", "SimpleNamespace"} for kind in type(value).__mro__):
        return vars(value)
    return None


def circular(value: object, above: frozenset[int] = frozenset()) -> bool:
    """Whether a value holds itself somewhere, or is nested so deep that it may as well."""
    if value is None or isinstance(value, str | bytes | int | float):
        return False
    mapping = as_mapping(value)
    inner = value if isinstance(value, list | tuple) else () if mapping is None else mapping.values()
    if id(value) in above or len(above) > _DEEP:
        return True
    above |= {id(value)}
    return any(circular(item, above) for item in inner)


def opaque(value: object, depth: int = 0) -> str:
    """What there is in a value that has no form but its repr, by its type; empty where there is no such thing."""
    if value is None or isinstance(value, str | int | float | type) or depth > MAX_DEPTH:
        return ""
    if (mapping := as_mapping(value)) is not None:
        value = list(mapping.values())
    if isinstance(value, list | tuple):
        return next(filter(None, (opaque(item, depth + 1) for item in value)), "")
    step = _plainer(value)
    return _what(value) if step is _UNKNOWN else opaque(step, depth + 1)


def _of_omegaconf(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == "omegaconf"


def _resolved(value: object) -> object:
    """A container of OmegaConf as plain dictionaries and lists; as it is written where a reference leads nowhere."""
    plainly = sys.modules["omegaconf"].OmegaConf.to_container
    try:
        return plainly(value, resolve=True)
    except Exception:  # its own kinds of errors; what is missing must not cost the rest
        return plainly(value, resolve=False)


def to_json(value: object) -> str:
    """Write any value as JSON: what JSON does not know becomes text, NaN, Inf and lone surrogates too."""
    try:
        found = json.dumps(value, allow_nan=False, ensure_ascii=False, default=plain)
    except (TypeError, ValueError, RecursionError):
        found = json.dumps(_tame(value, 0), ensure_ascii=False)
    return found.encode("utf-8", "replace").decode()


def _what(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def plain(value: object) -> object:
    """One step from what JSON does not know to what it may know: a text at last."""
    step = _plainer(value)
    return repr(value)[:_REPR_CHARS] if step is _UNKNOWN else step


def _plainer(value: object) -> object:
    """That step; _UNKNOWN where there is nothing but its repr."""
    if isinstance(value, Enum):
        return value.value if isinstance(value.value, str | int | float | bool) else value.name
    if (mapping := as_mapping(value)) is not None:
        return {str(key): item for key, item in mapping.items()}
    if _of_omegaconf(value):
        return _resolved(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if callable(listed := getattr(value, "tolist", None)) and getattr(value, "size", None) is not None:
        return listed() if math.prod(getattr(value, "shape", ())) <= _REPR_CHARS else repr(value)[:_REPR_CHARS]
    if hasattr(value, "__fspath__"):
        return str(value)
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    return _UNKNOWN


def _tame(value: object, depth: int) -> object:
    """The slow way for what json refuses: NaN, keys that are no strings, circles."""
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth >= MAX_DEPTH:
        return repr(value)[:_REPR_CHARS]
    if isinstance(value, Mapping):
        return {str(key): _tame(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_tame(item, depth + 1) for item in value]
    return _tame(plain(value), depth + 1)
