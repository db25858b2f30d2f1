"""The example on a whole stack: complete, told of when started again, equal to scikit-learn in SQL, and reproduced."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from runtide.testing.stack import Stack
from runtide.testing.waiting import until
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import confusion_matrix, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).parents[2] / "examples" / "sklearn_classifier.py"
EPOCHS = 10


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    made = Stack(tmp_path_factory.mktemp("example") / "home")
    made.up("--no-dashboard")
    yield made
    made.end()


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copy(EXAMPLE, tmp_path_factory.mktemp("code")))


@pytest.fixture(scope="module")
def first(stack: Stack, script: Path) -> str:
    return start(stack, script)[0]


def start(stack: Stack, script: Path, *arguments: str) -> tuple[str, str]:
    """Run it; returns its run, when all of it is stored, and what it said on stderr."""
    done = subprocess.run(
        [sys.executable, script.name, "--epochs", str(EPOCHS), *arguments],
        cwd=script.parent,
        env=stack.environment() | {"RUNTIDE_SILENT": "0", "RUNTIDE_STRICT": "1", "RUNTIDE_ON_DUPLICATE": "warn"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"^run (\S+):", done.stdout, re.MULTILINE)
    assert found is not None
    stack.wait_state(found[1], "finished")
    until(lambda: bool(stack.sql(f"SELECT 1 FROM fingerprints WHERE run_id = '{found[1]}' AND code != ''")))
    kept = f"SELECT uniqExact(name) FROM artifact_words WHERE run_id = '{found[1]}' AND digest != ''"
    until(lambda: stack.sql(kept) == [(2,)])
    return found[1], done.stderr


def test_its_run_is_complete(stack: Stack, first: str) -> None:
    assert stack.sql(f"SELECT score, missing FROM completeness WHERE run_id = '{first}'") == [(100.0, [])]
    assert stack.verify(first)[0] == 0
    roles = stack.sql(f"SELECT role, rows FROM dataset_uses WHERE run_id = '{first}' ORDER BY role")
    assert [role for role, _ in roles] == ["test", "train", "validation"]
    histograms = stack.sql(f"SELECT uniqExact(step), sum(count) FROM histograms WHERE run_id = '{first}'")
    assert histograms == [(EPOCHS, EPOCHS * 30)]


def test_its_figures_are_those_of_scikit_learn(stack: Stack, first: str) -> None:
    data = load_breast_cancer()
    x, x_test, y, y_test = train_test_split(data.data, data.target, test_size=0.2, random_state=0)
    x, _, y, _ = train_test_split(x, y, test_size=0.25, random_state=0)
    scaler, model = StandardScaler().fit(x), SGDClassifier(loss="log_loss", alpha=0.001, random_state=0)
    order = np.random.default_rng(0)
    for _ in range(EPOCHS):
        rows = order.permutation(len(x))
        model.partial_fit(scaler.transform(x[rows]), y[rows], classes=[0, 1])
    scores = model.predict_proba(scaler.transform(x_test))[:, 1]
    cells = stack.sql(
        f"SELECT count FROM confusion_matrices WHERE run_id = '{first}' ORDER BY actual_index, predicted_index"
    )
    assert [cell for (cell,) in cells] == list(confusion_matrix(y_test, scores > 0.5).ravel())
    areas = stack.sql(f"SELECT area FROM curve_areas WHERE run_id = '{first}' AND name = 'roc'")
    assert areas
    assert all(abs(area - roc_auc_score(y_test, scores)) < 1e-9 for (area,) in areas)


def test_started_again_it_is_told_of_the_first_run_and_with_one_key_changed_of_that_key(
    stack: Stack, script: Path, first: str
) -> None:
    _, said = start(stack, script)
    line = next((line for line in said.splitlines() if f"the same as run {first}" in line), "")
    assert "finished" in line, said
    assert re.search(r"result: .*val/accuracy 0\.\d+", line)
    assert "cost: " in line
    _, said = start(stack, script, "--alpha", "0.01")
    line = next((line for line in said.splitlines() if "nearly the same as run" in line), "")
    assert "config.alpha 0.001 there and 0.01 here" in line, said


def test_it_is_reproduced_to_the_last_bit(stack: Stack, first: str, tmp_path: Path) -> None:
    done = stack.runtide("reproduce", first, "--dir", str(tmp_path / "again"), "--run", "--tolerance", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same: final values of" in done.stdout
    ((new,),) = stack.sql(f"SELECT run_id FROM runs WHERE has(tags, 'reproduces:{first}')")
    compared = stack.runtide("compare", first, new, "--tolerance", "0")
    assert compared.returncode == 0, compared.stdout
