"""Small, well-known statistics over runs. Pure.

Confidence interval of a mean: Student's t (Student 1908), two-sided 95 %. Importance of a number: Spearman's rank
correlation (Spearman 1904). Importance of a category: eta squared of Kruskal and Wallis' H, corrected for the number of
groups: (H - k + 1) / (n - k) (Tomczak and Tomczak 2014). Ranks of ties are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Of the values of some runs."""

    n: int
    mean: float
    std: float | None
    """Sample standard deviation; None of fewer than two."""
    ci_low: float | None
    ci_high: float | None
    """95 % confidence interval of the mean; None of fewer than two."""


def spread(values: Sequence[float]) -> Spread:
    """Mean, deviation and confidence interval."""
    n, mean = len(values), fmean(values)
    if n < 2:
        return Spread(n, mean, None, None, None)
    deviation = stdev(values)
    half = student_quantile(0.975, n - 1) * deviation / math.sqrt(n)
    return Spread(n, mean, deviation, mean - half, mean + half)


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile, above the median, of Student's t with whole degrees of freedom: bisection over the exact one."""
    low, high = 0.0, 1.0
    while _student_below(high, freedom) < probability:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_below(middle, freedom) < probability else (low, middle)
    return high


def _student_below(t: float, freedom: int) -> float:
    """P(T <= t) for t >= 0, by finite sums (Abramowitz and Stegun 26.7.3 for odd, 26.7.4 for even degrees)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine2 = math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cosine2 * (k - 1) / k
        total += term
    inside = (angle + math.sin(angle) * total) * 2 / math.pi if odd else math.sin(angle) * total
    return 0.5 + inside / 2


def ranks(values: Sequence[float]) -> list[float]:
    """Rank of each value from 1; ties have the mean of theirs."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    out = [0.0] * len(values)
    at = 0
    while at < len(order):
        end = at
        while end + 1 < len(order) and values[order[end + 1]] == values[order[at]]:
            end += 1
        for place in order[at : end + 1]:
            out[place] = (at + end) / 2 + 1
        at = end + 1
    return out


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Correlation of ranks; None where one of them never changes."""
    a, b = ranks(first), ranks(second)
    mean = (len(a) + 1) / 2
    squares = [sum((value - mean) ** 2 for value in each) for each in (a, b)]
    if not all(squares):
        return None
    return sum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True)) / math.sqrt(squares[0] * squares[1])


def eta_squared(groups: Sequence[Hashable], values: Sequence[float]) -> float | None:
    """Part of the variance of ranks that the groups explain beyond chance, 0 to 1; None where it cannot be told."""
    ranked = ranks(values)
    n, mean = len(ranked), (len(ranked) + 1) / 2
    members: dict[Hashable, list[float]] = {}
    for group, rank in zip(groups, ranked, strict=True):
        members.setdefault(group, []).append(rank)
    total = sum((rank - mean) ** 2 for rank in ranked)
    k = len(members)
    if not total or k < 2 or n <= k:
        return None
    between = sum(len(each) * (fmean(each) - mean) ** 2 for each in members.values())
    h = (n - 1) * between / total
    return min(max((h - k + 1) / (n - k), 0.0), 1.0)


def pareto(points: Sequence[Sequence[float]]) -> list[int]:
    """Places of the points that no other point beats: all of them are to be small, equal points stay together."""
    ordered = sorted(range(len(points)), key=lambda place: tuple(points[place]))
    front = np.empty((len(points), len(points[0]) if points else 0))
    kept: list[int] = []
    for place in ordered:  # who comes later cannot beat who came earlier
        point, known = np.asarray(points[place]), front[: len(kept)]
        if not np.any(np.all(known <= point, axis=1) & np.any(known < point, axis=1)):
            front[len(kept)] = point
            kept.append(place)
    return sorted(kept)
