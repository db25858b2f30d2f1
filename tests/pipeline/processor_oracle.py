"""What derived rows must say, counted in plain Python from the records: the oracle of the processor's tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.pipeline.processor_feed import Stream

Rows = dict[tuple[Any, ...], tuple[Any, ...]]
"""Key columns to the other columns."""


class Point(NamedTuple):
    metric: str
    rank: int
    step: int
    order: tuple[int, str, int]
    value: float


def effective(streams: Sequence[Stream]) -> dict[tuple[str, int], dict[int, float]]:
    """Metric and rank to the values that count, by step."""
    points = [
        Point(metric, stream.rank, record.step, (stream.attempt, stream.stream, place), value)
        for stream in streams
        for place, record in enumerate(stream.records)
        if record.kind == "step"
        for metric, value in record.values.items()
    ]
    resumed = {
        stream.attempt: int(record.message["resume_step"])
        for stream in streams
        for record in stream.records
        if record.kind == "stream_opened" and "resume_step" in record.message
    }
    firsts: dict[tuple[str, int], int] = {}
    for point in points:
        key = point.metric, point.order[0]
        firsts[key] = min(point.step, firsts.get(key, point.step))
    chosen: dict[tuple[str, int], dict[int, Point]] = {}
    for point in points:
        if _hidden(point, firsts, resumed):
            continue
        of = chosen.setdefault((point.metric, point.rank), {})
        if point.step not in of or of[point.step].order < point.order:
            of[point.step] = point
    return {series: {step: of[step].value for step in sorted(of)} for series, of in chosen.items()}


def _hidden(point: Point, firsts: dict[tuple[str, int], int], resumed: dict[int, int]) -> bool:
    """By an attempt that resumed from an earlier step, or by one that has logged this step or an earlier one."""
    attempt = point.order[0]
    if any(point.step > last for later, last in resumed.items() if later > attempt):
        return True
    return any(
        metric == point.metric and attempt < later and first <= point.step
        for (metric, later), first in firsts.items()
        if later not in resumed
    )


def _numbers(values: dict[int, float]) -> tuple[Any, ...]:
    """count, non_finite, sum, min, min_step, max, max_step, last, last_step."""
    finite = {step: value for step, value in values.items() if math.isfinite(value)}
    last = max(values)
    low = min(finite.values(), default=math.nan)
    high = max(finite.values(), default=math.nan)
    return (
        len(finite),
        len(values) - len(finite),
        math.fsum(finite.values()),
        low,
        min((step for step, value in finite.items() if value == low), default=0),
        high,
        min((step for step, value in finite.items() if value == high), default=0),
        values[last],
        last,
    )


def tiers(series: dict[tuple[str, int], dict[int, float]]) -> Rows:
    """metric, width, rank, bucket."""
    out: Rows = {}
    for (metric, rank), values in series.items():
        for width in (64, 4096, 262_144):
            buckets: dict[int, dict[int, float]] = {}
            for step, value in values.items():
                buckets.setdefault(step // width, {})[step] = value
            for bucket, of in buckets.items():
                out[metric, width, rank, bucket] = _numbers(of)
    return out


def summaries(series: dict[tuple[str, int], dict[int, float]]) -> Rows:
    """metric, rank to last, last_step, min, min_step, max, max_step, mean, count, non_finite."""
    out: Rows = {}
    ranks: dict[str, list[tuple[Any, ...]]] = {}
    for (metric, rank), values in series.items():
        numbers = _numbers(values)
        ranks.setdefault(metric, []).append(numbers)
        out[metric, rank] = _summary(numbers)
    for metric, of in ranks.items():
        top = max(numbers[8] for numbers in of)
        lasts = [numbers[7] for numbers in of if numbers[8] == top]
        finite = [numbers for numbers in of if numbers[0]]
        low = min((numbers[3] for numbers in finite), default=math.nan)
        high = max((numbers[5] for numbers in finite), default=math.nan)
        together = (
            sum(numbers[0] for numbers in of),
            sum(numbers[1] for numbers in of),
            math.fsum(numbers[2] for numbers in of),
            low,
            min((numbers[4] for numbers in finite if numbers[3] == low), default=0),
            high,
            min((numbers[6] for numbers in finite if numbers[5] == high), default=0),
            sum(lasts) / len(lasts),
            top,
        )
        out[metric, -1] = _summary(together)
    return out


def _summary(numbers: tuple[Any, ...]) -> tuple[Any, ...]:
    count, bad, total, low, low_step, high, high_step, last, last_step = numbers
    mean = total / count if count else math.nan
    return last, last_step, low, low_step, high, high_step, mean, count, bad


def step_stats(series: dict[tuple[str, int], dict[int, float]]) -> Rows:
    """metric, step to ranks, mean, min, max, std, min_rank, max_rank, non_finite."""
    by_step: dict[tuple[str, int], dict[int, float]] = {}
    for (metric, rank), values in series.items():
        for step, value in values.items():
            by_step.setdefault((metric, step), {})[rank] = value
    out: Rows = {}
    for key, values in by_step.items():
        finite = {rank: value for rank, value in values.items() if math.isfinite(value)}
        count = len(finite)
        mean = math.fsum(finite.values()) / count if count else math.nan
        low, high = min(finite.values(), default=math.nan), max(finite.values(), default=math.nan)
        std = math.sqrt(math.fsum((value - mean) ** 2 for value in finite.values()) / count) if count else math.nan
        low_rank = min((rank for rank, value in finite.items() if value == low), default=0)
        high_rank = min((rank for rank, value in finite.items() if value == high), default=0)
        out[key] = (count, mean, low, high, std, low_rank, high_rank, len(values) - count)
    return out


def windows(streams: Sequence[Stream]) -> Rows:
    """host, name, rank, minute in seconds to count, min, max, sum, last."""
    readings: dict[tuple[str, str, int, int], tuple[tuple[int, str, int], float]] = {}
    for stream in streams:
        for place, record in enumerate(stream.records):
            if record.kind == "sample":
                for name, value in record.values.items():
                    key = stream.host, name, stream.rank, record.time_us
                    readings[key] = max(
                        readings.get(key, ((0, "", 0), 0.0)),
                        ((stream.attempt, stream.stream, place), value),
                        key=lambda reading: reading[0],
                    )
    minutes: dict[tuple[Any, ...], dict[int, float]] = {}
    for (host, name, rank, time_us), (_, value) in readings.items():
        minutes.setdefault((host, name, rank, time_us // 60_000_000 * 60), {})[time_us] = value
    return {
        key: (len(of), min(of.values()), max(of.values()), math.fsum(of.values()), of[max(of)])
        for key, of in minutes.items()
    }


def differences(found: Rows, expected: Rows, magnitude: float) -> list[str]:
    """Where two sets of rows differ: integers exactly, floats by more than 1e-12 of the magnitude of the data."""
    out = [f"missing {key}: {expected[key]}" for key in expected.keys() - found.keys()]
    out += [f"unexpected {key}: {found[key]}" for key in found.keys() - expected.keys()]
    for key in expected.keys() & found.keys():
        if not all(_same(a, b, magnitude) for a, b in zip(found[key], expected[key], strict=True)):
            out.append(f"{key}: {found[key]} is not {expected[key]}")
    return out[:10]


def _same(found: Any, expected: Any, magnitude: float) -> bool:
    if isinstance(expected, float):
        if math.isnan(expected) or math.isinf(expected):
            return math.isnan(found) == math.isnan(expected) and (math.isnan(found) or found == expected)
        return abs(found - expected) <= 1e-12 * magnitude
    return bool(found == expected)
