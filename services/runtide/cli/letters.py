"""What `runtide dead-letters` does: find letters, show them, and send a person's word on them through the gateway."""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runtide.agent.gateway import Failure, GatewayClient, Tls, Verdict
from runtide.cli.home import Home
from runtide.cli.settings import read_settings
from runtide.cli.store import find_run
from runtide.spool.layout import tls_files
from runtide.v1.ingest_pb2 import Ack, PushRequest
from runtide.warehouse.client import Client
from runtide.warehouse.dead_letters import Letter, Ruled, letters_of, list_letters, rulings_of
from runtide.warehouse.queries.letters import records_in
from runtide.warehouse.rulings import Outcome, Push, Word
from runtide.warehouse.rulings import rule as have_ruled
from runtide.wire.errors import BadInput, Busy, NotAllowed, Refused, RuntideError, Unavailable

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
    with _pushing(url or gateway_url(home)) as push:
        return have_ruled(client, letters, word, push, wait_s)


def gateway_url(home: Path | None) -> str:
    """The gateway: RUNTIDE_URL, else that of the `runtide up` that serves the home, else the configured port here."""
    if told := os.environ.get("RUNTIDE_URL"):
        return told
    settings = read_settings(home)
    state = Home(settings.home_folder).read()
    port = state.ports.gateway if state is not None and state.alive else settings.gateway.port
    return settings.gateway.url(settings.gateway.host, port)


@contextmanager
def _pushing(url: str) -> Iterator[Push]:
    """A connection to the gateway, with the token and the TLS files that the environment names."""
    token, tls = os.environ.get("RUNTIDE_TOKEN", ""), Tls(*tls_files(os.environ))

    async def connect() -> GatewayClient:
        return GatewayClient(url, token, tls)

    with asyncio.Runner() as runner:
        try:
            gateway = runner.run(connect())
        except OSError as error:
            raise BadInput("a TLS file", error.filename, f"it cannot be read: {error.strerror}") from error

        def push(request: PushRequest) -> Sequence[Ack]:
            try:
                return runner.run(gateway.push(request))
            except Failure as failure:
                raise _meant(failure) from failure

        try:
            yield push
        finally:
            runner.run(gateway.close())


def _meant(failure: Failure) -> RuntideError:
    """A failed call as an error for people."""
    if failure.verdict is Verdict.NOT_ALLOWED:
        return NotAllowed(f"{failure.text}: set RUNTIDE_TOKEN to an admin token of this project")
    if failure.verdict is Verdict.REFUSED:
        return Refused(failure.text)
    if failure.delay_s is not None:
        return Busy(failure.text, failure.delay_s)
    return Unavailable(f"{failure.text}: start `runtide up`, or say where it is with --url")


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
