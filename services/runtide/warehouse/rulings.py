"""A person's word on dead letters: the ranges that carry it to the sink, and what became of each letter.

The word goes the way of every range, so that the one sink that owns the stream carries it out, whatever else it is
doing; this only asks a gateway, and then looks into the store until each letter has its fate. How a Push reaches the
gateway is the caller's affair: the command line and the pages have connections and tokens of their own.
"""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from clickhouse_connect.driver.client import Client
from google.protobuf.message import DecodeError

from runtide.v1.ingest_pb2 import Ack, PushRequest, Range, Ruling
from runtide.warehouse.dead_letters import DONE, REFUSED, TAKEN, UNREADABLE, Letter, letters_of
from runtide.wire.errors import BadInput, Busy, Unavailable
from runtide.wire.limits import PUSH_RANGES, RULING_LETTERS

RULING_BYTES = 8 * 1024 * 1024
"""Bytes of letters that one ruling is about: the sink holds them all at once."""
TRIES = 8
AGAIN_S = 0.5
PUSH_ENVELOPE_BYTES = 256 * 1024
"""Bytes after which a Push is sent off: offsets stand beside the bodies, and for that gateways have a limit."""
WAITING = "waiting"
LOOK_S = 0.2

Push = Callable[[PushRequest], Sequence[Ack]]
"""Hands ranges to a gateway. Raises Busy, Unavailable and NotAllowed."""


@dataclass(frozen=True, slots=True)
class Word:
    """What a person says of letters."""

    by: str
    """Who it is."""
    why: str = ""
    discard: bool = False
    """They are given up for good, else they are judged again."""

    def __post_init__(self) -> None:
        """Raises BadInput where letters would be given up without a reason."""
        if self.discard and not self.why.strip():
            raise BadInput("the reason", repr(self.why), "it must say why they are given up")


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


def account() -> str:
    """The account and the host that this process runs in, for `Word.by`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number that has no name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def rule(client: Client, letters: Sequence[Letter], word: Word, push: Push, wait_s: float = 60) -> list[Outcome]:
    """Have letters judged again, or given up, and wait until that is done.

    Raises Unavailable where no gateway answers, NotAllowed where the token may not rule on letters of the project,
    BadInput where the gateway refuses.
    """
    failed: list[Outcome] = []
    again: list[Range] = []
    ready: list[Letter] = []
    for letter in letters:
        if not word.discard and letter.stream.startswith(UNREADABLE):
            try:
                again.append(_range_in(client, letter))
            except DecodeError as error:
                failed.append(Outcome(letter, REFUSED, f"not a range of this wire: {error}"))
                continue
        ready.append(letter)
    if ready:
        hand_over([*again, *rulings(ready, word)], push)
    return [*failed, *_outcomes(client, ready, wait_s)]


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


def rulings(letters: Sequence[Letter], word: Word) -> Iterator[Range]:
    """Ranges that rule on the letters of each stream, of few enough bytes and in their order."""
    by_stream: dict[tuple[str, str, str], list[Letter]] = {}
    for letter in sorted(letters, key=lambda letter: letter.offset):
        by_stream.setdefault((letter.project, letter.run_id, letter.stream), []).append(letter)
    for same in by_stream.values():
        some: list[Letter] = []
        for letter in same:
            full = len(some) == RULING_LETTERS or sum(each.length for each in some) + letter.length > RULING_BYTES
            if some and full:
                yield _ruling(some, word)
                some = []
            some.append(letter)
        yield _ruling(some, word)


def _ruling(letters: Sequence[Letter], word: Word) -> Range:
    first = letters[0]
    said = {"discard": word.why} if word.discard else {"why": word.why}
    return Range(
        project=first.project,
        run_id=first.run_id,
        stream=first.stream,
        rank=first.rank,
        offset=first.offset,
        ruling=Ruling(offsets=[letter.offset for letter in letters], by=word.by, **said),
    )


def hand_over(ranges: Sequence[Range], push: Push) -> None:
    """Push ranges in order, those of one project together; a busy gateway is asked again."""
    by_project: dict[str, list[Range]] = {}
    for range_ in ranges:
        by_project.setdefault(range_.project, []).append(range_)
    for of_project in by_project.values():
        for request in _requests(of_project):
            for ack in _pushed(request, push):
                if ack.HasField("refusal"):
                    said = ack.refusal
                    raise BadInput(f"{said.field} of stream {ack.stream}", said.value, said.limit)


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


def _pushed(request: PushRequest, push: Push) -> Sequence[Ack]:
    for _ in range(TRIES - 1):
        try:
            return push(request)
        except Busy as busy:
            time.sleep(busy.retry_after_s)
        except Unavailable:
            time.sleep(AGAIN_S)
    return push(request)


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
