"""What `runtide dead-letters` does: find letters, show them, and send a person's word on them through the gateway."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runtide.cli.pushing import gateway_url, pushing
from runtide.cli.store import find_run
from runtide.warehouse.client import Client
from runtide.warehouse.dead_letters import Letter, Ruled, letters_of, list_letters, rulings_of
from runtide.warehouse.queries.letters import records_in
from runtide.warehouse.rulings import Outcome, Word
from runtide.warehouse.rulings import rule as have_ruled
from runtide.wire.errors import BadInput, RuntideError

ALL = 10_000_000
NO_RUN = "-"
"""How the run is given of letters that belong to none, because their message could not be read at all."""
SHOWN_KINDS = 50

Row = dict[str, Any]


class UnknownLetter(RuntideError):
    """No dead letter is there."""

    code = "unknown_letter"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters are meant."""

    run: str | None = None
    project: str | None = None
    everything: bool = False
    stream: str | None = None
    offset: int | None = None

    @property
    def picks(self) -> bool:
        """Whether it leaves out some letters of its run or project."""
        return self.run == NO_RUN or bool(self.stream) or self.offset is not None

    def has(self, letter: Letter) -> bool:
        """Whether a letter of its run or project is meant."""
        return (
            not (self.run == NO_RUN and letter.run_id)
            and letter.stream.startswith(self.stream or "")
            and self.offset in (None, letter.offset)
        )

    def check(self) -> None:
        """Raises BadInput where nothing was chosen: too much is done by accident otherwise."""
        if not (self.run or self.project or self.everything):
            raise BadInput("RUN", "missing", "give a run, --project P, or --all for every letter there is")
        if self.offset is not None and not self.stream:
            raise BadInput("--offset", self.offset, "it needs --stream, since every stream has offsets of its own")


def find(client: Client, choice: Choice, *, done: bool = False, limit: int = ALL) -> list[Letter]:
    """The chosen letters, newest first. Raises UnknownRun."""
    looked = ALL if choice.picks else limit
    if choice.run in (None, NO_RUN):
        found = list_letters(client, choice.project, limit=looked, done=done)
    else:
        key = find_run(client, choice.run, choice.project)
        found = list_letters(client, key.project, key.run_id, limit=looked, done=done)
    return [letter for letter in found if choice.has(letter)][:limit]


def brief(letter: Letter) -> Row:
    """One row of the list."""
    return {
        "received_at": _time(letter.received_us),
        "project": letter.project,
        "run_id": letter.run_id or NO_RUN,
        "stream": letter.stream,
        "offset": letter.offset,
        "length": letter.length,
        "kind": letter.kind,
        "rank": letter.rank,
        "host": letter.host,
        "fate": letter.fate or "dead",
        "reason": letter.reason,
    }


def whole(client: Client, choice: Choice) -> Row:
    """Everything about one letter. Raises UnknownLetter."""
    found = find(client, choice, done=True)
    if len(found) != 1:
        where = f"of run {choice.run} at offset {choice.offset} of stream {choice.stream}"
        how_many = (
            f"{len(found)} dead letters are there, give the stream in full" if found else "no dead letter is there"
        )
        raise UnknownLetter(f"{how_many}: {where}; see `runtide dead-letters list`")
    letter = found[0]
    (letter,) = letters_of(client, letter.project, letter.run_id, letter.stream, [letter.offset])
    (row,) = with_rulings(client, [letter])
    return {
        **row,
        "attempt": letter.attempt,
        "records": list(records_in(letter)),
        "hex": letter.bytes.hex(),
    }


def with_rulings(client: Client, letters: Sequence[Letter]) -> list[Row]:
    """Rows of the list for programs: each letter with what became of it so far, by whose word and why."""
    ruled: dict[tuple[str, str, str], list[Letter]] = defaultdict(list)
    for letter in letters:
        if letter.fate:
            ruled[letter.project, letter.run_id, letter.stream].append(letter)
    steps: dict[tuple[str, str, str, int], list[Row]] = defaultdict(list)
    for key, of_stream in ruled.items():
        for step in rulings_of(client, *key, [letter.offset for letter in of_stream]):
            steps[(*key, step.offset)].append(_step(step))
    return [
        {**brief(each), "rulings": steps.get((each.project, each.run_id, each.stream, each.offset), [])}
        for each in letters
    ]


def _step(ruled: Ruled) -> Row:
    return {
        "fate": ruled.fate,
        "at": _time(ruled.at_us),
        "by": ruled.by,
        "token": ruled.token,
        "why": ruled.why,
        "refusal": ruled.refusal,
    }


def rule(
    client: Client, letters: Sequence[Letter], home: Path | None, url: str | None, word: Word, wait_s: float = 60
) -> list[Outcome]:
    """Have letters judged again, or given up, and wait until that is done.

    Raises Unavailable where no gateway answers, NotAllowed where the token may not rule on letters of the project,
    BadInput where the gateway refuses.
    """
    with pushing(url or gateway_url(home)) as push:
        return have_ruled(client, letters, word, push, wait_s)


def plain(outcome: Outcome) -> Row:
    """An outcome for programs."""
    letter = outcome.letter
    who = {"project": letter.project, "run_id": letter.run_id, "stream": letter.stream, "offset": letter.offset}
    return {**who, "fate": outcome.fate, "reason": outcome.reason}


def summed(outcomes: Sequence[Outcome]) -> list[Row]:
    """Outcomes for people: how many of each kind."""
    counted = Counter((outcome.letter.run_id or NO_RUN, outcome.fate, outcome.reason) for outcome in outcomes)
    return [
        {"run_id": run, "letters": number, "fate": fate, "reason": reason}
        for (run, fate, reason), number in counted.most_common(SHOWN_KINDS)
    ]


def _time(time_us: int) -> datetime:
    return datetime.fromtimestamp(time_us / 1_000_000, UTC)
