"""The queue between projects: in order within one, in turn between them, whatever their sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtide.bus.fair import TURN_BYTES, FairQueue

SIZES = st.integers(0, 3 * TURN_BYTES)


def drained(queue: FairQueue[tuple[str, int]]) -> list[tuple[str, int]]:
    found = []
    while queue:
        found.append(queue.get())
    return found


@given(st.lists(st.tuples(st.sampled_from("abc"), SIZES)))
def test_everything_comes_out_once_and_in_the_order_of_its_project(puts: list[tuple[str, int]]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for at, (project, size) in enumerate(puts):
        queue.put(project, size, (project, at))
    found = drained(queue)
    for project in "abc":
        assert [at for of, at in found if of == project] == [at for at, (of, _) in enumerate(puts) if of == project]
    with pytest.raises(LookupError):
        queue.get()


@given(st.lists(SIZES, min_size=20, max_size=60), st.lists(SIZES, min_size=20, max_size=60))
def test_two_that_wait_get_the_same_bytes(loud: list[int], other: list[int]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    for project, sizes in (("loud", loud), ("other", other)):
        for size in sizes:
            queue.put(project, size, (project, size))
    left = {"loud": len(loud), "other": len(other)}
    given_to = {"loud": 0, "other": 0}
    while all(left.values()):
        project, size = queue.get()
        left[project] -= 1
        given_to[project] += size
        assert abs(given_to["loud"] - given_to["other"]) <= 2 * (max(*loud, *other) + TURN_BYTES)


def test_a_small_one_behind_a_flood_comes_next_but_one() -> None:
    queue: FairQueue[str] = FairQueue()
    for _ in range(100):
        queue.put("loud", 900_000, "loud")
    assert queue.get() == "loud"
    queue.put("quiet", 200, "quiet")
    assert "quiet" in [queue.get(), queue.get()]
