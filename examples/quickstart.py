"""Ten lines of runtide: `runtide up` in one terminal, this in another."""

import math
import random

import runtide

run = runtide.init("quickstart", config={"learning_rate": 0.1, "model": {"layers": 2}})
for step in range(200):
    loss = math.exp(-step / 50) + random.random() / 20
    run.log({"train/loss": loss, "train/accuracy": 1 - loss / 2})
run.finish()
print(f"runtide verify {run.id}")
