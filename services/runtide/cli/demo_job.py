"""The demo's training job: `python -m runtide.cli.demo_job --seconds 20`.

A real one, small enough to read: a two-layer network in numpy on scikit-learn's 8x8 digits, trained by four
processes, each on its own quarter of the data. Gradients are averaged through shared memory. Of runtide it uses what
any job would: `runtide.init`, `run.log`, `run.finish`; the launcher sets the variables that torchrun sets, so ranks are
found by themselves. Steps are paced so that the training lasts for the time asked for and can be watched.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

RANKS = 4
HIDDEN = 64
BATCH = 32
STEPS_PER_SECOND = 25.0
LEARNING_RATE = 0.5
EVALUATE_EVERY = 10
BARRIER_S = 60.0
SHAPES = ((64, HIDDEN), (HIDDEN,), (HIDDEN, 10), (10,))
SIZE = sum(int(np.prod(shape)) for shape in SHAPES)


@dataclass(frozen=True, slots=True)
class Digits:
    """Images as rows of 64 numbers from 0 to 1, and what they show."""

    train_x: Array
    train_y: npt.NDArray[np.int64]
    test_x: Array
    test_y: npt.NDArray[np.int64]


def load_digits() -> Digits:
    """The data set that comes with scikit-learn, a fifth of it held back; the same split in every process."""
    from sklearn.datasets import load_digits as bundled

    found: Any = bundled()
    order = np.random.default_rng(0).permutation(len(found.target))
    images, labels = found.data[order] / 16.0, found.target[order]
    cut = len(order) // 5
    return Digits(images[cut:], labels[cut:], images[:cut], labels[:cut])


def initial_parameters() -> Array:
    """The same start in every process."""
    random = np.random.default_rng(1)
    first = random.normal(0, np.sqrt(2 / 64), SHAPES[0])
    second = random.normal(0, np.sqrt(2 / HIDDEN), SHAPES[2])
    return np.concatenate([first.ravel(), np.zeros(HIDDEN), second.ravel(), np.zeros(10)])


def unpack(parameters: Array) -> list[Array]:
    """Views of one flat vector as weights and biases."""
    parts, at = [], 0
    for shape in SHAPES:
        size = int(np.prod(shape))
        parts.append(parameters[at : at + size].reshape(shape))
        at += size
    return parts


def predict(parameters: Array, x: Array) -> tuple[Array, Array]:
    """Hidden activations and class probabilities."""
    w1, b1, w2, b2 = unpack(parameters)
    hidden = np.maximum(x @ w1 + b1, 0)
    scores = hidden @ w2 + b2
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    return hidden, odds / odds.sum(axis=1, keepdims=True)


def loss_and_accuracy(probabilities: Array, y: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Cross entropy, and the share of right answers."""
    right = probabilities[np.arange(len(y)), y]
    return float(-np.log(right + 1e-12).mean()), float((probabilities.argmax(axis=1) == y).mean())


def gradient(parameters: Array, x: Array, y: npt.NDArray[np.int64]) -> tuple[Array, float, float]:
    """Gradient of the loss on one batch, with loss and accuracy before the update."""
    hidden, probabilities = predict(parameters, x)
    loss, accuracy = loss_and_accuracy(probabilities, y)
    error = probabilities.copy()
    error[np.arange(len(y)), y] -= 1
    error /= len(y)
    _, _, w2, _ = unpack(parameters)
    back = (error @ w2.T) * (hidden > 0)
    parts = (x.T @ back, back.sum(axis=0), hidden.T @ error, error.sum(axis=0))
    return np.concatenate([part.ravel() for part in parts]), loss, accuracy


class AllReduce:
    """The mean of one vector per rank, through memory that all ranks share."""

    def __init__(self, shared: Any, barrier: Any, rank: int) -> None:
        self._slots = np.frombuffer(shared, dtype=np.float64).reshape(RANKS, SIZE)
        self._barrier, self._rank = barrier, rank

    def mean(self, vector: Array) -> Array:
        """Blocks until every rank has called it."""
        self._slots[self._rank] = vector
        self._barrier.wait(BARRIER_S)
        result: Array = self._slots.mean(axis=0)
        self._barrier.wait(BARRIER_S)  # nobody writes the next vector before all have read this one
        return result


def train(rank: int, seconds: float, reduce: Callable[[Array], Array], run: Any) -> None:
    """Train, and say so to `run`."""
    data = load_digits()
    x, y = data.train_x[rank::RANKS], data.train_y[rank::RANKS]
    random = np.random.default_rng(100 + rank)
    parameters, steps = initial_parameters(), max(1, round(seconds * STEPS_PER_SECOND))
    began = time.monotonic()
    for step in range(steps):
        start = time.perf_counter()
        rate = LEARNING_RATE * (1 - step / steps)
        batch = random.integers(0, len(x), BATCH)
        own, loss, accuracy = gradient(parameters, x[batch], y[batch])
        mean = reduce(own)
        parameters = parameters - rate * mean
        metrics = {
            "train/loss": loss,
            "train/accuracy": accuracy,
            "train/gradient_norm": np.linalg.norm(mean),
            "train/learning_rate": rate,
            "time/step_ms": 1000 * (time.perf_counter() - start),
        }
        if rank == 0 and (step % EVALUATE_EVERY == 0 or step == steps - 1):
            loss, accuracy = loss_and_accuracy(predict(parameters, data.test_x)[1], data.test_y)
            metrics |= {"test/loss": loss, "test/accuracy": accuracy}
            if step % (5 * EVALUATE_EVERY) == 0 or step == steps - 1:
                print(f"step {step + 1}/{steps}  test loss {loss:.4f}  test accuracy {accuracy:.3f}", flush=True)
        run.log(metrics, step=step)
        time.sleep(max(0.0, began + (step + 1) / STEPS_PER_SECOND - time.monotonic()))


def worker(rank: int, seconds: float, shared: Any, barrier: Any, launch: str) -> None:
    """One rank."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(RANKS),
        "LOCAL_WORLD_SIZE": str(RANKS),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RUN_ID": launch,
        "TORCHELASTIC_RESTART_COUNT": "0",
        "OMP_NUM_THREADS": "1",
    }
    import runtide

    config = {"model": {"hidden": HIDDEN}, "optimizer": {"name": "sgd", "learning_rate": LEARNING_RATE}, "batch": BATCH}
    with runtide.init("demo", experiment="digits", name="digits on four ranks", config=config, tags=["demo"]) as run:
        if rank == 0:
            print(f"run {run.id}", flush=True)
        try:
            train(rank, seconds, AllReduce(shared, barrier, rank).mean, run)
        except BaseException:
            barrier.abort()  # the others need not wait for one that is gone
            raise


def main(argv: list[str]) -> int:
    """Start the ranks and wait for them, as torchrun would."""
    parser = argparse.ArgumentParser(prog="python -m runtide.cli.demo_job", description="Train on the digits.")
    parser.add_argument("--seconds", type=float, default=20.0)
    seconds = parser.parse_args(argv).seconds
    context = mp.get_context("spawn")
    shared, barrier = context.RawArray("d", RANKS * SIZE), context.Barrier(RANKS)
    launch = f"demo-{secrets.token_hex(4)}"
    ranks = [context.Process(target=worker, args=(rank, seconds, shared, barrier, launch)) for rank in range(RANKS)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    return max(abs(process.exitcode or 0) for process in ranks)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
