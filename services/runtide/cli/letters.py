"""What `runtide dead-letters` does: find letters, show them, and send a person's word on them through the gateway.

The word goes the way of every range, so that the one sink that owns the stream carries it out, whatever else it is
doing; this only asks the gateway, and then looks into the store until each letter has its fate.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from runtide.agent.gateway import Failure, GatewayClient, Tls, Verdict
from runtide.cli.home import Home
from runtide.cli.settings import read_settings
from runtide.cli.store import find_run
from runtide.spool.layout import tls_files
from runtide.v1.ingest_pb2 import Ack, PushRequest, Range, Ruling
from runtide.v1.records_pb2 import Record
from runtide.warehouse.client import Client
from runtide.warehouse.dead_letters import DONE, REFUSED, TAKEN, Letter, letters_of, list_letters
from runtide.wire.errors import BadInput, NotAllowed, RuntideError, Unavailable
from runtide.wire.framing import FramingError, elements, sound
from runtide.wire.limits import PUSH_RANGES, RULING_LETTERS

ALL = 10_000_000
NO_RUN = "-"
"""How the run is given of letters that belong to none, because their message could not be read at all."""
RULING_BYTES = 8 * 1024 * 1024
"""Bytes of letters that one ruling is about: the sink holds them all at once."""
TRIES = 8
PUSH_ENVELOPE_BYTES = 256 * 1024
"""Bytes after which a Push is sent off: offsets stand beside the bodies, and for that gateways have a limit."""
WAITING = "waiting"
SHOWN_KINDS = 50
SHOWN_BYTES = 1024
LOOK_S = 0.2
UNREADABLE = "unreadable-"

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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a letter now."""

    letter: Letter
    fate: str
    """replayed, discarded, refused, or waiting where the sink has not answered in time."""
    reason: str

    @property
    def done(self) -> bool:
        """Whether it is no open dead letter any more."""
        return self.fate in DONE


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
    decided = {"decided_by": letter.by, "decided_at": _time(letter.at_us), "decided_why": letter.said}
    return {
        **brief(letter),
        "attempt": letter.attempt,
        **(decided if letter.fate else {}),
        "records": list(_read(letter)),
        "hex": letter.bytes.hex(),
    }


def dump(raw: bytes, limit: int = SHOWN_BYTES) -> Iterator[str]:
    """Lines of offset, hex and text."""
    for at in range(0, min(len(raw), limit), 16):
        some = raw[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in some)
        yield f"{at:6d}  {some.hex(' '):47s}  {text}"
    if len(raw) > limit:
        yield f"and {len(raw) - limit} bytes more (--json has all)"


def _read(letter: Letter) -> Iterator[Row]:
    """The letter decoded, record by record, as far as that goes."""
    if letter.stream.startswith(UNREADABLE):
        try:
            range_ = Range.FromString(letter.bytes)
        except DecodeError as error:
            yield {"problem": f"not a range: {error}"}
        else:
            yield {"range": MessageToDict(range_, preserving_proto_field_name=True)}
        return
    try:
        for element in elements(letter.bytes):
            said: Row = {"offset": letter.offset + element.start, "sound": sound(letter.bytes, element)}
            try:
                record = Record.FromString(letter.bytes[element.record : element.end])
                said["record"] = MessageToDict(record, preserving_proto_field_name=True)
            except DecodeError as error:
                said["problem"] = f"not a record of this wire: {error}"
            yield said
    except FramingError as error:
        yield {"offset": letter.offset + error.position, "problem": error.reason}


def rule(
    client: Client, letters: Sequence[Letter], home: Path | None, url: str | None, discard: str = "", wait_s: float = 60
) -> list[Outcome]:
    """Have letters judged again, or given up with a reason, and wait until that is done.

    Raises Unavailable where no gateway answers, NotAllowed where the token is not good for the project, BadInput where
    the gateway refuses.
    """
    failed: list[Outcome] = []
    again: list[Range] = []
    ready: list[Letter] = []
    for letter in letters:
        if not discard and letter.stream.startswith(UNREADABLE):
            try:
                again.append(_range_in(client, letter))
            except DecodeError as error:
                failed.append(Outcome(letter, REFUSED, f"not a range of this wire: {error}"))
                continue
        ready.append(letter)
    if ready:
        ranges = [*again, *_rulings(ready, f"{getpass.getuser()}@{socket.gethostname()}", discard)]
        asyncio.run(_push(ranges, url or gateway_url(home)))
    return [*failed, *_outcomes(client, ready, wait_s)]


def gateway_url(home: Path | None) -> str:
    """The gateway: RUNTIDE_URL, else that of the `runtide up` that serves the home, else the configured port here."""
    if told := os.environ.get("RUNTIDE_URL"):
        return told
    settings = read_settings(home)
    state = Home(settings.home_folder).read()
    port = state.ports.gateway if state is not None and state.alive else settings.gateway.port
    return settings.gateway.url(settings.gateway.host, port)


