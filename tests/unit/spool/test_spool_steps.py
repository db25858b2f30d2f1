"""Up to which step a stream has come."""

from __future__ import annotations

import time
from pathlib import Path

from runtide.spool.layout import segment_name
from runtide.spool.steps import last_step
from runtide.testing.streams import NOW_US, MadeStream
from runtide.v1 import records_pb2 as v1
from runtide.wire.limits import SEGMENT_BYTES


def laid_out(folder: Path, *bodies: bytes) -> Path:
    at = 0
    for body in bodies:
        (folder / segment_name(at)).write_bytes(body)
        at += len(body)
    return folder


def test_the_greatest_of_the_latest_steps_counts(tmp_path: Path) -> None:
    made = MadeStream("s").open().key_set(1, "a", "b")
    empty = bytes(made.body)
    body = bytes(made.steps(1, [5, -3, 900, 2]).body)
    assert last_step(laid_out(tmp_path, body)) == 900
    assert last_step(laid_out(tmp_path, body[:-3])) == 900, "a torn tail is no step"
    assert last_step(laid_out(tmp_path, empty)) is None
    assert last_step(tmp_path / "gone") is None


def test_segments_without_steps_are_passed(tmp_path: Path) -> None:
    body = bytes(MadeStream("s").open().key_set(1, "a").step(1, 7, 1.0).body)
    lines = MadeStream("s")
    for _ in range(50):
        lines.add(log_line=v1.LogLine(time_us=NOW_US, line="x" * 1000))
    assert last_step(laid_out(tmp_path, body, bytes(lines.body), bytes(lines.body))) == 7


def test_of_a_full_segment_only_the_end_is_walked(tmp_path: Path) -> None:
    made = MadeStream("s").open().key_set(1, "a")
    one = bytes(MadeStream("s", names={1: ("a",)}).step(1, 3, 1.0).body)
    body = bytes(made.body) + one * (SEGMENT_BYTES // len(one) - 10)
    folder = laid_out(tmp_path, body + bytes(made.step(1, 8, 1.0).body))
    began = time.process_time()
    assert last_step(folder) == 8
    assert time.process_time() - began < 0.5
