"""From decoded ranges to Arrow blocks."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from runtide.sink import columns
from runtide.sink.arrived import Arrived, read
from runtide.testing.streams import NOW_US, MadeStream, varied_stream
from runtide.v1.records_pb2 import Role
from runtide.wire import canary as words
from runtide.wire.books import KPIS

MONTH_US = 31 * 86_400 * 1_000_000


def arrived(made: MadeStream, start: int = 0, end: int | None = None, received_us: int = NOW_US) -> Arrived:
    return read(made.message(made.range(start, end), received_us))


def plain_rows(parts: list[Arrived]) -> list[tuple[object, ...]]:
    """The rows of points, made the slow and plain way."""
    found: list[tuple[object, ...]] = []
    for part in parts:
        steps, at = part.said.steps, 0
        for place, names in enumerate(steps.names):
            for name in names:
                place_of = (steps.offset[place], steps.length[place], len(names))
                found.append((part.stream, part.rank, name, steps.step[place], steps.values[at], *place_of))
                at += 1
    return found


def test_points_are_the_same_as_when_made_one_by_one() -> None:
    parts = [
        arrived(varied_stream("s1", rank=1)),
        arrived(varied_stream("s2", rank=2)),
        arrived(MadeStream("s3").open()),
        arrived(MadeStream("s4", rank=4).key_set(7, "acc", "x", "loss").steps(7, [3, 1])),
    ]
    batch = columns.points(parts, 30)
    names = ("stream", "rank", "metric", "step", "value", "offset", "length", "of")
    rows = list(zip(*(batch[name].to_pylist() for name in names), strict=True))
    assert rows == plain_rows(parts)
    assert set(batch["days"].to_pylist()) == {30}
    assert batch["time"].type == pa.timestamp("us", tz="UTC")
    assert batch["received_at"][0].as_py() == datetime.fromtimestamp(NOW_US / 1e6, UTC)


def test_what_the_canary_says_goes_by_itself() -> None:
    parts = [arrived(varied_stream("s1", project=words.PROJECT)), arrived(varied_stream("s2"))]
    batch = columns.points(parts, 30)
    days = {row["project"]: row["days"] for row in batch.to_pylist()}
    assert days == {words.PROJECT: words.DAYS, "p": 30}


def test_books_are_kept_whatever_retention_says() -> None:
    parts = [arrived(MadeStream("s1", run_id=KPIS, role=Role.ROLE_USER).open()), arrived(MadeStream("s2").open())]
    assert [row["days"] for row in columns.events(parts, 30).to_pylist()] == [0, 30]


def test_no_parts_make_no_rows() -> None:
    assert columns.points([], 0).num_rows == 0
    assert columns.events([], 0).num_rows == 0


@pytest.mark.fault(20)
def test_blocks_end_at_the_month_and_at_the_limit_and_never_within_a_range() -> None:
    made = MadeStream("s").key_set(1, "a").steps(1, range(10))
    late = NOW_US + MONTH_US
    parts = [
        arrived(made),
        arrived(made),
        arrived(made),
        arrived(made, received_us=late),
        arrived(MadeStream("t").open()),
    ]
    count = columns.TABLES[1][1]
    sizes = [[count(part) for part in block] for block in columns.blocks(parts, count, limit=25)]
    assert sizes == [[10, 10], [10], [10]]


def test_every_record_makes_as_many_rows_as_it_says() -> None:
    part = arrived(varied_stream("s"))
    for table, count, build in columns.TABLES:
        batch = build([part], 0)
        assert batch.num_rows == count(part)
        if table == "dead_letters":
            continue
        per_record: dict[int, list[int]] = {}
        for offset, of in zip(batch["offset"].to_pylist(), batch["of"].to_pylist(), strict=True):
            per_record.setdefault(offset, []).append(of)
        assert all(len(found) == found[0] for found in per_record.values())


def test_a_message_that_is_no_range_is_one_dead_letter_however_often_it_comes() -> None:
    message = MadeStream("s").open().message(MadeStream("").open().range())
    first, second = read(message), read(message)
    assert first.key == second.key
    assert first.said.dead[0].reason == "the range names no stream"
    assert (first.start, first.end) == (0, len(message.value))


def test_spreads_are_the_least_and_greatest_step_of_each_key_set() -> None:
    made = MadeStream("s").key_set(1, "a").key_set(2, "b", "c").steps(1, [5, 1]).steps(2, [9]).steps(1, [3])
    assert sorted(columns.spreads(arrived(made).said.steps)) == [(("a",), 1, 5), (("b", "c"), 9, 9)]
