"""decode: every byte of a range ends in exactly one record, understood or dead."""

from __future__ import annotations

import itertools
import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtide.testing.streams import NOW_US, MadeStream, element, varied_stream
from runtide.v1 import records_pb2 as v1
from runtide.v1.ingest_pb2 import Range
from runtide.wire.decode import Decoded, decode
from runtide.wire.framing import CRC_BYTES, StepEncoder, elements, seal
from runtide.wire.limits import KEY_SET_NAMES, LATEST_US, NAME_BYTES


def covered(said: Decoded) -> list[tuple[int, int]]:
    steps = zip(said.steps.offset, said.steps.length, strict=True)
    others = (*said.samples, *said.log_lines, *said.figures, *said.others, *said.dead)
    return sorted([*steps, *((row.offset, row.length) for row in others)])


def assert_end_to_end(said: Decoded, start: int, end: int) -> None:
    at = start
    for offset, length in covered(said):
        assert offset == at
        at += length
    assert at == end


def of(body: bytes, offset: int = 0, **names: tuple[str, ...]) -> Decoded:
    sets = [v1.KeySet(id=int(number.strip("_")), names=each) for number, each in names.items()]
    return decode(Range(stream="s", run_id="r", offset=offset, key_sets=sets, body=body), body)


def test_every_kind_is_read_and_lies_end_to_end() -> None:
    made = varied_stream("s")
    said = decode(made.range(), bytes(made.body))
    assert_end_to_end(said, 0, len(made.body))
    assert said.records + len(said.dead) == len(made.edges) - 1
    assert [row.reason for row in said.dead] == ["unknown key set"] * 4
    assert {row.kind for row in said.others} == {"stream_opened", "key_set", "stream_closed"}
    assert said.samples[0].readings == (("", "cpu_percent", 1.5), ("gpu0", "watts", 9.0))
    assert said.log_lines[0].console == "stdout"


def test_a_range_in_the_middle_is_read_with_the_key_sets_it_carries() -> None:
    made = MadeStream("s").key_set(1, "loss", "acc")
    start = len(made.body)
    made.steps(1, range(5))
    said = decode(made.range(start), bytes(made.body[start:]))
    assert list(said.steps.step) == [0, 1, 2, 3, 4]
    assert said.steps.names == [("loss", "acc")] * 5
    assert_end_to_end(said, start, len(made.body))


@pytest.mark.parametrize("count", [1, 12, 13, 14, 15, 200, 205, 1024])
def test_steps_of_any_width_are_read_by_their_layout_and_by_protobuf_alike(count: int) -> None:
    names = tuple(f"m{number}" for number in range(count))
    values = [number / 7 for number in range(count)]
    fast = StepEncoder(13, count).encode(-5, NOW_US, values)
    slow = seal(v1.Record(step=v1.Step(step=-5, key_set=13, time_us=NOW_US, values=values)).SerializeToString())
    assert fast == slow
    said = of(fast + slow, 7, _13=names)
    assert list(said.steps.step) == [-5, -5]
    assert list(said.steps.time_us) == [NOW_US, NOW_US]
    assert list(said.steps.values) == values * 2
    assert list(said.steps.length) == [len(fast)] * 2
    assert not said.dead


def test_a_step_that_protobuf_writes_shorter_is_read_too() -> None:
    """Protobuf leaves zeros out: step 0 has no field."""
    raw = element(step=v1.Step(key_set=1, step=0, time_us=NOW_US, values=[0.5]))
    said = of(raw, _1=("loss",))
    assert (list(said.steps.step), list(said.steps.values)) == ([0], [0.5])


def test_values_that_are_no_numbers_are_kept_to_the_bit() -> None:
    odd = struct.unpack("<d", b"\x01\x00\x00\x00\x00\x00\xf8\x7f")[0]
    said = of(StepEncoder(1, 4).encode(1, NOW_US, [math.nan, math.inf, -math.inf, odd]), _1=("a", "b", "c", "d"))
    assert said.steps.values.tobytes() == struct.pack("<4d", math.nan, math.inf, -math.inf, odd)


def test_neighbours_of_a_damaged_record_are_read() -> None:
    made = MadeStream("s").key_set(1, "loss").steps(1, range(3))
    edges = made.edges
    made.body[edges[2] + 20] ^= 0x10
    said = decode(made.range(), bytes(made.body))
    assert list(said.steps.step) == [0, 2]
    (dead,) = said.dead
    assert (dead.offset, dead.length, dead.kind) == (edges[2], edges[3] - edges[2], "step")
    assert dead.reason == "crc does not fit"
    assert dead.bytes == bytes(made.body[edges[2] : edges[3]])


def test_bytes_that_are_no_records_end_as_one_dead_letter() -> None:
    made = MadeStream("s").key_set(1, "loss").steps(1, [1]).add_bytes(b"\x77garbage")
    said = decode(made.range(), bytes(made.body))
    assert list(said.steps.step) == [1]
    assert [(row.bytes, row.reason) for row in said.dead] == [(b"\x77garbage", "framing: not a record")]


