"""Real inputs, spoiled: a seeded mutator, quicker than a library that also looks for small examples.

RUNTIDE_FUZZ_CASES says how many cases each surface gets beside those of `kept`, RUNTIDE_FUZZ_SEED which ones.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence

import psutil
from runtide.wire.limits import MIB

CASES = int(os.environ.get("RUNTIDE_FUZZ_CASES", "400"))
SEED = int(os.environ.get("RUNTIDE_FUZZ_SEED", "1"))
TIMEOUT_S = 120 + CASES // 20
"""For one surface on a slow machine."""
GROWTH_BYTES = 64 * MIB
"""More than this after the first tenth of the cases is no flat memory."""

_ODD = [b"", b"\x00", b"\xff" * 9 + b"\x01", b"\xff\xff\xff\xff\x0f", b"\x0a\x00", b"\x0a\x05", b"\x80", b"\x7f" * 8]


def mutated(dice: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A seed with one to four changes; now and then nothing but noise."""
    if dice.random() < 0.03:
        return dice.randbytes(dice.choice([0, 1, 7, 100, 3000]))
    body = bytearray(dice.choice(seeds))
    for _ in range(dice.choice([1, 1, 1, 2, 4])):
        at = dice.randrange(len(body) + 1)
        length = dice.choice([1, 1, 2, 8, 50])
        change = dice.randrange(7)
        if change == 0 and at < len(body):
            body[at] ^= 1 << dice.randrange(8)
        elif change == 1:
            body[at : at + length] = dice.randbytes(length)
        elif change == 2:
            del body[at : at + length]
        elif change == 3:
            body[at:at] = dice.choice(_ODD)
        elif change == 4:
            body[at:at] = body[at : at + length] * dice.choice([1, 2, 20])
        elif change == 5:
            del body[at:]
        else:
            other = dice.choice(seeds)
            cut = dice.randrange(len(other) + 1)
            body[at:] = other[cut:]
    return bytes(body)


class Watch:
    """Time and memory of one surface."""

    def __init__(self, surface: str, pid: int | None = None) -> None:
        self._surface = surface
        self._process = psutil.Process(pid)
        self._began = time.monotonic()
        self._warm = 0

    def case(self, number: int) -> None:
        """Say that a case is done."""
        if number == max(CASES // 10, min(2000, CASES // 2)):
            self._warm = self._process.memory_info().rss

    def end(self) -> None:
        """Judge, and say the figures."""
        took, rss = time.monotonic() - self._began, self._process.memory_info().rss
        grown = rss - self._warm
        print(  # noqa: T201  for docs/reliability.md: pytest -s shows it
            f"{self._surface}: {CASES} cases, {took:.1f} s, {grown / MIB:+.1f} MiB to {rss / MIB:.0f} MiB"
        )
        assert grown < GROWTH_BYTES
