"""Figures of a real job, end to end: what SQL says of them is what scikit-learn says of the same data."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runtide.testing.stack import Stack
from runtide.testing.waiting import until
from sklearn import metrics

JOB = """
import sys, numpy as np, runtide
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
out = sys.argv[1]
run = runtide.init("p", run_id="f")

x, y = load_digits(return_X_y=True)
digits = GaussianNB().fit(x[::2], y[::2])
truth, scores, predicted = y[1::2], digits.predict_proba(x[1::2]), digits.predict(x[1::2])
np.savez(out + "/digits.npz", truth=truth, scores=scores, predicted=predicted)
run.log({"a": 1}, step=6)
run.log_confusion_matrix(truth, 9 - predicted)  # said again at the same step below
run.log_confusion_matrix(truth, predicted)
run.log_roc(truth, scores, name="digits")
run.log_precision_recall(truth, scores, name="digits")

x, y = load_breast_cancer(return_X_y=True)
cancer = LogisticRegression(max_iter=10_000).fit(x[::2], y[::2])
truth, score = y[1::2], cancer.decision_function(x[1::2])
np.savez(out + "/cancer.npz", truth=truth, score=score, predicted=cancer.predict(x[1::2]))
names = ["malignant", "benign"]
runtide.log_confusion_matrix(truth, cancer.predict(x[1::2]), labels=names, name="cancer", step=9)
runtide.log_roc(truth.tolist(), score.tolist(), labels=names, name="cancer", step=9)
runtide.log_precision_recall(truth, score, name="cancer", step=9)
runtide.log_precision_recall(truth, -score, positive=0, name="malignant", step=9)

dice = np.random.default_rng(0)
truth = dice.random(40_000) < 0.5
score = dice.normal(size=40_000) + truth
np.savez(out + "/many.npz", truth=truth, score=score)
run.log_roc(truth, score, name="many")
run.log_precision_recall(truth, score, name="many")

np.savez(out + "/weights.npz", weights=(weights := dice.normal(size=5000)))
run.log_histogram([*weights, float("nan"), float("inf")], bins=30, name="weights")
picture = dice.integers(0, 256, (300, 400, 3), dtype=np.uint8)
np.savez(out + "/picture.npz", picture=picture)
run.log_image(picture, "noise", name="noise", step=3)
run.log_table([{"word": "größe", "n": 1}, {"n": np.float64("nan")}], name="words")
runtide.define_metric("val/acc", goal="max", x="epoch")
run.define_metric("loss", goal="max")
run.define_metric("loss", goal="min", summary="mean")
run.define_metric("never logged", goal="min")
for step, (acc, loss) in enumerate([(0.5, 3.0), (0.9, 1.0), (0.9, 2.0), (float("nan"), 6.0)], 20):
    run.log({"val/acc": acc, "loss": loss, "lr": 0.5}, step=step)
assert run.refused == 0, run.refused
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Path]]:
    """A stack to which the job has said everything, and the folder with the job's own data."""
    folder = tmp_path_factory.mktemp("figures")
    stack = Stack(folder / "home")
    try:
        stack.up("--no-dashboard")
        stack.run_job(JOB, str(folder))
        stack.wait_agent()
        yield stack, folder
    finally:
        stack.end()


def loaded(folder: Path, name: str) -> Any:
    return np.load(folder / f"{name}.npz")


@pytest.mark.parametrize(("name", "figure", "classes"), [("digits", "confusion_matrix", 10), ("cancer", "cancer", 2)])
def test_a_confusion_matrix_is_that_of_scikit_learn(
    told: tuple[Stack, Path], name: str, figure: str, classes: int
) -> None:
    stack, folder = told
    data = loaded(folder, name)
    expected = metrics.confusion_matrix(data["truth"], data["predicted"])
    rows = stack.sql(
        "SELECT actual_index, predicted_index, count, actual, predicted FROM confusion_matrices"
        f" WHERE run_id = 'f' AND name = '{figure}' ORDER BY 1, 2"
    )
    assert len(rows) == classes**2
    assert [row[2] for row in rows] == expected.flatten().tolist()
    names = ["malignant", "benign"] if classes == 2 else [str(digit) for digit in range(10)]
    assert [(row[3], row[4]) for row in rows] == [(names[row[0]], names[row[1]]) for row in rows]
    ((correct,),) = stack.sql(
        f"SELECT sumIf(count, actual = predicted) / sum(count) FROM confusion_matrices WHERE name = '{figure}'"
    )
    assert correct == pytest.approx(metrics.accuracy_score(data["truth"], data["predicted"]), abs=1e-9)


def curve(stack: Stack, kind: str, name: str, label: str) -> tuple[list[float], list[float], list[float]]:
    rows = stack.sql(
        f"SELECT x, y, threshold FROM curves WHERE kind = '{kind}' AND name = '{name}' AND class = '{label}'"
        " ORDER BY place"
    )
    return tuple(list(values) for values in zip(*rows, strict=True))  # type: ignore[return-value]


def of_class(folder: Path, name: str, label: str) -> tuple[Any, Any]:
    """Truth and scores of one class against all others."""
    data = loaded(folder, name)
    if name == "digits":
        return data["truth"] == int(label), data["scores"][:, int(label)]
    return data["truth"], data["score"]


CURVES = [("digits", str(digit), str(digit)) for digit in range(10)] + [("cancer", "benign", "1")]