def _range_in(client: Client, letter: Letter) -> Range:
    """The range that a letter is which could not be read when it came. Raises DecodeError."""
    if letter.kind:  # the schema of its message: it is for a release that knows it
        raise DecodeError(letter.reason)
    (found,) = letters_of(client, letter.project, letter.run_id, letter.stream, [letter.offset])
    range_ = Range.FromString(found.bytes)
    if not range_.stream:
        raise DecodeError("the range names no stream")
    range_.project = letter.project
    return range_


def _rulings(letters: Sequence[Letter], by: str, discard: str) -> Iterator[Range]:
    """Ranges that rule on the letters of each stream, of few enough bytes and in their order."""
    by_stream: dict[tuple[str, str, str], list[Letter]] = {}
    for letter in sorted(letters, key=lambda letter: letter.offset):
        by_stream.setdefault((letter.project, letter.run_id, letter.stream), []).append(letter)
    for same in by_stream.values():
        some: list[Letter] = []
        for letter in same:
            full = len(some) == RULING_LETTERS or sum(each.length for each in some) + letter.length > RULING_BYTES
            if some and full:
                yield _ruling(some, by, discard)
                some = []
            some.append(letter)
        yield _ruling(some, by, discard)


def _ruling(letters: Sequence[Letter], by: str, discard: str) -> Range:
    first = letters[0]
    return Range(
        project=first.project,
        run_id=first.run_id,
        stream=first.stream,
        rank=first.rank,
        offset=first.offset,
        ruling=Ruling(offsets=[letter.offset for letter in letters], by=by, discard=discard),
    )


async def _push(ranges: Sequence[Range], url: str) -> None:
    """Hand over ranges in order, those of one project together; a busy gateway is asked again."""
    by_project: dict[str, list[Range]] = {}
    for range_ in ranges:
        by_project.setdefault(range_.project, []).append(range_)
    try:
        gateway = GatewayClient(url, os.environ.get("RUNTIDE_TOKEN", ""), Tls(*tls_files(os.environ)))
    except OSError as error:
        raise BadInput("a TLS file", error.filename, f"it cannot be read: {error.strerror}") from error
    try:
        for of_project in by_project.values():
            for request in _requests(of_project):
                for ack in await _pushed(gateway, request):
                    if ack.HasField("refusal"):
                        said = ack.refusal
                        raise BadInput(f"{said.field} of stream {ack.stream}", said.value, said.limit)
    finally:
        await gateway.close()


def _requests(ranges: Sequence[Range]) -> Iterator[PushRequest]:
    """Pushes within the wire's limits."""
    request = PushRequest(agent="dead-letters")
    for range_ in ranges:
        full = len(request.ranges) == PUSH_RANGES or request.ByteSize() + range_.ByteSize() > PUSH_ENVELOPE_BYTES
        if request.ranges and full:
            yield request
            request = PushRequest(agent="dead-letters")
        request.ranges.append(range_)
    yield request


async def _pushed(gateway: GatewayClient, request: PushRequest) -> Sequence[Ack]:
    for tried in range(1, TRIES + 1):
        try:
            return await gateway.push(request)
        except Failure as failure:
            if failure.verdict is Verdict.NOT_ALLOWED:
                raise NotAllowed(f"{failure.text}: set RUNTIDE_TOKEN to a token of this project") from failure
            if failure.verdict is Verdict.REFUSED or tried == TRIES:
                raise Unavailable(f"{failure.text}: start `runtide up`, or say where it is with --url") from failure
            await asyncio.sleep(failure.delay_s or 0.5)
    raise AssertionError


def _outcomes(client: Client, letters: Sequence[Letter], wait_s: float) -> list[Outcome]:
    """Look until each letter has a fate that it did not have before."""
    waiting = {(letter.project, letter.run_id, letter.stream, letter.offset): letter for letter in letters}
    found: list[Outcome] = []
    deadline = time.monotonic() + wait_s
    while waiting:
        by_stream: dict[tuple[str, str, str], list[int]] = {}
        for *stream, offset in waiting:
            by_stream.setdefault((stream[0], stream[1], stream[2]), []).append(offset)
        for key, offsets in by_stream.items():
            for now in letters_of(client, *key, offsets, content=False):
                before = waiting[(*key, now.offset)]
                if now.revision > before.revision and now.fate != TAKEN:
                    del waiting[(*key, now.offset)]
                    found.append(Outcome(before, now.fate, now.said or (now.reason if now.fate == REFUSED else "")))
        if time.monotonic() > deadline:
            break
        if waiting:
            time.sleep(LOOK_S)
    late = "the sink has not said anything yet: see `runtide dead-letters list` later"
    return [*found, *(Outcome(letter, WAITING, late) for letter in waiting.values())]


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
