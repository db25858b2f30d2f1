"""What a run can show beside its metrics: counted from labels and scores here, stored as arrays, read in SQL.

Promises: input that cannot be is refused with field, value and limit, and costs nothing else; counts are exact.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

from runtide.sdk import columns, counting, pictures, values
from runtide.sdk.counting import Counts
from runtide.sdk.pictures import Picture
from runtide.sdk.speaking import Speaker
from runtide.sdk.stream import as_step
from runtide.v1.records_pb2 import Figure, Record
from runtide.wire import limits
from runtide.wire.errors import BadInput

FIGURE_BYTES = limits.RECORD_BYTES - 8 * limits.KIB
"""The arrays of one figure, or of one class of a curve, as JSON; the rest is for names."""
PART_BYTES = 192 * limits.KIB
HISTOGRAM_BINS = 1000


class Figures(Speaker):
    """The part of a run that says figures."""

    def log_confusion_matrix(
        self,
        y_true: Any,
        y_pred: Any,
        labels: Sequence[Any] | None = None,
        name: str = "confusion_matrix",
        step: int | None = None,
    ) -> None:
        """Count a confusion matrix. `labels`: the classes in order, or the names of the classes 0, 1, 2 ...

        Of a figure that is logged again at the same step the later one counts; without a step it is the last one.
        """
        self._guard(self._confusion, y_true, y_pred, labels, name, step)

    def log_roc(
        self,
        y_true: Any,
        scores: Any,
        labels: Sequence[Any] | None = None,
        positive: Any = None,
        name: str = "roc",
        step: int | None = None,
    ) -> None:
        """Count an ROC curve: true over false positive rate.

        `scores` has one number for each sample, or one for each sample and class: then each class has its curve against
        all others, in the order of `labels`. Of two classes the later one is the positive, unless `positive` says.
        """
        self._guard(self._curves, "roc", y_true, scores, labels, positive, name, step)

    def log_precision_recall(
        self,
        y_true: Any,
        scores: Any,
        labels: Sequence[Any] | None = None,
        positive: Any = None,
        name: str = "precision_recall",
        step: int | None = None,
    ) -> None:
        """Count a curve of precision over recall; arguments as those of `log_roc`."""
        self._guard(self._curves, "precision_recall", y_true, scores, labels, positive, name, step)

    def log_calibration(
        self,
        y_true: Any,
        scores: Any,
        bins: int = 10,
        labels: Sequence[Any] | None = None,
        positive: Any = None,
        name: str = "calibration",
        step: int | None = None,
    ) -> None:
        """Count how often predicted probabilities come true, in `bins` of equal width. Else as `log_roc`."""
        self._guard(self._calibration, y_true, scores, bins, labels, positive, name, step)

    def log_histogram(
        self, data: Any, bins: int | Sequence[float] = 64, name: str = "histogram", step: int | None = None
    ) -> None:
        """Count values into `bins` of equal width, or between given edges. NaN and Inf are counted beside them.

        Of an array of any shape, such as the weights of a layer, all values are counted.
        """
        self._guard(self._histogram, data, bins, name, step)

    def log_table(
        self, data: Any, columns: Sequence[str] | None = None, name: str = "table", step: int | None = None
    ) -> None:
        """Keep a small table: rows, a mapping of columns, a frame of pandas, polars or Arrow."""
        self._guard(self._table, data, columns, name, step)

    def log_image(self, image: Any, caption: str = "", name: str = "image", step: int | None = None) -> None:
        """Keep an image of at most 4 MiB: a path, encoded bytes, an image of Pillow, or an array, as PNG."""
        self._guard(self._picture, "image", pictures.image, image, caption, name, step)

    def log_figure(self, figure: Any, caption: str = "", name: str = "figure", step: int | None = None) -> None:
        """Keep a figure of matplotlib (as PNG) or Plotly (as its JSON), at most 4 MiB."""
        self._guard(self._picture, "figure", pictures.drawing, figure, caption, name, step)

    def _confusion(self, y_true: Any, y_pred: Any, labels: Any, name: str, step: int | None) -> None:
        if self._disabled:
            return
        actual, predicted = columns.labels("y_true", y_true), columns.labels("y_pred", y_pred)
        columns.same_length("y_true", actual, "y_pred", predicted)
        named = None if labels is None else columns.labels("labels", labels)
        found = counting.confusion(actual, predicted, named)
        self._show(name, "confusion_matrix", step, {"labels": found.labels, "matrix": found.counts})

    def _curves(
        self, kind: str, y_true: Any, scores: Any, labels: Any, positive: Any, name: str, step: int | None
    ) -> None:
        if self._disabled:
            return
        time_us = time.time_ns() // 1000
        for text, hits, own in _by_class(y_true, scores, labels, positive):
            found = counting.counts(hits, own)
            said = _roc(found) if kind == "roc" else _precision_recall(found)
            self._show(name, kind, step, {"class": text, **said}, time_us=time_us)

    def _calibration(
        self, y_true: Any, scores: Any, bins: int, labels: Any, positive: Any, name: str, step: int | None
    ) -> None:
        if self._disabled:
            return
        if not isinstance(bins, int) or not 1 <= bins <= HISTOGRAM_BINS:
            raise BadInput("bins", repr(bins)[:80], f"a calibration curve has 1 to {HISTOGRAM_BINS}")
        time_us = time.time_ns() // 1000
        for text, hits, own in _by_class(y_true, scores, labels, positive):
            for at, score in enumerate(own):
                if not 0 <= score <= 1:
                    raise BadInput(f"scores[{at}]", score, "it is a probability, from 0 to 1")
            found = counting.calibration(hits, own, bins)
            self._show(name, "calibration", step, {"class": text, "bins": bins, **found._asdict()}, time_us=time_us)

    def _histogram(self, data: Any, bins: int | Sequence[float], name: str, step: int | None) -> None:
        if self._disabled:
            return
        given = columns.flat("data", data)
        finite = [value for value in given if math.isfinite(value)]
        if not finite:
            raise BadInput("data", "of NaN and Inf only", "a histogram is of finite numbers")
        edges, found = counting.histogram(finite, _bins(bins))
        said = {"edges": edges, "counts": found, "outside": len(finite) - sum(found)}
        self._show(name, "histogram", step, said | {"non_finite": len(given) - len(finite)})

    def _table(self, data: Any, names: Sequence[str] | None, name: str, step: int | None) -> None:
        if not self._disabled:
            self._show(name, "table", step, _as_table(data, names))

    def _picture(
        self, kind: str, read: Callable[[Any], Picture], given: Any, caption: str, name: str, step: int | None
    ) -> None:
        if self._disabled:
            return
        found, time_us = read(given), time.time_ns() // 1000
        places = range(0, max(1, len(found.content)), PART_BYTES)
        for part, start in enumerate(places):
            said = {"caption": str(caption), "size": len(found.content), "part": part, "parts": len(places)}
            piece = Picture(found.content[start : start + PART_BYTES], found.content_type)
            self._show(name, kind, step, said, piece, time_us=time_us)

    def _show(
        self,
        name: str,
        kind: str,
        step: int | None,
        said: Mapping[str, object],
        picture: Picture = Picture(b"", ""),  # noqa: B008  immutable
        time_us: int = 0,
    ) -> None:
        if problem := values.name_problem("a figure", name):
            raise problem
        text = values.to_json(said) if kind == "table" else json.dumps(said, separators=(",", ":"), ensure_ascii=False)
        if (size := len(text.encode("utf-8", "replace"))) > FIGURE_BYTES:
            raise BadInput(f"figure {name!r}", f"{size} bytes long as JSON", f"it has at most {FIGURE_BYTES} bytes")
        at = self._last_step() if step is None else as_step(step)
        figure = Figure(
            time_us=time_us or time.time_ns() // 1000,
            name=name,
            kind=kind,
            step=at,
            json=text.encode("utf-8", "replace").decode(),
            content=picture.content,
            content_type=picture.content_type,
        )
        self._say(Record(figure=figure))


def _by_class(y_true: Any, scores: Any, labels: Any, positive: Any) -> Iterator[tuple[str, list[bool], list[float]]]:
    """Each class that has a curve: its name, which samples are of it, and the scores for it."""
    actual = columns.labels("y_true", y_true)
    named = None if labels is None else columns.labels("labels", labels)
    classes, texts = counting.classes_of("y_true", set(actual), named)
    for label, text, own in _scored(actual, scores, classes, texts, positive):
        yield text, [value == label for value in actual], own


def _scored(
    actual: Sequence[Hashable], scores: Any, classes: Sequence[Hashable], texts: Sequence[str], positive: Any
) -> Iterator[tuple[Hashable, str, list[float]]]:
    """Each class that has a curve, its name, and the scores for it."""
    scores = columns.items("scores", scores)
    if not scores or not columns.is_row(scores[0]):
        own = columns.finite("scores", scores)
        columns.same_length("y_true", actual, "scores", own)
        label, text = _positive(classes, texts, positive)
        yield label, text, own
        return
    rows = columns.rows("scores", scores)
    columns.same_length("y_true", actual, "scores", rows)
    if len(rows[0]) != len(classes):
        limit = f"there are {len(classes)} classes, {list(texts[:10])}; labels names them where y_true lacks some"
        raise BadInput("scores", f"{len(rows[0])} numbers wide", limit)
    if len(classes) == 2:
        label, text = _positive(classes, texts, positive)
        at = list(classes).index(label)
        yield label, text, [row[at] for row in rows]
        return
    for at, (label, text) in enumerate(zip(classes, texts, strict=True)):
        yield label, text, [row[at] for row in rows]


def _positive(classes: Sequence[Hashable], texts: Sequence[str], positive: Any) -> tuple[Hashable, str]:
    """The positive one of two classes."""
    if len(classes) != 2:
        raise BadInput("y_true", f"of {len(classes)} classes, {list(texts[:10])}", "one score a sample tells two apart")
    if positive is None:
        return classes[1], texts[1]
    for label, text in zip(classes, texts, strict=True):
        if positive in (label, text):
            return label, text
    raise BadInput("positive", repr(positive)[:80], f"the classes are {list(texts)}")


def _roc(found: Counts) -> dict[str, object]:
    return _curve(counting.bends(found), {"area": counting.roc_area(found)})


def _precision_recall(found: Counts) -> dict[str, object]:
    area, average = counting.recall_areas(found)
    return _curve(found, {"area": area, "average_precision": average})


def _curve(found: Counts, areas: Mapping[str, float]) -> dict[str, object]:
    kept = counting.thinned(found)
    return {
        "positives": found.true[-1],
        "negatives": found.false[-1],
        "true_positives": kept.true,
        "false_positives": kept.false,
        "thresholds": kept.thresholds,
        "thinned": len(kept.true) < len(found.true),
        **{name: None if math.isnan(area) else area for name, area in areas.items()},
    }


def _bins(bins: int | Sequence[float]) -> int | list[float]:
    if isinstance(bins, int):
        if not 1 <= bins <= HISTOGRAM_BINS:
            raise BadInput("bins", bins, f"a histogram has 1 to {HISTOGRAM_BINS}")
        return bins
    edges = columns.finite("bins", bins)
    if not 2 <= len(edges) <= HISTOGRAM_BINS + 1 or any(a >= b for a, b in itertools.pairwise(edges)):
        raise BadInput("bins", f"{edges[:5]!r:.80}", f"edges are 2 to {HISTOGRAM_BINS + 1} numbers that grow")
    return edges


def _as_table(data: Any, names: Sequence[str] | None) -> dict[str, object]:
    """Columns and rows of anything that is a table."""
    if callable(split := getattr(data, "to_pylist", None)):  # Arrow
        data = split()
    elif callable(rows := getattr(data, "rows", None)) and hasattr(data, "columns"):  # polars
        names, data = names or list(data.columns), rows()
    elif hasattr(data, "to_dict") and hasattr(data, "columns"):  # pandas
        split_ = data.to_dict("split")
        names, data = names or split_["columns"], split_["data"]
    if isinstance(data, Mapping):
        cells = {str(key): list(value) for key, value in data.items()}
        names = list(names or cells)
        for key in cells:
            columns.same_length(f"column {names[0]!r}", cells[str(names[0])], f"column {key!r}", cells[key])
        data = [list(row) for row in zip(*(cells[str(key)] for key in names), strict=True)]
    found = list(data)
    if found and all(isinstance(row, Mapping) for row in found):
        names = list(names or dict.fromkeys(key for row in found for key in row))
        found = [[row.get(key) for key in names] for row in found]
    if names is None:
        raise BadInput("columns", None, "rows that are sequences need the names of their columns")
    for at, row in enumerate(found):
        columns.same_length("columns", list(names), f"data[{at}]", row)
    return {"columns": [str(key) for key in names], "rows": [list(row) for row in found]}
