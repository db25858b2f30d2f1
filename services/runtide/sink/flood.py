"""Tells a flood of refusals, which is the fault of a release or of the store, from records that are bad. Pure.

What is refused of a kind of record for a reason is counted up, what is stored of that kind down again. From some number
on the runs of the partition vote: against, where their last records of the kind were refused, or for, where some were
stored. It is a flood when more vote against than for, and at least two of those against were understood before: two
jobs do not begin to write bad records at once by themselves, so it is this side that has changed. Where more than one
project writes, those two have to be of two projects: no single one can stop the others. One job that writes only bad
records is one vote, however many ranks it has; any number of new jobs that never wrote a good one have none: they fill
the dead letters, and stop nobody. A message that is no range at all cannot be a job's fault, since gateways
make them: a row of those is a flood without a vote.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field

from runtide.sink.arrived import Arrived
from runtide.wire.books import UNREADABLE
from runtide.wire.decode import Dead, Decoded

RunKey = tuple[str, str]
"""Project and run id."""
Understood = Callable[[str, Set[RunKey]], Set[RunKey]]
"""Those of the runs of which records of a kind are stored."""
Shared = Callable[[Arrived], bool]
"""Whether other projects than that of what arrived write too."""

RECORDS = 100
"""Refused records that may pass before anything is judged."""
WITNESSES = 2
"""Runs that were understood before and are refused now."""
REASONS = 1000
"""Reasons told apart on one partition."""

_NUMBERS = re.compile(r"\d+")


class Flooded(Exception):
    """Nothing more of a partition must be stored: it would all go into the dead letters."""

    def __init__(self, partition: int, refused: int, runs: int, kind: str, reason: str) -> None:
        what = f"{refused} {kind or 'unreadable'} records of {runs} runs"
        super().__init__(f"partition {partition}: {what} are refused, and nothing of that kind is stored: {reason}")
        self.partition = partition


@dataclass(slots=True)
class _Votes:
    """On one kind of record and one reason."""

    refused: int = 0
    """Without what was stored since."""
    against: set[RunKey] = field(default_factory=set)
    for_: set[RunKey] = field(default_factory=set)
    witnesses: set[RunKey] = field(default_factory=set)
    asked: set[RunKey] = field(default_factory=set)

    def vote(self, run: RunKey, *, for_: bool) -> None:
        """The last vote of a run counts."""
        (self.for_ if for_ else self.against).add(run)
        (self.against if for_ else self.for_).discard(run)

    def copy(self) -> _Votes:
        return _Votes(self.refused, set(self.against), set(self.for_), set(self.witnesses), set(self.asked))


class Flood:
    """The votes of all partitions of a sink."""

    def __init__(self, records: int = RECORDS) -> None:
        """`records` refused in a row are judged; 0 lets everything into the dead letters."""
        self._records = records
        self._votes: dict[int, dict[tuple[str, str], _Votes]] = {}
        self._shared = False
        """Once more than one project has written, that is so."""

    def copy(self) -> Flood:
        """For a flush of which it is not known yet whether it will hold."""
        found = Flood(self._records)
        found._shared = self._shared
        found._votes = {
            partition: {about: votes.copy() for about, votes in of.items()} for partition, of in self._votes.items()
        }
        return found

    def refused(self, part: Arrived, dead: Iterable[Dead], understood: Understood, shared: Shared) -> None:
        """Note refusals. Raises Flooded, and what `understood` and `shared` raise."""
        if self._records == 0 or part.letter:
            return
        kinds = counted(part.said)
        of = self._votes.setdefault(part.partition, {})
        for letter in dead:
            about = letter.kind, _NUMBERS.sub("0", letter.reason)
            if about not in of and len(of) >= REASONS:
                continue
            votes = of.setdefault(about, _Votes())
            votes.refused += 1
            votes.vote(part.key[:2], for_=bool(_number(kinds, letter.kind)))
            if self._is_flood(part, letter.kind, votes, understood, shared):
                raise Flooded(part.partition, votes.refused, len(votes.against), letter.kind, letter.reason)

    def stored(self, part: Arrived, refused: Counter[str]) -> None:
        """Note what is stored: all but those that were refused, which are taken out of the count."""
        of = self._votes.get(part.partition)
        if not of or part.letter:
            return
        kinds = counted(part.said)
        left = kinds - refused
        refused -= kinds
        for about, votes in list(of.items()):
            number = _number(left, about[0])
            if number >= votes.refused:
                del of[about]
            elif number:
                votes.refused -= number
                votes.vote(part.key[:2], for_=True)

    def _is_flood(self, part: Arrived, kind: str, votes: _Votes, understood: Understood, shared: Shared) -> bool:
        if votes.refused < self._records or len(votes.against) <= len(votes.for_):
            return False
        if part.stream.startswith(UNREADABLE):
            return not votes.for_
        if new := votes.against - votes.asked:
            votes.asked |= new
            votes.witnesses |= understood(kind, new)
        witnesses = votes.witnesses & votes.against
        if len(witnesses) < WITNESSES:
            return False
        if len({project for project, _ in witnesses}) > 1:
            return True
        self._shared = self._shared or shared(part)
        return not self._shared


def counted(said: Decoded) -> Counter[str]:
    """How many records of each kind are there."""
    found = Counter(other.kind for other in said.others)
    found["step"], found["sample"], found["log_line"] = len(said.steps), len(said.samples), len(said.log_lines)
    found["figure"] = len(said.figures)
    return found


def _number(kinds: Counter[str], kind: str) -> int:
    """Of a kind; of what has no kind that could be told, all."""
    return kinds[kind] if kind else kinds.total()
