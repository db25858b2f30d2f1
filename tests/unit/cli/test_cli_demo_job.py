"""The demo's network learns, whatever the machine does."""

import numpy as np
from runtide.cli import demo_job


def test_gradient_is_the_slope() -> None:
    random = np.random.default_rng(0)
    x, y = random.random((8, 64)), random.integers(0, 10, 8)
    parameters = demo_job.initial_parameters()
    found, _, _ = demo_job.gradient(parameters, x, y)
    for index in random.integers(0, demo_job.SIZE, 40):
        shift = np.zeros(demo_job.SIZE)
        shift[index] = 1e-6
        up = demo_job.loss_and_accuracy(demo_job.predict(parameters + shift, x)[1], y)[0]
        down = demo_job.loss_and_accuracy(demo_job.predict(parameters - shift, x)[1], y)[0]
        assert abs((up - down) / 2e-6 - found[index]) < 1e-5


def test_the_shortest_demo_is_accurate_enough() -> None:
    data, steps = demo_job.load_digits(), round(3 * demo_job.STEPS_PER_SECOND)
    parameters = demo_job.initial_parameters()
    ranks = [np.random.default_rng(100 + rank) for rank in range(demo_job.RANKS)]
    for step in range(steps):
        parts = []
        for rank, random in enumerate(ranks):
            x, y = data.train_x[rank :: demo_job.RANKS], data.train_y[rank :: demo_job.RANKS]
            batch = random.integers(0, len(x), demo_job.BATCH)
            parts.append(demo_job.gradient(parameters, x[batch], y[batch])[0])
        parameters = parameters - demo_job.LEARNING_RATE * (1 - step / steps) * np.mean(parts, axis=0)
    _, accuracy = demo_job.loss_and_accuracy(demo_job.predict(parameters, data.test_x)[1], data.test_y)
    assert accuracy > 0.92
