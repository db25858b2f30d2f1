"""The spool's reader and the sink's decoder under spoiled bytes: no exception, no byte twice, none left out."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from runtide.bus import Message
from runtide.sink import columns
from runtide.sink.arrived import Arrived, read
from runtide.spool.layout import segment_name
from runtide.spool.reader import Cut, SegmentReader, damaged_spans, next_sound
from runtide.testing.streams import NOW_US, MadeStream, varied_stream
from runtide.wire import framing

from tests.fuzz.kept import cases, corpus, dice_of, failing
from tests.fuzz.mutate import SEED, TIMEOUT_S, Watch, mutated

pytestmark = [pytest.mark.fault(11), pytest.mark.timeout(TIMEOUT_S)]
STREAMS = [varied_stream("s", steps) for steps in (1, 12)]
TOGETHER = 50


def test_the_spool_reader(tmp_path: Path) -> None:
    dice, watch = random.Random(SEED), Watch("spool reader")
    seeds = [*(bytes(made.body) for made in STREAMS), *corpus("spool")]
    for body in cases("spool", watch, lambda: mutated(dice, seeds)):
        with failing("spool", body):
            read_back(tmp_path, body)
    watch.end()


def read_back(folder: Path, body: bytes) -> None:
    dice = dice_of(body)
    for path in folder.iterdir():
        path.unlink()
    edge = dice.randrange(len(body) + 1)
    (folder / segment_name(0)).write_bytes(body[:edge])
    (folder / segment_name(edge)).write_bytes(body[edge:])
    reader = SegmentReader(folder, verify=dice.random() < 0.5)
    at = 0
    while (piece := reader.cut(dice.choice([1, 100, 1 << 20]), dead=True)) is not None:
        assert piece.offset == at < piece.end
        if isinstance(piece, Cut):
            assert piece.body == body[at : piece.end]
            assert not reader.verify or damaged_spans(piece.body) == []
        at = piece.end
    assert next_sound(body, at) is None


def test_the_sinks_decoder() -> None:
    dice, watch = random.Random(SEED), Watch("wire.decode and the rows of it")
    bodies = [bytes(made.body) for made in STREAMS]
    ranges = [*(made.range().SerializeToString() for made in STREAMS), *corpus("decoder")]
    parts: list[Arrived] = []

    def new() -> bytes:
        if dice.random() < 0.5:
            return mutated(dice, ranges)
        range_ = MadeStream("s").range()  # the envelope is sound, and the records are not
        range_.offset = dice.choice([0, 5, 2**40])
        range_.body = mutated(dice, bodies)
        if dice.random() < 0.5:
            range_.body = resealed(range_.body)
        range_.key_sets.extend(STREAMS[0].range().key_sets)
        return range_.SerializeToString()

    for value in cases("decoder", watch, new):
        with failing("decoder", value):
            part = read(Message("p", b"k", value, NOW_US))
            if part.gap is None:
                assert covered(part) == part.end - part.start
            build([part])
        parts.append(part)
        if len(parts) == TOGETHER:
            build(parts)
            parts = []
    watch.end()


def covered(part: Arrived) -> int:
    """Bytes that the records of a part cover, which lie end to end."""
    said = part.said
    rows = [*said.samples, *said.log_lines, *said.figures, *said.others, *said.dead]
    found = [(row.offset, row.length) for row in rows]
    found += zip(said.steps.offset, said.steps.length, strict=True)
    at = part.start
    for offset, length in sorted(found):
        assert offset == at
        at += length
    return at - part.start


def build(parts: list[Arrived]) -> None:
    """Make the rows of all tables: what was decoded can be stored."""
    for table, count, make in columns.TABLES:
        some = [part for part in parts if count(part)]
        rows = make(some, 0).num_rows if some else 0
        assert rows == sum(map(count, parts)), table


def resealed(body: bytes) -> bytes:
    """The same records with crcs that fit, so that what is wrong lies deeper."""
    out, at = [], 0
    try:
        for element in framing.elements(body):
            out.append(framing.seal(body[element.record : element.end - framing.CRC_BYTES]))
            at = element.end
    except framing.FramingError:
        pass
    return b"".join(out) + body[at:]