def test_a_key_set_may_be_said_again_and_may_change() -> None:
    made = MadeStream("s").key_set(1, "a").steps(1, [1]).key_set(1, "a").steps(1, [2]).key_set(1, "b").steps(1, [3])
    made.names.clear()
    said = decode(made.range(), bytes(made.body))
    assert said.steps.names == [("a",), ("a",), ("b",)]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"step": v1.Step(key_set=2, step=1, values=[1])}, "unknown key set"),
        ({"step": v1.Step(key_set=1, step=1, values=[1, 2])}, "key set 1 has 1 names, but the step has 2 values"),
        ({"log_line": v1.LogLine(time_us=LATEST_US + 1, line="x")}, "log_line.time_us is 10413792000000000, but"),
        ({"step": v1.Step(key_set=1, step=1, time_us=-(2**62), values=[1])}, "step.time_us is -4611686018427387904"),
        ({"key_set": v1.KeySet(id=3)}, "key_set.names is 0 names, but 1 to 1024 are taken"),
        ({"key_set": v1.KeySet(id=3, names=["a", "a"])}, "key set 3 names a metric twice"),
        ({"key_set": v1.KeySet(id=3, names=[""])}, "key set 3 has an empty name"),
        ({"key_set": v1.KeySet(id=3, names=[str(n) for n in range(KEY_SET_NAMES + 1)])}, "1025 names"),
        ({"key_set": v1.KeySet(id=3, names=["ü" * NAME_BYTES])}, "key_set.names is 2048 bytes, but at most 1024"),
        ({"sample": v1.Sample(time_us=1)}, "sample.readings is 0 readings"),
        ({"sample": v1.Sample(time_us=1, readings=[v1.Reading(name="x")] * 2)}, "two readings of one device"),
        ({"figure": v1.Figure(name="x" * 2000)}, "figure.name is 2000 bytes, but at most 1024 are taken"),
        ({}, "its kind is not known to this release"),
    ],
)
def test_what_cannot_be_stored_is_dead_and_says_why(said: dict[str, object], reason: str) -> None:
    raw = element(**said)
    found = of(
        element(log_line=v1.LogLine(line="before")) + raw + element(log_line=v1.LogLine(line="after")), _1=("a",)
    )
    assert [row.line for row in found.log_lines] == ["before", "after"]
    (dead,) = found.dead
    assert reason in dead.reason
    assert dead.bytes == raw


def test_text_that_is_not_utf8_is_dead() -> None:
    good = v1.Record(log_line=v1.LogLine(line="abcd")).SerializeToString()
    found = of(seal(good.replace(b"abcd", b"\xff\xfe\xfd\xfc")))
    assert "not a record of this wire" in found.dead[0].reason


def test_a_range_whose_identity_is_too_long_is_dead_record_by_record() -> None:
    made = MadeStream("s").key_set(1, "a").steps(1, range(3))
    bad = made.range()
    bad.attempt = 70_000
    said = decode(bad, bad.body)
    assert said.records == 0
    assert len(said.dead) == 4
    assert_end_to_end(said, 0, len(made.body))
    assert "range.attempt is 70000, but at most 65535" in said.dead[0].reason


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_the_bytes_are_nothing_is_raised_and_nothing_left_out(data: st.DataObject) -> None:
    body = bytearray(varied_stream("s", 6).body)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
    body = body[: data.draw(st.integers(0, len(body)))]
    said = of(bytes(body), 1000)
    assert_end_to_end(said, 1000, 1000 + len(body))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(-(2**63), 2**63 - 1)), max_size=30))
def test_steps_mixed_from_several_key_sets_keep_their_order(steps: list[tuple[int, int]]) -> None:
    sets = {1: ("a",), 2: ("a", "b"), 3: ("x", "y", "z")}
    body = b"".join(StepEncoder(n, len(sets[n])).encode(step, NOW_US, [1.0] * len(sets[n])) for n, step in steps)
    said = of(body, _1=sets[1], _2=sets[2], _3=sets[3])
    assert list(said.steps.step) == [step for _, step in steps]
    assert said.steps.names == [sets[n] for n, _ in steps]


def test_only_keeps_the_records_that_begin_in_the_intervals() -> None:
    made = varied_stream("s")
    whole = decode(made.range(), bytes(made.body))
    edges = made.edges
    part = whole.only([(edges[3], edges[7]), (edges[20], edges[21])])
    assert covered(part) == [
        (start, end - start)
        for start, end in itertools.pairwise(edges)
        if edges[3] <= start < edges[7] or start == edges[20]
    ]
    assert len(part.steps.values) == sum(len(names) for names in part.steps.names)


def test_the_smallest_step_is_not_shorter_than_what_the_reader_takes_for_granted() -> None:
    assert len(StepEncoder(1, 0).encode(0, 0, [])) >= 35 - CRC_BYTES
    assert [at.end for at in elements(StepEncoder(1, 0).encode(0, 0, []))]