@pytest.mark.parametrize(("name", "label", "column"), CURVES)
def test_a_roc_and_its_area_are_those_of_scikit_learn(
    told: tuple[Stack, Path], name: str, label: str, column: str
) -> None:
    stack, folder = told
    truth, scores = of_class(folder, name, column)
    for found, expected in zip(curve(stack, "roc", name, label), metrics.roc_curve(truth, scores), strict=True):
        assert found == pytest.approx(expected.tolist(), abs=1e-9)
    rows = stack.sql(f"SELECT area FROM curve_areas WHERE kind = 'roc' AND name = '{name}' AND class = '{label}'")
    assert [row[0] for row in rows] == [pytest.approx(metrics.roc_auc_score(truth, scores), abs=1e-9)]


@pytest.mark.parametrize(("name", "label"), [*((name, column) for name, _, column in CURVES), ("malignant", "0")])
def test_precision_and_recall_are_those_of_scikit_learn(told: tuple[Stack, Path], name: str, label: str) -> None:
    stack, folder = told
    truth, scores = of_class(folder, name if name != "malignant" else "cancer", label)
    if name == "malignant":
        truth, scores = 1 - truth, -scores
    precision, recall, thresholds = metrics.precision_recall_curve(truth, scores)
    x, y, limits = curve(stack, "precision_recall", name, label)
    assert x == pytest.approx(recall[::-1].tolist(), abs=1e-9)
    assert y == pytest.approx(precision[::-1].tolist(), abs=1e-9)
    assert limits[1:] == pytest.approx(thresholds[::-1].tolist(), abs=1e-9)
    ((area, average),) = stack.sql(
        "SELECT area, average_precision FROM curve_areas"
        f" WHERE kind = 'precision_recall' AND name = '{name}' AND class = '{label}'"
    )
    assert area == pytest.approx(metrics.auc(recall, precision), abs=1e-9)
    assert average == pytest.approx(metrics.average_precision_score(truth, scores), abs=1e-9)


def test_a_curve_of_too_many_points_is_thinned_and_its_areas_stay_exact(told: tuple[Stack, Path]) -> None:
    stack, folder = told
    truth, scores = of_class(folder, "many", "1")
    rows = stack.sql(
        "SELECT area, average_precision, points, thinned FROM curve_areas WHERE name = 'many' ORDER BY kind"
    )
    assert [row[3] for row in rows] == [True, True]
    assert all(4500 < row[2] <= 5001 for row in rows)
    precision, recall, _ = metrics.precision_recall_curve(truth, scores)
    assert rows[0][:2] == pytest.approx(
        (metrics.auc(recall, precision), metrics.average_precision_score(truth, scores)), abs=1e-9
    )
    assert rows[1][0] == pytest.approx(metrics.roc_auc_score(truth, scores), abs=1e-9)
    rates, found, _ = metrics.roc_curve(truth, scores)
    ((best,),) = stack.sql("SELECT max(y - x) FROM curves WHERE name = 'many' AND kind = 'roc'")
    assert best == pytest.approx((found - rates).max(), abs=1e-9), "the best threshold is on the hull"


def test_a_histogram_is_that_of_numpy(told: tuple[Stack, Path]) -> None:
    stack, folder = told
    counts, edges = np.histogram(loaded(folder, "weights")["weights"], bins=30)
    rows = stack.sql("SELECT low, high, count, step FROM histograms WHERE run_id = 'f' ORDER BY place")
    assert [row[2] for row in rows] == counts.tolist()
    assert [rows[0][0], *(row[1] for row in rows)] == pytest.approx(edges.tolist(), abs=1e-12)
    ((outside,),) = stack.sql("SELECT JSONExtractUInt(json, 'non_finite') FROM figures WHERE kind = 'histogram'")
    assert outside == 2


def test_a_large_image_comes_back_whole(told: tuple[Stack, Path]) -> None:
    stack, folder = told
    rows = stack.sql("SELECT base64Encode(content), size, content_type, caption, step, length(content) FROM images")
    ((text, size, *words, length),) = rows
    assert words == ["image/png", "noise", 3]
    assert length == size > 256 * 1024, "it is larger than a record"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
    assert (shown == loaded(folder, "picture")["picture"]).all()


def test_a_table_is_kept_as_json(told: tuple[Stack, Path]) -> None:
    stack, _ = told
    rows = stack.sql("SELECT json FROM figures WHERE kind = 'table' AND name = 'words'")
    assert rows == [('{"columns": ["word", "n"], "rows": [["größe", 1], [null, "nan"]]}',)]


def test_a_figure_without_a_step_belongs_to_the_last_one(told: tuple[Stack, Path]) -> None:
    stack, _ = told
    rows = stack.sql("SELECT DISTINCT name, step FROM curve_areas WHERE run_id = 'f' ORDER BY name")
    assert rows == [("cancer", 9), ("digits", 6), ("malignant", 9), ("many", 6)]


def test_what_a_metric_is_for_stands_beside_its_summary(told: tuple[Stack, Path]) -> None:
    stack, _ = told
    definitions = "SELECT metric, goal, x, summary FROM metric_definitions WHERE run_id = 'f' ORDER BY metric"
    assert stack.sql(definitions) == [
        ("loss", "min", "", "mean"),
        ("never logged", "min", "", "best"),
        ("val/acc", "max", "epoch", "best"),
    ]
    question = """SELECT metric, value, goal, best, best_step, last_step, summary, x FROM run_metrics
        WHERE project = 'p' AND run_id = 'f' AND metric IN ('val/acc', 'loss', 'lr') ORDER BY metric"""
    assert until(lambda: [row for row in (stack.sql(question),) if len(row) == 3], 30, "summaries are derived")[0] == [
        ("loss", 3.0, "min", 1.0, 21, 23, "mean", ""),
        ("lr", 0.5, "", None, None, 23, "last", ""),
        ("val/acc", 0.9, "max", 0.9, 21, 23, "best", "epoch"),
    ]
