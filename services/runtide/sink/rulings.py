"""Dead letters that are judged again, or given up, because a person said so.

A ruling comes over the bus like everything else, with the key of its stream, so that the one sink that owns the stream
carries it out; it names offsets only, the bytes are those that the dead letter kept. A replay goes:

    fate `taken`       from here on the dead letter does not fill its place in the stream any more
    ledger             its place is a hole again, and `dead` is one less
    rows, ledger       as of any late range that closes a hole
    fate `replayed`

Wherever that breaks off, the ruling comes again (it was not committed) or is given again, and finds out from fate, hole
and raw tables where to go on; so a letter is never stored twice, and never lost. What is refused once more gets the
fate `refused` with the new reason and fills its place as before; a discarded one fills it for good.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from clickhouse_connect.driver.client import Client

from runtide.sink.arrived import Arrived, late_days
from runtide.sink.columns import Fate
from runtide.sink.streams import StreamKey, StreamState
from runtide.v1.ingest_pb2 import Range, Ruling
from runtide.v1.records_pb2 import KeySet
from runtide.warehouse.dead_letters import (
    DISCARDED,
    REFUSED,
    REPLAYED,
    TAKEN,
    Letter,
    key_sets_of,
    letters_of,
    stored_among,
)
from runtide.wire.books import UNREADABLE
from runtide.wire.decode import Decoded, decode

Place = tuple[StreamKey, int]
"""Stream and offset of a letter."""

_REASON = 2000
"""Characters of a reason that are kept."""


@dataclass(slots=True)
class Judged:
    """What is to be written of the letters of some streams, in this order."""

    fates: list[Fate] = field(default_factory=list)
    """Before anything else."""
    reopened: list[Arrived] = field(default_factory=list)
    """Letters whose places become holes, in the ledger, before their rows are stored."""
    parts: list[Arrived] = field(default_factory=list)
    """Letters as ranges that can be stored now."""
    last: dict[Place, Fate] = field(default_factory=dict)
    """Fates of letters whose rows are stored: after the ledger."""

    def reopen(self, states: Mapping[StreamKey, StreamState]) -> list[StreamState]:
        """Make the holes; returns the states that changed."""
        for part in self.reopened:
            states[part.key].extent.reopen(part.start, part.end)
            states[part.key].dead -= 1
        return [states[key] for key in sorted({part.key for part in self.reopened})]

    def refuse(self, part: Arrived, reason: str) -> Fate:
        """The fate of a letter that the store itself refuses, in place of the one that it would have had."""
        fate = self.last.pop((part.key, part.start))
        return replace(fate, fate=REFUSED, reason=reason[:_REASON])


def judge(client: Client, rulings: Iterable[Arrived], states: Mapping[StreamKey, StreamState], now_us: int) -> Judged:
    """Read the letters that rulings are about, and decide. `states` are fresh from the store. Raises StoreError."""
    out = Judged()
    for key, offsets in _by_stream(rulings).items():
        letters = [letter for letter in letters_of(client, *key, list(offsets)) if letter.open]
        stored = stored_among(client, [letter for letter in letters if letter.fate == TAKEN])
        names = _Names(client, key)
        for letter in letters:
            _judge_one(letter, offsets[letter.offset], letter.offset in stored, names, states[key], now_us, out)
    return out


class _Names:
    """The key sets of a stream as they were at each offset, those of letters that are judged with it included."""

    def __init__(self, client: Client, key: StreamKey) -> None:
        self._client, self._key = client, key
        self._stored: list[tuple[int, KeySet]] | None = None
        self._new: list[tuple[int, KeySet]] = []

    def before(self, offset: int) -> list[KeySet]:
        if self._stored is None:
            self._stored = key_sets_of(self._client, *self._key)
        return [key_set for at, key_set in sorted([*self._stored, *self._new], key=lambda each: each[0]) if at < offset]

    def learn(self, said: Decoded) -> None:
        self._new += [(other.offset, other.message) for other in said.others if isinstance(other.message, KeySet)]


def _by_stream(rulings: Iterable[Arrived]) -> dict[StreamKey, dict[int, Ruling]]:
    """The last ruling on each letter."""
    out: dict[StreamKey, dict[int, Ruling]] = {}
    for part in rulings:
        assert part.ruling is not None
        out.setdefault(part.key, {}).update(dict.fromkeys(part.ruling.offsets, part.ruling))
    return out


def _judge_one(
    letter: Letter, ruling: Ruling, stored: bool, names: _Names, state: StreamState, now_us: int, out: Judged
) -> None:
    def fate(name: str, reason: str = "", step: int = 1) -> Fate:
        why = (ruling.discard or ruling.why)[:_REASON]
        return Fate(letter, name, reason[:_REASON], ruling.by, now_us, why, ruling.token[:_REASON], step)

    in_hole = bool(state.extent.missing(letter.offset, letter.end))
    if stored and not in_hole:  # a replay that broke off before its last line
        out.last[state.key, letter.offset] = fate(REPLAYED)
        return
    if ruling.discard and not stored:
        out.fates.append(fate(DISCARDED, ruling.discard))
        return
    if letter.stream.startswith(UNREADABLE):  # its range was read elsewhere, and pushed under its true name
        out.fates.append(fate(REPLAYED))
        return
    part = _part(letter, names, state, now_us)
    if part.said.dead:
        out.fates.append(fate(REFUSED, part.said.dead[0].reason))
        return
    names.learn(part.said)
    if letter.fate != TAKEN:
        out.fates.append(fate(TAKEN))
    if not in_hole:
        out.reopened.append(part)
    out.parts.append(part)
    out.last[state.key, letter.offset] = fate(REPLAYED, step=1 if letter.fate == TAKEN else 2)


def _part(letter: Letter, names: _Names, state: StreamState, now_us: int) -> Arrived:
    """The letter as a range of its own."""
    range_ = Range(
        stream=letter.stream,
        offset=letter.offset,
        run_id=letter.run_id,
        rank=letter.rank,
        attempt=letter.attempt,
        host=letter.host,
        project=letter.project,
        key_sets=names.before(letter.offset),
    )
    who = letter.project, letter.run_id, letter.stream, state.role, letter.rank, letter.host
    said = decode(range_, letter.bytes)
    when = letter.attempt, letter.received_us, letter.offset, letter.end
    late = late_days(letter.received_us, now_us)
    return Arrived(*who, *when, said, letter.bytes, letter=True, late_days=late)
