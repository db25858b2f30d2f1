"""Figures as the job says them: what is refused and how, and that counting is the same with and without numpy."""

from __future__ import annotations

import array
import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from runtide.sdk import counting, pictures
from runtide.sdk.figures import Figures
from runtide.v1.records_pb2 import Figure, Record
from runtide.wire.errors import BadInput
from runtide.wire.limits import RECORD_BYTES

from tests.offline_job import Job


class Said(Figures):
    """Keeps what a run would say, and lets every error through, as strict mode does."""

    def __init__(self) -> None:
        self._disabled = False
        self.figures: list[Figure] = []

    def _guard(self, do: Callable[..., object], *arguments: object) -> None:
        do(*arguments)

    def _say(self, record: Record) -> None:
        assert record.ByteSize() <= RECORD_BYTES
        self.figures.append(record.figure)

    def _last_step(self) -> int:
        return 41

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.figures[-1].json)
        return found


@pytest.fixture
def run() -> Said:
    return Said()


REFUSED: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("log_confusion_matrix", ([0, 1], [0]), {}, "length of y_pred is 1, but y_true has 2 values"),
    ("log_confusion_matrix", ([], []), {}, "y_true is empty, but a figure is made of one value at least"),
    ("log_confusion_matrix", ("ab", ["a", "b"]), {}, "y_true is of type str, but it is a sequence"),
    ("log_confusion_matrix", ([0, None], [0, 0]), {}, r"y_true\[1\] is None, but a class is a text or a number"),
    ("log_confusion_matrix", ([0, float("nan")], [0, 0]), {}, r"y_true\[1\] is nan, but a class"),
    ("log_confusion_matrix", ([[0], [1]], [0, 0]), {}, r"y_true\[0\] is of type list, but each sample has one value"),
    ("log_confusion_matrix", ([0, 7], [0, 1]), {"labels": ["a", "b"]}, "7 somewhere, but labels names the classes"),
    ("log_confusion_matrix", ([0, 1], [0, 1]), {"labels": ["a", "a"]}, r"labels is \['a'\] more than once"),
    ("log_confusion_matrix", ([1, "1"], [1, 1]), {}, r"labels is \['1'\] more than once"),
    ("log_confusion_matrix", ([0], [0]), {"name": "a\nb"}, "control characters"),
    ("log_confusion_matrix", ([0], [0]), {"name": "x" * 1025}, "1025 bytes long, but it has at most 1024 bytes"),
    ("log_confusion_matrix", ([0], [0]), {"step": 0.5}, "step is 0.5, but a step is a whole number"),
    ("log_confusion_matrix", (range(500), range(500)), {}, "bytes long as JSON, but it has at most 253952 bytes"),
    ("log_roc", ([0, 1], [0.5, float("nan")]), {}, r"scores\[1\] is nan, but it is a finite number"),
    ("log_roc", ([0, 1], [0.5, "x"]), {}, r"scores\[1\] is of type str, but it is a number"),
    ("log_roc", ([0, 1, 2], [0.5, 1, 2]), {}, "y_true is of 3 classes.*, but one score a sample tells two apart"),
    ("log_roc", ([1, 1], [0.5, 1]), {}, "y_true is of 1 classes"),
    ("log_roc", ([0, 1], [0.5, 1]), {"positive": 2}, r"positive is 2, but the classes are \['0', '1'\]"),
    ("log_roc", ([0, 1], [[0.1, 0.2, 0.7]] * 2), {}, "scores is 3 numbers wide, but there are 2 classes"),
    ("log_roc", ([0, 1], [[0.1, 0.9], [0.1]]), {}, r"scores\[1\] is 1 numbers long, but scores\[0\] has 2"),
    ("log_precision_recall", ([0, 1, 1], [0.1, 0.2]), {}, "length of scores is 2, but y_true has 3"),
    ("log_histogram", ([1.0],), {"bins": 0}, "bins is 0, but a histogram has 1 to 1000"),
    ("log_histogram", ([1.0],), {"bins": [0, 0]}, "edges are 2 to 1001 numbers that grow"),
    ("log_histogram", ([float("nan")],), {}, "data is of NaN and Inf only"),
    ("log_table", ([[1, 2]],), {}, "columns is None, but rows that are sequences need the names"),
    ("log_table", ([[1, 2]],), {"columns": ["a"]}, r"length of data\[0\] is 2, but columns has 1"),
    ("log_table", ({"a": [1], "b": []},), {}, "length of column 'b' is 0, but column 'a' has 1"),
    ("log_table", ([{"a": "x" * 300_000}],), {}, "bytes long as JSON, but it has at most 253952 bytes"),
    ("log_image", (7,), {}, "image is of type int, but it is a path, bytes"),
    ("log_image", (b"nothing",), {}, "it is PNG, JPEG, GIF, WebP or SVG"),
    ("log_image", ("missing.png",), {}, "image is 'missing.png', but it cannot be read: No such file"),
    ("log_image", (b"\xff\xd8\xff" + bytes(4 << 20),), {}, "image is 4194307 bytes long, but it has at most 4194304"),
    ("log_image", (np.zeros((2, 2, 2)),), {}, r"shape of image is \(2, 2, 2\), but it is height x width"),
    ("log_image", (np.full((2, 2), 300),), {}, "a pixel of image is 300, but it is a whole number of 0 to 255"),
    ("log_image", (np.full((2, 2), np.nan),), {}, "a pixel of image is nan"),
    ("log_figure", (7,), {}, "figure is of type int, but it is a figure of matplotlib or Plotly"),
]


