"""run.config and run.summary: nested dictionaries, by item or by attribute, that say what is set in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from runtide.sdk import values

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
                mapping = dict(given)
            changed: dict[str, object] = {}
            _merge(self._data, mapping, self._path, self._separator, changed, 0)
            if changed:
                self._said(changed, [])

    def setdefaults(self, defaults: Mapping[str, Any]) -> None:
        """Set what is not set yet."""
        self.update({key: value for key, value in defaults.items() if key not in self._data})


def _merge(
    into: dict[str, Any],
    given: Mapping[Any, Any],
    path: str,
    separator: str,
    changed: dict[str, object],
    depth: int,
) -> None:
    for key, value in given.items():
        name = str(key)
        inner = values.as_mapping(value)
        if inner and depth < values.MAX_DEPTH:
            there = into.get(name)
            if not isinstance(there, dict):
                there = into[name] = {}
            _merge(there, inner, f"{path}{name}{separator}", separator, changed, depth + 1)
        else:
            into[name] = dict(inner) if inner is not None else value
            changed[f"{path}{name}"] = into[name]


def _plain(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) if isinstance(value, dict) else value for key, value in data.items()}
