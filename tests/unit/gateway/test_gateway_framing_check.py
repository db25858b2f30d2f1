"""framing.check, which has fast ways, says what the plain walk over the elements says, whatever the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtide.v1.records_pb2 import KeySet, Record
from runtide.wire import framing


def step(count: int) -> bytes:
    """The record of a Step of so many values, without its crc."""
    element = framing.StepEncoder(1, count).encode(1, 2, [0.5] * count)
    return element[next(framing.elements(element)).record : -framing.CRC_BYTES]


records = st.one_of(
    st.binary(max_size=40),
    st.integers(0, 300).map(bytes),
    st.integers(16_000, 17_000).map(bytes),
    st.integers(0, 40).map(lambda count: step(count)),
    st.integers(1, 200).map(lambda id_: Record(key_set=KeySet(id=id_, names=["loss", "lr"])).SerializeToString()),
)
bodies = st.lists(st.tuples(records, st.integers(1, 4)), max_size=8).map(
    lambda parts: b"".join(framing.seal(record) * times for record, times in parts)
)


def plain(body: bytes, max_record: int | None) -> framing.Checked:
    count, points, key_sets = 0, 0, []
    for element in framing.elements(body):
        if max_record is not None and element.end - framing.CRC_BYTES - element.record > max_record:
            raise framing.FramingError(element.start, "record too large")
        if not framing.sound(body, element):
            raise framing.FramingError(element.start, "crc does not fit")
        count += 1
        points += framing.step_points(body, element)
        if body[element.record] == 0x12:
            key_sets.append(element)
    return framing.Checked(count, points, tuple(key_sets))


def outcome(check: object, body: bytes, max_record: int | None) -> object:
    assert callable(check)
    try:
        return check(body, max_record)
    except framing.FramingError as error:
        return error.position, error.reason


@given(bodies, st.one_of(st.none(), st.integers(0, 20_000)))
def test_sound_bodies(body: bytes, max_record: int | None) -> None:
    assert outcome(framing.check, body, max_record) == outcome(plain, body, max_record)


@given(bodies.filter(bool), st.data(), st.one_of(st.none(), st.integers(0, 300)))
def test_damaged_bodies(body: bytes, data: st.DataObject, max_record: int | None) -> None:
    damaged = bytearray(body)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    assert outcome(framing.check, cut, max_record) == outcome(plain, cut, max_record)


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    assert outcome(framing.check, body, None) == outcome(plain, body, None)


def test_a_run_of_steps_is_counted_and_its_damage_found() -> None:
    steps = [framing.StepEncoder(1, 10).encode(step, 1, [float(step)] * 10) for step in range(1000)]
    body = b"".join(steps)
    assert framing.check(body) == framing.Checked(1000, 10_000)
    at = len(steps[0]) * 700 + 50
    with pytest.raises(framing.FramingError) as error:
        framing.check(body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :])
    assert (error.value.position, error.value.reason) == (len(steps[0]) * 700, "crc does not fit")


@given(st.integers(0, 1024), st.integers(1, 2**32 - 1))
def test_points_and_key_sets_are_read_from_the_frame(count: int, key_set: int) -> None:
    body = framing.StepEncoder(key_set, count).encode(7, 2, [0.5] * count)
    said = framing.seal(Record(key_set=KeySet(id=key_set, names=["loss"])).SerializeToString())
    found = framing.check(body + said)
    assert (found.records, found.points) == (2, count)
    assert found.key_sets == (framing.Element(len(body), len(body) + 2, len(body + said)),)
    assert [framing.key_set_of(body + said, each) for each in framing.elements(body + said)] == [key_set] * 2
