"""The interval arithmetic of a stream, against a plain set of bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from runtide.sink.streams import Extent, StreamState, laid_out

SIZE = 60
pieces = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(lambda pair: (min(pair), max(pair))))


def bytes_of(extent: Extent) -> set[int]:
    return set(range(extent.mark)) - {at for start, end in extent.holes for at in range(start, end)}


@given(pieces)
def test_what_is_added_is_what_is_stored(added: list[tuple[int, int]]) -> None:
    extent, model = Extent(), set[int]()
    for start, end in added:
        new = set(range(start, end)) - model
        assert {at for low, high in extent.missing(start, end) for at in range(low, high)} == new
        extent.add(start, end)
        model |= set(range(start, end))
        assert bytes_of(extent) == model
        assert extent.mark == max(model, default=-1) + 1
        assert extent.hole_bytes == extent.mark - len(model)
        assert not extent.missing(start, end)
        assert extent.holes == sorted(extent.holes)
        assert all(low < high for low, high in extent.holes)


@given(pieces, st.randoms(use_true_random=False))
def test_order_does_not_matter(added: list[tuple[int, int]], dice: object) -> None:
    shuffled = list(added)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    extent = Extent()
    for start, end in shuffled:
        extent.add(start, end)
    assert bytes_of(extent) == bytes_of(laid_out(added))


def test_a_copy_is_independent() -> None:
    state = StreamState("p", "r", "s")
    state.extent.add(10, 20)
    copy = state.copy()
    copy.extent.add(0, 10)
    copy.records = 7
    assert (state.extent.holes, state.records) == ([(0, 10)], 0)
    assert copy.extent.holes == []


def test_only_what_is_new_and_does_not_go_on_at_the_mark_is_doubtful() -> None:
    state = StreamState("p", "r", "s")
    state.extent.add(0, 10)
    state.extent.add(20, 30)
    assert not state.is_doubtful(30, 40)
    assert not state.is_doubtful(0, 10)
    assert state.is_doubtful(31, 40)
    assert state.is_doubtful(5, 12)
    assert state.is_doubtful(10, 20)


def test_a_late_step_is_not_the_last_one() -> None:
    state = StreamState("p", "r", "s")
    state.note_step(5, 50, 100, 50)
    state.extent.add(100, 200)
    state.note_step(1, 10, 0, 10)
    assert (state.last_step, state.last_step_at) == (5, 50)
    state.note_step(2, 20, 200, 20)
    assert state.last_step == 2
