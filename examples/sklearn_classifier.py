"""A classifier that is tracked whole: a scikit-learn model on real data, with nearly everything that a run can say.

Start it with `runtide up` in another terminal: `python examples/sklearn_classifier.py --epochs 20`. Started again it is
told of the first run before it trains; `runtide reproduce RUN --run` trains it once more and compares.
"""

import argparse
import pickle
import tempfile
import time
from pathlib import Path

import numpy as np
import runtide
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--alpha", type=float, default=0.001)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

run = runtide.init("cancer", experiment="sgd", config=args, tags=["example"], notes="Logistic regression by SGD.")
run.define_metric("val/accuracy", goal="max", summary="best")
run.define_metric("val/loss", goal="min")

data = load_breast_cancer()
names = [str(name) for name in data.target_names]
x, x_test, y, y_test = train_test_split(data.data, data.target, test_size=0.2, random_state=args.seed)
x, x_val, y, y_val = train_test_split(x, y, test_size=0.25, random_state=args.seed)
for role, inputs, labels in (("train", x, y), ("validation", x_val, y_val), ("test", x_test, y_test)):
    run.use_dataset("breast-cancer", [inputs, labels], role=role)

scaler = StandardScaler().fit(x)
model = SGDClassifier(loss="log_loss", alpha=args.alpha, random_state=args.seed)
order = np.random.default_rng(args.seed)
with tempfile.TemporaryDirectory() as folder:
    for epoch in range(args.epochs):
        rows = order.permutation(len(x))
        model.partial_fit(scaler.transform(x[rows]), y[rows], classes=[0, 1])
        scores = model.predict_proba(scaler.transform(x_val))[:, 1]
        accuracy = accuracy_score(y_val, scores > 0.5)
        run.log({"val/accuracy": accuracy, "val/loss": log_loss(y_val, scores)}, step=epoch)
        run.log_histogram(model.coef_, name="weights", step=epoch)
        if epoch == 0:
            run.mark("first epoch done", step=epoch)
        if epoch % 10 == 9:
            weights = Path(folder, "model.pickle")
            weights.write_bytes(pickle.dumps((scaler, model)))
            run.log_checkpoint(weights, step=epoch, metric="val/accuracy", value=accuracy, goal="max")

    for row in x_test:
        begin = time.perf_counter()
        model.predict_proba(scaler.transform(row[None]))
        run.log_latency("inference", time.perf_counter() - begin)

    scores = model.predict_proba(scaler.transform(x_test))[:, 1]
    run.log({"test/accuracy": accuracy_score(y_test, scores > 0.5), "test/auc": roc_auc_score(y_test, scores)})
    run.log_confusion_matrix(y_test, (scores > 0.5).astype(int), labels=names)
    run.log_roc(y_test, scores, labels=names)
    run.log_precision_recall(y_test, scores, labels=names)
    run.log_calibration(y_test, scores, labels=names)
    weights = Path(folder, "model.pickle")
    weights.write_bytes(pickle.dumps((scaler, model)))
    run.log_artifact(weights, name="cancer-classifier", kind="model", metadata={"library": "scikit-learn"})

run.summary["features"] = len(data.feature_names)
run.finish()
print(f"run {run.id}: runtide show {run.id}, runtide reproduce {run.id} --run")
