"""The writer of a stream: segments, key sets in each, short writes, the budget and its gaps."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from runtide.spool import layout
from runtide.spool.layout import Position
from runtide.spool.writer import KeySetUse, SpoolWriter, Worth, count, encode, new_stream_id
from runtide.v1.records_pb2 import LogLine, Mark, Record
from runtide.wire import framing
from runtide.wire.errors import BadInput
from runtide.wire.framing import StepEncoder


def line(size: int = 100) -> bytes:
    return encode(Record(log_line=LogLine(line="x" * size)))


def mark(size: int = 100) -> bytes:
    return encode(Record(mark=Mark(text="m" * size)))


def records(folder: Path) -> list[list[Record]]:
    """The records of each segment, which lie end to end."""
    found, expected = [], 0
    for offset, path in layout.segments(folder):
        assert offset == expected
        body = path.read_bytes()
        framing.check(body)
        found.append([Record.FromString(body[one.record : one.end]) for one in framing.elements(body)])
        expected += len(body)
    return found


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Files may not grow beyond a size, as on a full disk: a short write, then an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_segments_roll_and_each_has_the_key_sets_that_it_uses(tmp_path):
    writer = SpoolWriter(tmp_path, segment_bytes=2000)
    plans = [(KeySetUse.of(index, (f"a{index}", f"b{index}")), StepEncoder(index, 2)) for index in (1, 2)]
    for step in range(100):
        use, encoder = plans[step % 2]
        assert writer.append_step(encoder.encode(step, 5, [1.0, 2.0]), use)
    writer.close()
    found = records(tmp_path)
    assert len(found) > 2
    steps = []
    for segment in found:
        known = set()
        for record in segment:
            if record.HasField("key_set"):
                known.add(record.key_set.id)
            else:
                assert record.step.key_set in known
                steps.append(record.step.step)
    assert steps == list(range(100))
    assert writer.points == 200
    assert writer.records == sum(map(len, found))
    assert all(path.stat().st_size <= 2000 for _, path in layout.segments(tmp_path))


@pytest.mark.parametrize("names", [1, 2, 10, 14, 15, 16, 17, 100, 1024])
def test_points_are_counted_without_decoding(names):
    body = line() + StepEncoder(1, names).encode(1, 2, [0.5] * names) + mark()
    assert count(body) == (3, names)


def test_counts_below_any_offset(tmp_path):
    writer = SpoolWriter(tmp_path, segment_bytes=500)
    use, encoder = KeySetUse.of(1, ("a", "b", "c")), StepEncoder(1, 3)
    edges = []
    for step in range(50):
        writer.append_step(encoder.encode(step, 0, [1, 2, 3]), use)
        edges.append((writer.offset, writer.records, writer.points))
    for offset, said, points in edges:
        assert writer.count_below(offset) == (said, points)
    assert writer.count_below(0) == (0, 0)
    for _, path in layout.segments(tmp_path)[:-1]:
        path.unlink()
    assert writer.count_below(1) == (0, 0), "a segment that is acknowledged and gone counts from its beginning"


@pytest.mark.fault(4)
def test_a_spent_budget_drops_lines_first_and_declares_the_loss(tmp_path):
    now = [0.0]
    writer = SpoolWriter(tmp_path, budget_bytes=10_000, clock=lambda: now[0])
    while writer.append(line(), 0, Worth.LINE):
        pass
    assert 7_500 < writer.offset <= 8_000
    lost_lines = writer.dropped_records
    kept = 0
    while writer.append(mark(), 1):
        kept += 1
    assert kept > 5
    assert writer.offset <= 10_000
    for _ in range(9):
        writer.append(mark(), 7)
    assert writer.append(mark(), 0, Worth.LAST), "the last word has room of its own"
    dropped = writer.dropped_records
    Position(acknowledged=writer.offset).write(tmp_path)
    now[0] += 10
    assert writer.append(line(), 0, Worth.LINE), "acknowledged bytes are room again"
    writer.close()
    gaps = [record.gap for segment in records(tmp_path) for record in segment if record.HasField("gap")]
    assert {gap.reason for gap in gaps} == {"spool_full"}
    assert sum(gap.records for gap in gaps) == dropped == lost_lines + 10
    assert sum(gap.points for gap in gaps) == writer.dropped_points == 64


@pytest.mark.fault(4)
def test_a_short_write_is_cut_back_and_declared(tmp_path):
    writer = SpoolWriter(tmp_path)
    for _ in range(5):
        assert writer.append(mark())
    with file_size_limit(writer.offset + 30):
        assert not writer.append(mark(), 3)
        assert not writer.append(mark(), 4)
    assert writer.append(mark())
    writer.close()
    (segment,) = records(tmp_path)
    assert [record.WhichOneof("said") for record in segment] == ["mark"] * 5 + ["gap", "mark"]
    assert (segment[5].gap.records, segment[5].gap.points) == (2, 7)
    assert writer.records == len(segment)


def test_what_is_dropped_last_is_declared_at_the_close(tmp_path):
    writer = SpoolWriter(tmp_path)
    writer.append(mark())
    with file_size_limit(writer.offset + 1):
        writer.append(mark())
    writer.close()
    writer.close()
    assert not writer.append(mark())
    (segment,) = records(tmp_path)
    assert segment[-1].gap.records == 1


# an interrupt that falls into a destructor cannot be raised: Python reports it and goes on
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupts_at_any_place_leave_segments_and_counts_right(tmp_path):
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    writer = SpoolWriter(tmp_path, segment_bytes=400)
    use, encoder = KeySetUse.of(1, ("a", "b", "c")), StepEncoder(1, 3)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for turn in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0002 + turn * 1e-6)  # once
                for _ in range(2_000):  # bounded: Python swallows an interrupt that falls into a destructor
                    writer.append_step(encoder.encode(1, 0, [1, 2, 3]), use)
                    writer.append(mark(turn % 60))
            except KeyboardInterrupt:
                pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    writer.close()
    said = [record for segment in records(tmp_path) for record in segment]
    assert writer.records == len(said)
    assert writer.points == 3 * sum(record.HasField("step") for record in said)
    assert writer.dropped_records == 0


def test_a_record_that_is_too_large_is_refused(tmp_path):
    with pytest.raises(BadInput, match="a record has at most"):
        encode(Record(log_line=LogLine(line="x" * 300_000)))


def test_stream_ids_sort_by_time_and_differ():
    ids = [new_stream_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(len(name) == 32 for name in ids)
    assert [name[:12] for name in ids] == sorted(name[:12] for name in ids)


def test_a_private_folder_is_this_users_alone_and_no_link(tmp_path: Path) -> None:
    layout.private_folder(tmp_path / "a" / "b")
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "a", tmp_path / "a" / "b")] == [0o700, 0o700]
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "b")
    (tmp_path / "a" / "file").touch()
    (tmp_path / "a" / "open").mkdir(mode=0o755)
    for name in ("link", "file", "open"):
        with pytest.raises(PermissionError):
            layout.private_folder(tmp_path / "a" / name)
    assert not (tmp_path / "c").exists()
    with pytest.raises(FileNotFoundError):
        layout.check_private(tmp_path / "c" / "d")
