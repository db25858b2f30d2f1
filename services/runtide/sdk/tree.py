"""run.config and run.summary: nested dictionaries, by item or by attribute, that say what is set in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from runtide.sdk import values
from runtide.wire.errors import BadInput

Said = Callable[[Mapping[str, object], list[str]], None]
"""Called with what was set (joined names to values) and what was removed."""


class Tree(MutableMapping[str, Any]):
    """A dictionary whose nested dictionaries are trees too. Secrets are kept, and masked on the way out."""

    __slots__ = ("_data", "_path", "_said", "_separator")

    def __init__(self, said: Said, separator: str = ".", data: dict[str, Any] | None = None, path: str = "") -> None:
        object.__setattr__(self, "_said", said)
        object.__setattr__(self, "_separator", separator)
        object.__setattr__(self, "_data", {} if data is None else data)
        object.__setattr__(self, "_path", path)

    def __getitem__(self, key: str) -> Any:
        value = self._data[key]
        if isinstance(value, dict):
            return Tree(self._said, self._separator, value, f"{self._path}{key}{self._separator}")
        return value

    def __setitem__(self, key: str, value: object) -> None:
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        value = self._data.pop(key)
        name = f"{self._path}{key}"
        leaves = values.flatten({name: value}, self._separator) if isinstance(value, dict) else [(name, value)]
        self._said({}, [str(leaf) for leaf, _ in leaves])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{name} is not set") from None

    def __setattr__(self, name: str, value: object) -> None:
        self[name] = value

    def __delattr__(self, name: str) -> None:
        del self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return repr(self._data)

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return dict, (self.as_dict(),)  # a copy elsewhere says nothing

    def as_dict(self) -> dict[str, Any]:
        """A plain copy."""
        return _plain(self._data)

    def update(self, *others: Any, **named: Any) -> None:
        """Set several; nested mappings are merged into what is there."""
        for given in (*others, named):
            mapping = values.as_mapping(given)
            if mapping is None:
                mapping = _pairs(given)
            changed: dict[str, object] = {}
            # an empty section was said as a value
            removed = [self._path.removesuffix(self._separator)] if self._path and not self._data else []
            _merge(self._data, mapping, self._path, self._separator, changed, removed, frozenset([id(given)]))
            if changed or removed:
                self._said(changed, removed)

    def setdefaults(self, defaults: Mapping[str, Any]) -> None:
        """Set what is not set yet."""
        self.update({key: value for key, value in defaults.items() if key not in self._data})


def _merge(
    into: dict[str, Any],
    given: Mapping[Any, Any],
    path: str,
    separator: str,
    changed: dict[str, object],
    removed: list[str],
    above: frozenset[int],
) -> None:
    """`above` are the mappings that `given` lies in: what holds itself is said as a circle, and not kept."""
    for key, value in given.items():
        name = str(key)
        inner = values.as_mapping(value)
        below = bool(inner) and len(above) <= values.MAX_DEPTH
        if id(value) in above or (not below and values.circular(value)):
            changed[f"{path}{name}"] = values.CIRCLE
        elif inner and below:
            there = into.get(name)
            if not isinstance(there, dict) or not there:
                if name in into:
                    removed.append(f"{path}{name}")
                there = into[name] = {}
            _merge(there, inner, f"{path}{name}{separator}", separator, changed, removed, above | {id(value)})
        else:
            if isinstance(there := into.get(name), dict) and there:
                removed += [str(leaf) for leaf, _ in values.flatten({f"{path}{name}": there}, separator)]
            into[name] = dict(inner) if inner is not None else value
            changed[f"{path}{name}"] = into[name]


def _pairs(given: Any) -> dict[Any, Any]:
    try:
        return dict(given)
    except (TypeError, ValueError):
        limit = "config and summary take a dictionary, an object with fields, or pairs of names and values"
        raise BadInput("what is to be set", f"of type {type(given).__name__}", limit) from None


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) if isinstance(value, dict) else value for key, value in data.items()}
