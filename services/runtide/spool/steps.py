"""Up to which step a stream has come, read from its files."""

from __future__ import annotations

import struct
from pathlib import Path

from runtide.spool.layout import segments
from runtide.spool.reader import next_sound
from runtide.wire import limits
from runtide.wire.framing import STEP_FIELD, FramingError, elements, field_number

_TAIL_BYTES = limits.MIB
_STEP_BYTES = struct.Struct("<5sBq")  # key set, tag and number of a step, as log() writes it
_NUMBER_TAG = 0x11


def last_step(folder: Path) -> int | None:
    """The greatest step among a stream's latest ones; None where none lie here. Reads a MiB where that is enough."""
    try:
        for _, path in reversed(segments(folder)):
            body = path.read_bytes()
            tail = next_sound(body, max(0, len(body) - _TAIL_BYTES))
            if tail is not None and (found := _greatest(body, tail)) is not None:
                return found
            if (found := _greatest(body, 0)) is not None:
                return found
    except OSError:  # shipped whole and removed just now
        pass
    return None


def _greatest(body: bytes, start: int) -> int | None:
    found: list[int] = []
    try:
        for element in elements(body, start):
            if field_number(body, element) != STEP_FIELD:
                continue
            at = element.record + 1
            while body[at] >= 0x80:
                at += 1
            _, tag, step = _STEP_BYTES.unpack_from(body, at + 1)
            if tag == _NUMBER_TAG:
                found.append(step)
    except (FramingError, struct.error, IndexError):  # a torn tail
        pass
    return max(found, default=None)