@pytest.mark.parametrize(("method", "given", "named", "message"), REFUSED)
def test_what_cannot_be_is_refused_with_field_value_and_limit(
    run: Said, method: str, given: tuple[Any, ...], named: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        getattr(run, method)(*given, **named)
    assert run.figures == []


def test_nothing_of_it_raises_into_the_job_unless_it_is_strict(job: Job) -> None:
    script = """
import runtide
run = runtide.init("p")
run.log_roc([0, 1], [0.5, float("nan")])
runtide.log_image("missing.png")
run.log_confusion_matrix([0, 1], [0, 1])
run.log({"a": 1})
assert run.refused == 2, run.refused
"""
    done = job.run(script)
    assert "refused: scores[1] is nan, but it is a finite number" in done.stderr
    (figure,) = job.stream().said("figure")
    assert json.loads(figure.figure.json) == {"labels": ["0", "1"], "matrix": [[1, 0], [0, 1]]}
    assert job.stream().steps() == [(0, {"a": 1.0})]
    assert "BadInput" in job.run(script, {"RUNTIDE_STRICT": "1"}, code=1).stderr


def test_functions_without_a_run_say_so_and_a_disabled_run_does_no_work(job: Job) -> None:
    done = job.run('import runtide\nruntide.log_roc([0, 1], [0.5, 1])\nassert "log_roc" in dir(runtide)')
    assert "runtide.log_roc() was called without a run" in done.stderr
    job.run('import runtide\nr = runtide.init("p", mode="disabled")\nr.log_roc(1, 2)\nassert r.refused == 0')


ACTUAL, SCORES = [0, 1, 1, 0, 1], [0.1, 0.5, 0.5, 0.5, 0.9]


@pytest.mark.parametrize(
    "kind",
    [list, tuple, np.array, pd.Series, pa.array, lambda values: [np.array(value) for value in values], iter],
)
def test_columns_of_every_library_are_taken(run: Said, kind: Callable[[Any], Any]) -> None:
    run.log_roc(kind(ACTUAL), kind(SCORES))
    assert run.json == {
        "class": "1",
        "positives": 3,
        "negatives": 2,
        "true_positives": [1, 3, 3],
        "false_positives": [0, 1, 2],
        "thresholds": [0.9, 0.5, 0.1],
        "thinned": False,
        "area": 5 / 6,
    }
    assert (run.figures[-1].name, run.figures[-1].kind, run.figures[-1].step) == ("roc", "roc", 41)


@pytest.mark.parametrize("scores", [[[1 - s, s] for s in SCORES], np.array([[1 - s, s] for s in SCORES])])
def test_two_columns_of_scores_are_one_curve_of_the_positive_class(run: Said, scores: Any) -> None:
    run.log_roc(["no" if not each else "yes" for each in ACTUAL], scores)
    assert (run.json["class"], run.json["area"]) == ("yes", 5 / 6)
    run.log_roc(ACTUAL, scores, positive=0)
    assert (run.json["class"], len(run.figures)) == ("0", 2)


def test_a_class_without_samples_has_a_curve_without_an_area(run: Said) -> None:
    run.log_roc([0, 1], np.eye(3)[:2], labels=[0, 1, 2])
    assert [json.loads(figure.json)["area"] for figure in run.figures] == [1.0, 1.0, None]
    assert len({figure.time_us for figure in run.figures}) == 1


def test_counting_is_the_same_with_numpy_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(1)
    hits = [dice.random() < 0.3 for _ in range(3000)]
    scores = [round(dice.gauss(0, 1), 2) for _ in hits]
    counted = counting.counts(hits, scores)
    monkeypatch.delitem(__import__("sys").modules, "numpy")
    assert counting.counts(hits, scores) == counted
    assert len(counted.true) < 1000, "equal scores are one point"


def test_a_thinned_curve_keeps_its_ends_and_its_hull() -> None:
    dice = random.Random(2)
    hits = [dice.random() < 0.5 for _ in range(2000)]
    whole = counting.counts(hits, [dice.gauss(hit, 1) for hit in hits])
    kept = counting.thinned(whole, 100)
    assert len(kept.true) <= 100
    assert (kept.true[0], kept.true[-1], kept.false[-1]) == (whole.true[0], whole.true[-1], whole.false[-1])
    youden = [
        max(t / c.true[-1] - f / c.false[-1] for t, f in zip(c.true, c.false, strict=True)) for c in (whole, kept)
    ]
    assert youden[0] == youden[1]


def pixels(png: bytes) -> tuple[tuple[int, int], str, list[Any]]:
    import io

    image = Image.open(io.BytesIO(png))
    return image.size, image.mode, np.asarray(image).tolist()


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        (np.arange(12, dtype=np.uint8).reshape(3, 4), "L"),
        (np.arange(36, dtype=np.int64).reshape(3, 4, 3), "RGB"),
        (np.arange(48, dtype=np.uint8).reshape(3, 4, 4).swapaxes(0, 0), "RGBA"),
    ],
)
def test_arrays_become_png(given: Any, mode: str) -> None:
    assert pixels(pictures.image(given).content) == ((4, 3), mode, given.tolist())


