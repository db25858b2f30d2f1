"""What a message of the bus may make out of date, read by whoever is not told by the sink."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from runtide.v1.ingest_pb2 import Range
from runtide.wire.decode import ATTEMPTS, Decoded, decode
from runtide.wire.hints import Hint


def hint_of(value: bytes) -> Hint | None:
    """The hint of one serialized Range; None for what is no range of a stream, which the sink buries.

    None for a ruling on dead letters too: the sweep finds what was replayed.
    """
    try:
        range_ = Range.FromString(value)
    except DecodeError:
        return None
    if not (range_.stream and range_.run_id and range_.project) or range_.HasField("ruling"):
        return None
    gap = range_.gap.length if range_.HasField("gap") else 0
    said = Decoded() if gap else decode(range_, range_.body)
    times = [row.time_us for row in said.samples]
    return Hint(
        range_.project,
        range_.run_id,
        range_.stream,
        range_.role,
        range_.rank,
        min(range_.attempt, ATTEMPTS),
        range_.offset,
        range_.offset + (gap or len(range_.body)),
        _spread(said),
        _kinds(said) | ({"gap"} if gap else set()),
        (min(times), max(times)) if times else None,
    )


def _spread(said: Decoded) -> dict[str, tuple[int, int]]:
    """Least and greatest step of each metric."""
    by_set: dict[int, tuple[int, int]] = {}
    for which, step in zip(said.steps.which, said.steps.step, strict=True):
        low, high = by_set.get(which, (step, step))
        by_set[which] = (min(low, step), max(high, step))
    metrics: dict[str, tuple[int, int]] = {}
    for which, (low, high) in by_set.items():
        for name in said.steps.key_sets[which]:
            before = metrics.get(name, (low, high))
            metrics[name] = (min(low, before[0]), max(high, before[1]))
    return metrics


def _kinds(said: Decoded) -> frozenset[str]:
    return frozenset({other.kind for other in said.others} | ({"figure"} if said.figures else set()))
