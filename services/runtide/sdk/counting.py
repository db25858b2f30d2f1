"""What figures count: confusion matrices, curves over all thresholds, histograms. Pure, and exact: whole numbers as
long as it goes, so that what SQL divides is what any other program divides.

Plain Python; numpy sorts where the job has it loaded already, with the same result.
"""

from __future__ import annotations

import bisect
import math
import sys
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from runtide.wire.errors import BadInput

CURVE_POINTS = 5000
"""Points of one curve; of more the hull and evenly chosen ones are kept, and the exact areas."""
_NUMPY_FROM = 1000


class Matrix(NamedTuple):
    """A confusion matrix: a row for each actual class, a column for each predicted one."""

    labels: list[str]
    counts: list[list[int]]


class Counts(NamedTuple):
    """True and false positives at falling thresholds: all samples with at least that score are called positive."""

    true: list[int]
    false: list[int]
    thresholds: list[float]

    def at(self, places: Sequence[int]) -> Counts:
        """Those points alone."""
        return Counts(*([values[at] for at in places] for values in self))  # type: ignore[arg-type]


def confusion(actual: Sequence[Hashable], predicted: Sequence[Hashable], named: Sequence[Hashable] | None) -> Matrix:
    """Count the pairs. `named` are the classes in order, or the names of the classes 0, 1, 2 ..."""
    pairs = Counter(zip(actual, predicted, strict=True))
    seen = {label for pair in pairs for label in pair}
    classes, texts = classes_of("y_true or y_pred", seen, named)
    place = {label: at for at, label in enumerate(classes)}
    counts = [[0] * len(classes) for _ in classes]
    for (one, other), count in pairs.items():
        counts[place[one]][place[other]] += count
    return Matrix(texts, counts)


def classes_of(
    field: str, seen: set[Hashable], named: Sequence[Hashable] | None
) -> tuple[Sequence[Hashable], list[str]]:
    """The classes in order, and their names."""
    classes: Sequence[Hashable] = in_order(seen) if named is None else named
    texts = [str(label) for label in classes]
    if len(set(texts)) != len(texts):
        raise BadInput(
            "labels",
            f"{[text for text, n in Counter(texts).items() if n > 1][:3]} more than once",
            "each class has a name",
        )
    if named is not None and seen.isdisjoint(named) and all(type(label) is int for label in seen):
        classes = range(len(texts))
    if unknown := seen.difference(classes):
        few = ", ".join(map(repr, in_order(unknown)[:3]))
        raise BadInput(field, f"{few} somewhere", f"labels names the classes {texts[:10]}")
    return classes, texts


def in_order(labels: set[Hashable]) -> list[Hashable]:
    """Sorted as the labels sort themselves; as texts where they are of several types."""
    try:
        return sorted(labels)  # type: ignore[type-var]
    except TypeError:
        return sorted(labels, key=lambda label: (type(label).__name__, str(label)))


