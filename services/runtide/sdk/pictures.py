"""Images and drawings as bytes with their type: of files, bytes, Pillow, arrays, matplotlib, Plotly. Imports none."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from runtide.wire import limits
from runtide.wire.errors import BadInput

IMAGE_BYTES = 4 * limits.MIB
"""One image or drawing as it is stored."""
PNG = "image/png"
PLOTLY = "application/vnd.plotly.v1+json"
_CHANNELS = {1: 0, 3: 2, 4: 6}
"""Channels to PNG's colour type: grey, RGB, RGBA."""
_FORMATS = ((b"\x89PNG\r\n\x1a\n", PNG), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))


class Picture(NamedTuple):
    """What is shown."""

    content: bytes
    content_type: str


def image(given: Any) -> Picture:
    """An image: encoded bytes, a path, an image of Pillow, or an array of height x width (x 1, 3 or 4)."""
    if isinstance(given, str | os.PathLike):
        given = _read(Path(given))
    if isinstance(given, bytes | bytearray):
        return _checked(Picture(bytes(given), _type(bytes(given))))
    if callable(getattr(given, "save", None)) and hasattr(given, "mode"):
        into = io.BytesIO()
        given.save(into, format="PNG")
        return _checked(Picture(into.getvalue(), PNG))
    if getattr(given, "shape", None) is not None:
        return _checked(Picture(_png(given), PNG))
    raise BadInput("image", f"of type {type(given).__name__}", "it is a path, bytes, an image of Pillow or an array")


def drawing(given: Any) -> Picture:
    """A figure of matplotlib, as PNG, or of Plotly, as its JSON."""
    if callable(getattr(given, "to_plotly_json", None)):
        return _checked(Picture(str(given.to_json()).encode(), PLOTLY))
    if not hasattr(given, "savefig"):
        given = getattr(given, "figure", given)  # axes, and what draws on them
    if callable(save := getattr(given, "savefig", None)):
        into = io.BytesIO()
        save(into, format="png")
        return _checked(Picture(into.getvalue(), PNG))
    raise BadInput("figure", f"of type {type(given).__name__}", "it is a figure of matplotlib or Plotly")


def _read(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > IMAGE_BYTES:
            raise _too_large(size)
        return path.read_bytes()
    except OSError as error:
        raise BadInput("image", repr(str(path))[:200], f"it cannot be read: {error.strerror}") from error


def _checked(found: Picture) -> Picture:
    if len(found.content) > IMAGE_BYTES:
        raise _too_large(len(found.content))
    return found


def _too_large(size: int) -> BadInput:
    return BadInput("image", f"{size} bytes long", f"it has at most {IMAGE_BYTES} bytes")


def _type(content: bytes) -> str:
    for start, name in _FORMATS:
        if content.startswith(start):
            return name
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    if b"<svg" in content[:1000]:
        return "image/svg+xml"
    raise BadInput("image", f"bytes that begin with {content[:8]!r}", "it is PNG, JPEG, GIF, WebP or SVG")


def _png(array: Any) -> bytes:
    """A PNG of an array: whole numbers of 0 to 255, truth values, or fractions of 0 to 1."""
    shape = tuple(array.shape)
    channels = shape[2] if len(shape) == 3 else 1
    if len(shape) not in (2, 3) or channels not in _CHANNELS or 0 in shape:
        raise BadInput("shape of image", shape, "it is height x width, with 1, 3 or 4 channels behind them or none")
    pixels = bytes(_pixels(array.tolist()))
    width = shape[1] * channels
    lines = b"".join(b"\0" + pixels[at : at + width] for at in range(0, len(pixels), width))
    header = struct.pack(">IIBBBBB", shape[1], shape[0], 8, _CHANNELS[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return _FORMATS[0][0] + b"".join(_chunk(name, body) for name, body in chunks)


def _pixels(values: list[Any]) -> Iterator[int]:
    for value in values:
        if isinstance(value, list):
            yield from _pixels(value)
            continue
        shade = round(value * 255) if isinstance(value, float | bool) and value == value else value
        if not isinstance(shade, int) or not 0 <= shade <= 255:
            raise BadInput("a pixel of image", value, "it is a whole number of 0 to 255 or a fraction of 0 to 1")
        yield shade


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