def test_fractions_and_truth_values_are_shades() -> None:
    assert pixels(pictures.image(np.array([[0.0, 0.5, 1.0]])).content)[2] == [[0, 128, 255]]
    assert pixels(pictures.image(np.array([[True, False]])).content)[2] == [[255, 0]]


def test_images_of_pillow_and_encoded_bytes_are_taken() -> None:
    image = Image.new("RGB", (2, 1), (1, 2, 3))
    found = pictures.image(image)
    assert pixels(found.content)[2] == [[[1, 2, 3], [1, 2, 3]]]
    assert pictures.image(found.content) == found
    assert pictures.image(b"<svg xmlns='x'/>").content_type == "image/svg+xml"


class Drawn:
    """Draws itself as matplotlib's figures do."""

    def savefig(self, into: Any, format: str) -> None:  # noqa: A002  its name there
        assert format == "png"
        into.write(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", zlib.crc32(b"x")))


class Axes:
    figure = Drawn()


class Interactive:
    """Says itself as Plotly's figures do."""

    def to_plotly_json(self) -> dict[str, object]:
        return {}

    def to_json(self) -> str:
        return '{"data": []}'


def test_figures_of_matplotlib_and_plotly_are_taken(run: Said) -> None:
    for figure in (Drawn(), Axes()):
        run.log_figure(figure, "drawn")
        assert (run.figures[-1].content_type, run.json["caption"]) == ("image/png", "drawn")
    run.log_figure(Interactive())
    assert (run.figures[-1].content, run.figures[-1].content_type) == (b'{"data": []}', pictures.PLOTLY)


@pytest.mark.parametrize(
    "data",
    [
        [{"a": 1, "b": "x"}, {"a": 2, "b": None}],
        {"a": [1, 2], "b": ["x", None]},
        pa.table({"a": [1, 2], "b": ["x", None]}),
        pd.DataFrame({"a": [1, 2], "b": pd.Series(["x", None], dtype=object)}),
    ],
)
def test_tables_of_every_library_are_taken(run: Said, data: Any) -> None:
    run.log_table(data)
    assert run.json == {"columns": ["a", "b"], "rows": [[1, "x"], [2, None]]}


def test_a_histogram_counts_all_values_of_an_array_of_any_shape(run: Said) -> None:
    run.log_histogram(np.arange(24.0).reshape(2, 3, 4), bins=[0, 6, 24])
    assert run.json["counts"] == [6, 18]


def test_a_histogram_counts_as_numpy_does(run: Said) -> None:
    values = array.array("d", [0, 0.1, 0.2, 0.5, 1, 1, 3])
    run.log_histogram(values, bins=[0, 0.2, 1, 2])
    assert run.json == {"edges": [0, 0.2, 1, 2], "counts": [2, 2, 2], "outside": 1, "non_finite": 0}
    run.log_histogram([5, 5, float("inf")], bins=2)
    assert run.json == {"edges": [4.5, 5, 5.5], "counts": [0, 2], "outside": 0, "non_finite": 1}


def test_a_definition_that_cannot_be_is_refused(job: Job) -> None:
    done = job.run(
        """
import runtide
from runtide.wire.errors import BadInput
run = runtide.init("p")
for name, named, words in [
    ("a", {"goal": "less"}, "goal is 'less', but it is one of min, max"),
    ("a", {"summary": "first"}, "summary is 'first', but it is one of best, last, mean, min, max"),
    ("a", {"summary": "best"}, "summary is 'best', but that needs goal='min' or goal='max'"),
    ("", {}, "the name of a metric is empty"),
    ("a", {"x": 7}, "the name of a metric is 7 of type int"),
]:
    try:
        run.define_metric(name, **named)
    except BadInput as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)
""",
        {"RUNTIDE_STRICT": "1"},
    )
    assert done.stderr.count("refused") == 1, "the count at the end"
    assert job.stream().said("metric_defined") == []
