"""Cases that are kept: each surface tries them before it makes new ones.

`corpus/SURFACE/` has one file for each, named by what it shows; a case that fails is written to `failed/SURFACE/`, and
the failure says where, and how to keep it. What is done with a case follows from its bytes alone, so that a file brings
back the failure. `make_corpus.py` has written the first ones.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

from tests.fuzz.mutate import CASES, Watch

CORPUS = Path(__file__).parent / "corpus"
FAILED = Path(__file__).parent / "failed"


def corpus(surface: str) -> list[bytes]:
    """The kept cases of a surface."""
    return [path.read_bytes() for path in sorted((CORPUS / surface).glob("*.bin"))]


def cases(surface: str, watch: Watch, new: Callable[[], bytes]) -> Iterator[bytes]:
    """The kept ones, then as many new ones as were asked for."""
    yield from corpus(surface)
    for number in range(CASES):
        watch.case(number)
        yield new()


def dice_of(case: bytes) -> random.Random:
    """What is not said by a case is drawn from it."""
    return random.Random(crc32(case))


@contextmanager
def failing(surface: str, case: bytes, folder: Path = FAILED) -> Iterator[None]:
    """Write the case down where the block fails, and say how to keep it."""
    try:
        yield
    except Exception as error:
        path = folder / surface / f"{hashlib.sha256(case).hexdigest()[:12]}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(case)
        error.add_note(
            f"The case is in {path}. Mend the fault, then keep the case, under a name that says what it shows:\n"
            f"    mv {path} {CORPUS / surface}/what-it-shows.bin"
        )
        raise
