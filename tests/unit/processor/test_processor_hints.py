"""What a message makes out of date, as the Faust worker reads it."""

from runtide.processor.hints import hint_of
from runtide.v1.ingest_pb2 import Range
from runtide.v1.records_pb2 import ROLE_RANK, Gap, KeySet, Mark, Record, Sample
from runtide.wire.framing import StepEncoder, seal


def sealed(record: Record) -> bytes:
    return seal(record.SerializeToString())


def message(body: bytes = b"", **more: object) -> bytes:
    told = {"project": "p", "run_id": "r", "stream": "s", "offset": 100, "rank": 3, "attempt": 2, "role": ROLE_RANK}
    return Range(**{**told, "body": body, **more}).SerializeToString()


def test_steps_samples_and_kinds() -> None:
    pairs, single = StepEncoder(1, 2), StepEncoder(2, 1)
    body = b"".join(
        (
            sealed(Record(key_set=KeySet(id=2, names=["b"]))),
            pairs.encode(7, 1, [0.0, 0.0]),
            pairs.encode(-4, 1, [0.0, 0.0]),
            single.encode(50, 1, [0.0]),
            sealed(Record(sample=Sample(time_us=9))),
            sealed(Record(sample=Sample(time_us=5))),
            sealed(Record(mark=Mark(text="x"))),
        )
    )
    found = hint_of(message(body, key_sets=[KeySet(id=1, names=["a", "b"])]))
    assert found is not None
    assert (found.project, found.run_id, found.stream, found.rank, found.attempt) == ("p", "r", "s", 3, 2)
    assert (found.start, found.end) == (100, 100 + len(body))
    assert found.metrics == {"a": (-4, 7), "b": (-4, 50)}
    assert found.kinds == {"key_set", "mark"}


def test_a_gap_moves_the_end() -> None:
    found = hint_of(message(gap=Gap(length=40, reason="refused")))
    assert found is not None
    assert (found.start, found.end, found.kinds) == (100, 140, frozenset({"gap"}))


def test_what_is_no_range_is_no_hint() -> None:
    assert hint_of(b"\xff\xff") is None
    assert hint_of(message(stream="")) is None