def counts(hits: Sequence[bool], scores: Sequence[float]) -> Counts:
    """True and false positives at every distinct score."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "argsort") and len(scores) >= _NUMPY_FROM:
        return _counted_by(numpy, hits, scores)
    order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    found = Counts([], [], [])
    true = 0
    for called, at in enumerate(order, 1):
        true += hits[at]
        if called == len(order) or scores[order[called]] != scores[at]:
            found.true.append(true)
            found.false.append(called - true)
            found.thresholds.append(scores[at])
    return found


def _counted_by(numpy: Any, hits: Sequence[bool], scores: Sequence[float]) -> Counts:
    values = numpy.asarray(scores, dtype=float)
    order = numpy.argsort(-values, kind="stable")
    values = values[order]
    ends = numpy.append(numpy.flatnonzero(numpy.diff(values)), len(values) - 1)
    true = numpy.cumsum(numpy.asarray(hits, dtype=bool)[order])[ends]
    return Counts(true.tolist(), (ends + 1 - true).tolist(), values[ends].tolist())


def bends(found: Counts) -> Counts:
    """Without the points on straight lines of an ROC curve: the drawing and the area are the same."""
    true, false, last = found.true, found.false, len(found.true) - 1
    return found.at(
        [
            at
            for at in range(last + 1)
            if at in (0, last)
            or true[at + 1] - true[at] != true[at] - true[at - 1]
            or false[at + 1] - false[at] != false[at] - false[at - 1]
        ]
    )


def thinned(found: Counts, most: int = CURVE_POINTS) -> Counts:
    """At most about `most` points: the upper hull, which holds the best thresholds, and evenly chosen ones."""
    if len(found.true) <= most:
        return found
    hull = _hull(found)
    spread = max(1, most - len(hull))
    evenly = (round(at * (len(found.true) - 1) / spread) for at in range(spread + 1))
    return found.at([*sorted({*hull, *evenly})[: most - 1], len(found.true) - 1])


def _hull(found: Counts) -> list[int]:
    """Places of the points on the upper convex hull from (0, 0) on."""
    kept: list[tuple[int, int, int]] = [(0, 0, -1)]
    for at, (x, y) in enumerate(zip(found.false, found.true, strict=True)):
        while len(kept) > 1:
            (ax, ay, _), (bx, by, _) = kept[-2:]
            if (bx - ax) * (y - ay) - (by - ay) * (x - ax) < 0:
                break
            kept.pop()
        kept.append((x, y, at))
    return [at for _, _, at in kept if at >= 0]


def roc_area(found: Counts) -> float:
    """Area under the ROC curve by the trapezoid rule; NaN where one of the two classes is not there."""
    positives, negatives = found.true[-1], found.false[-1]
    if not positives or not negatives:
        return math.nan
    area = before_true = before_false = 0
    for true, false in zip(found.true, found.false, strict=True):
        area += (false - before_false) * (true + before_true)
        before_true, before_false = true, false
    return area / (2 * positives * negatives)


def recall_areas(found: Counts) -> tuple[float, float]:
    """Area under precision over recall by the trapezoid rule, and the average precision; NaN without positives."""
    if not (positives := found.true[-1]):
        return math.nan, math.nan
    area = average = before_recall = 0.0
    before = 1.0
    for true, false in zip(found.true, found.false, strict=True):
        recall, precision = true / positives, true / (true + false)
        area += (recall - before_recall) * (precision + before) / 2
        average += (recall - before_recall) * precision
        before_recall, before = recall, precision
    return area, average


class Bins(NamedTuple):
    """Samples by their predicted probability: the bins that have any."""

    places: list[int]
    predicted: list[float]
    """Sum of the probabilities of each."""
    positives: list[int]
    counts: list[int]


def calibration(hits: Sequence[bool], probabilities: Sequence[float], bins: int) -> Bins:
    """Count into bins of equal width from 0 to 1. Each holds its upper edge, the first one its lower edge too."""
    edges = [at * (1 / bins) for at in range(1, bins)]
    predicted, positives, found = [0.0] * bins, [0] * bins, [0] * bins
    for hit, probability in zip(hits, probabilities, strict=True):
        at = bisect.bisect_left(edges, probability)
        predicted[at] += probability
        positives[at] += hit
        found[at] += 1
    places = [at for at in range(bins) if found[at]]
    return Bins(places, *([each[at] for at in places] for each in (predicted, positives, found)))  # type: ignore[arg-type]


def histogram(values: Sequence[float], bins: int | Sequence[float]) -> tuple[list[float], list[int]]:
    """Edges and counts of finite values. Each bin holds its lower edge, the last one its upper edge too."""
    edges = _edges(min(values), max(values), bins) if isinstance(bins, int) else list(bins)
    found = [0] * (len(edges) - 1)
    for value in values:
        if edges[0] <= value <= edges[-1]:
            found[min(bisect.bisect_right(edges, value) - 1, len(found) - 1)] += 1
    return edges, found


def _edges(low: float, high: float, bins: int) -> list[float]:
    if low == high:
        low, high = low - 0.5, high + 0.5
    return [low * (1 - at / bins) + high * (at / bins) for at in range(bins)] + [high]
