"""The reader under cuts, torn tails and flipped bits: sound records come out once and in order, damage is declared."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtide.spool.layout import segment_name
from runtide.spool.reader import Cut, Damage, SegmentReader, damaged_spans, scan
from runtide.v1.records_pb2 import KeySet, LogLine, Record, StreamClosed
from runtide.wire import framing
from runtide.wire.framing import StepEncoder, seal
from runtide.wire.limits import BATCH_BYTES, RECORD_BYTES


def key_set(number: int, *names: str) -> bytes:
    return seal(Record(key_set=KeySet(id=number, names=names)).SerializeToString())


def step(number: int, which: int = 1, values: tuple[float, ...] = (1.0, 2.0)) -> bytes:
    return StepEncoder(which, len(values)).encode(number, 1_000_000 + number, values)


def line(text: str) -> bytes:
    return seal(Record(log_line=LogLine(line=text)).SerializeToString())


def lay(folder: Path, *parts: list[bytes]) -> list[tuple[int, bytes]]:
    """Write each part as a segment and return all elements with their offsets."""
    offset, laid = 0, []
    for part in parts:
        (folder / segment_name(offset)).write_bytes(b"".join(part))
        for element in part:
            laid.append((offset, element))
            offset += len(element)
    return laid


def drain(reader: SegmentReader, limit: int = BATCH_BYTES) -> list[Cut | Damage]:
    found = []
    while (piece := reader.cut(limit, dead=True)) is not None:
        found.append(piece)
    return found


def split(cut: Cut) -> list[tuple[int, bytes]]:
    return [(cut.offset + e.start, cut.body[e.start : e.end]) for e in framing.elements(cut.body)]


def test_ranges_carry_the_key_sets_that_they_use_but_do_not_define(tmp_path: Path) -> None:
    lay(tmp_path, [key_set(1, "a", "b"), key_set(2, "c"), step(1), step(2), step(3, 2, (1.0,))])
    reader = SegmentReader(tmp_path)
    cuts = [cut for cut in drain(reader, len(step(1))) if isinstance(cut, Cut)]
    assert [[k.id for k in cut.key_sets] for cut in cuts] == [[], [1], [1], [2]]
    whole = SegmentReader(tmp_path).cut()
    assert isinstance(whole, Cut)
    assert whole.key_sets == ()
    assert whole.records == 5


def test_a_new_reader_in_the_middle_learns_key_sets_from_the_segment_start(tmp_path: Path) -> None:
    laid = lay(tmp_path, [key_set(1, "a", "b"), step(1)], [key_set(1, "a", "b"), line("x"), step(2), step(3)])
    cut = SegmentReader(tmp_path, laid[4][0]).cut()
    assert isinstance(cut, Cut)
    assert cut.offset == laid[4][0]
    assert list(cut.key_sets[0].names) == ["a", "b"]


def test_a_tail_that_is_not_whole_waits_and_then_comes(tmp_path: Path) -> None:
    element = step(1)
    path = tmp_path / segment_name(0)
    path.write_bytes(element + element[:20])
    reader = SegmentReader(tmp_path)
    assert isinstance(reader.cut(), Cut)
    assert reader.cut() is None
    path.write_bytes(element + element)
    cut = reader.cut()
    assert isinstance(cut, Cut)
    assert cut.offset == len(element)


def test_a_torn_tail_of_a_dead_writer_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / segment_name(0)).write_bytes(step(1) + step(2)[:-1])
    reader = SegmentReader(tmp_path)
    assert [type(piece) for piece in drain(reader)] == [Cut]
    assert reader.position == len(step(1))


def test_a_missing_segment_is_damage_of_its_length(tmp_path: Path) -> None:
    laid = lay(tmp_path, [step(1)], [step(2), step(3)], [step(4)])
    (tmp_path / segment_name(laid[1][0])).unlink()
    pieces = drain(SegmentReader(tmp_path))
    assert [(piece.offset, piece.end) for piece in pieces if isinstance(piece, Damage)] == [(laid[1][0], laid[3][0])]
    assert [piece.offset for piece in pieces if isinstance(piece, Cut)] == [0, laid[3][0]]


def test_a_record_beyond_the_limit_comes_alone(tmp_path: Path) -> None:
    laid = lay(tmp_path, [step(1), line("x" * (RECORD_BYTES + 1)), step(2)])
    pieces = drain(SegmentReader(tmp_path))
    assert [(piece.offset, piece.end - piece.offset) for piece in pieces] == [(o, len(e)) for o, e in laid]


def test_the_last_word_is_noticed(tmp_path: Path) -> None:
    lay(tmp_path, [step(1), seal(Record(stream_closed=StreamClosed(reason="finish")).SerializeToString())])
    cut = SegmentReader(tmp_path).cut()
    assert isinstance(cut, Cut)
    assert cut.closed


def test_rewinding_gives_the_same_records_again(tmp_path: Path) -> None:
    laid = lay(tmp_path, [key_set(1, "a", "b"), step(1)], [key_set(1, "a", "b"), step(2)])
    reader = SegmentReader(tmp_path)
    drain(reader)
    reader.rewind(laid[1][0])
    pieces = drain(reader, 10)
    assert [element for piece in pieces if isinstance(piece, Cut) for element in split(piece)] == laid[1:]


elements = st.one_of(
    st.builds(step, st.integers(-5, 5), st.just(1)),
    st.builds(step, st.integers(-5, 5), st.just(2), st.just((float("nan"), 3.0, 0.0))),
    st.builds(line, st.text(max_size=40)),
    st.builds(key_set, st.integers(1, 3), st.just("loss")),
)


@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(st.lists(elements, min_size=1, max_size=12), min_size=1, max_size=3),
    limit=st.integers(1, 400),
    torn=st.integers(0, 60),
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 7)), max_size=3),
    start=st.integers(0, 40),
)
def test_sound_records_once_and_in_order_and_damage_declared(
    tmp_path_factory: pytest.TempPathFactory,
    parts: list[list[bytes]],
    limit: int,
    torn: int,
    flips: list[tuple[int, int]],
    start: int,
) -> None:
    folder = tmp_path_factory.mktemp("stream")
    laid = lay(folder, *parts)
    total = sum(len(element) for _, element in laid)
    last = max(folder.iterdir())
    kept = max(0, last.stat().st_size - torn)
    last.write_bytes(last.read_bytes()[:kept])
    end = int(last.stem) + kept
    hit = {place % total for place, _ in flips} if flips else set()
    for place, bit in flips:
        flip(folder, place % total, bit)
    first = laid[min(start, len(laid) - 1)][0]

    reader = SegmentReader(folder, first, verify=True)
    pieces = drain(reader, limit)

    out = [element for piece in pieces if isinstance(piece, Cut) for element in split(piece)]
    at = first
    for piece in pieces:  # nothing is skipped in silence
        assert piece.offset == at
        at = piece.end
    sound = [(o, e) for o, e in laid if first <= o and o + len(e) <= end and not hit & set(range(o, o + len(e)))]
    by_offset = dict(out)
    assert [by_offset.get(offset) for offset, _ in sound] == [element for _, element in sound]
    assert [offset for offset, _ in out] == sorted({offset for offset, _ in out})
    if not hit:
        assert not [piece for piece in pieces if isinstance(piece, Damage)]
        assert out == sound


def flip(folder: Path, place: int, bit: int) -> None:
    path = next(path for path in sorted(folder.iterdir(), reverse=True) if int(path.stem) <= place)
    content = bytearray(path.read_bytes())
    if place - int(path.stem) < len(content):
        content[place - int(path.stem)] ^= 1 << bit
        path.write_bytes(content)


def test_damaged_spans_name_the_bytes_between_sound_records() -> None:
    body = bytearray(step(1) + step(2) + step(3))
    body[len(step(1)) + 30] ^= 4
    assert damaged_spans(bytes(body)) == [(len(step(1)), 2 * len(step(1)))]


def test_scan_stops_at_the_limit() -> None:
    body = step(1) * 10
    found = scan(body, 3 * len(step(1)) + 5)
    assert (found.end, found.records) == (3 * len(step(1)), 3)


def test_names_of_a_damaged_key_set_are_never_told(tmp_path: Path) -> None:
    names, *steps = [key_set(1, "loss", "acc"), step(1), step(2)]
    spoiled = names.replace(b"loss", b"lnss")
    (tmp_path / segment_name(0)).write_bytes(spoiled + b"".join(steps))
    reader = SegmentReader(tmp_path)
    first = reader.cut(len(spoiled))
    assert isinstance(first, Cut)  # the gateway finds the damage in it
    rest = reader.cut()
    assert isinstance(rest, Cut)
    assert rest.key_sets == ()
    again = SegmentReader(tmp_path, len(spoiled)).cut()
    assert isinstance(again, Cut)
    assert again.key_sets == ()


def test_a_reader_whose_segment_is_shipped_and_deleted_goes_on_in_the_next(tmp_path: Path) -> None:
    laid = lay(tmp_path, [line("a")], [line("b")], [line("c")])
    reader = SegmentReader(tmp_path)
    assert isinstance(reader.cut(), Cut)
    (tmp_path / segment_name(0)).unlink()
    found = reader.cut()
    assert isinstance(found, Cut)
    assert (found.offset, found.body) == laid[1]
