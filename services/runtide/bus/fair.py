"""A queue that serves projects in turn: what one of them has waiting does not hold up the others.

Promises: items of one project come out in the order in which they went in; where several projects wait, each gets the
same share of bytes (deficit round robin). Both ends take constant time.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")

TURN_BYTES = 128 * 1024
"""What a project may take out in one turn; a larger item saves up for it over several turns."""


@dataclass(slots=True)
class _Line(Generic[Item]):
    """What waits of one project."""

    items: deque[tuple[int, Item]] = field(default_factory=deque)
    credit: int = TURN_BYTES


class FairQueue(Generic[Item]):
    """Lines of projects; the first one has its turn."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, _Line[Item]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._lines)

    def put(self, project: str, size: int, item: Item) -> None:
        """Add at the end of the project's line."""
        self._lines.setdefault(project, _Line()).items.append((size, item))

    def get(self) -> Item:
        """Take out the next item. Raises LookupError where nothing waits."""
        while self._lines:
            project, line = next(iter(self._lines.items()))
            alone = len(self._lines) == 1
            if line.items[0][0] <= line.credit or alone:
                size, item = line.items.popleft()
                line.credit -= 0 if alone else size
                if not line.items:
                    del self._lines[project]
                return item
            line.credit += TURN_BYTES
            self._lines.move_to_end(project)
        raise LookupError("nothing waits")

    def clear(self) -> None:
        """Forget everything."""
        self._lines.clear()
