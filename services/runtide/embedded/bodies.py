"""Compressed bodies both ways: gzip, deflate, lz4 (frame), zstd, and br where the package brotli is installed.

Promise: decompression never makes more than the stated number of bytes, whatever the body claims.
"""

from __future__ import annotations

import importlib
import importlib.util
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import lz4.frame
import zstandard

from runtide.embedded.errors import CANNOT_DECOMPRESS, REQUEST_TOO_LARGE, UNKNOWN_COMPRESSION_METHOD, ServerError

_STEP = 64 * 1024
# The engine of zstd cannot be told how much to make at once, and makes at most 128 KiB of four bytes.
_ZSTD_STEP = 2 * 1024


class Compressor(Protocol):
    """Compresses a body chunk by chunk."""

    def compress(self, data: bytes) -> bytes:
        """Take a chunk; what comes out may be empty."""
        ...

    def flush(self) -> bytes:
        """The end of the stream."""
        ...


class _Lz4Compressor:
    def __init__(self) -> None:
        self._inner = lz4.frame.LZ4FrameCompressor()
        self._begun = False

    def compress(self, data: bytes) -> bytes:
        return self._begin() + bytes(self._inner.compress(data))

    def flush(self) -> bytes:
        return self._begin() + bytes(self._inner.flush())

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return bytes(self._inner.begin())


class _BrotliCompressor:
    def __init__(self) -> None:
        self._inner: Any = importlib.import_module("brotli").Compressor(quality=4)

    def compress(self, data: bytes) -> bytes:
        return bytes(self._inner.process(data))

    def flush(self) -> bytes:
        return bytes(self._inner.finish())


def _has_brotli() -> bool:
    return importlib.util.find_spec("brotli") is not None


_COMPRESSORS: dict[str, Callable[[], Compressor]] = {
    "zstd": lambda: zstandard.ZstdCompressor(level=1).compressobj(),
    "lz4": _Lz4Compressor,
    "br": _BrotliCompressor,
    "gzip": lambda: zlib.compressobj(3, zlib.DEFLATED, 31),
    "deflate": lambda: zlib.compressobj(3),
}


def choose(accept_encoding: str) -> str:
    """The encoding for an answer, in the order of the server; empty for none."""
    offered = {
        part.split(";")[0].strip().lower() for part in accept_encoding.split(",") if ";q=0" not in part.replace(" ", "")
    }
    for name in ("br", "gzip", "deflate", "zstd", "lz4"):
        if name in offered and (name != "br" or _has_brotli()):
            return name
    return ""


def compressor(encoding: str) -> Compressor:
    """A fresh compressor for one answer."""
    return _COMPRESSORS[encoding]()


def decompress(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Undo a request's Content-Encoding.

    Raises: ServerError for an unknown encoding, a broken body, or more than `max_bytes` of content.
    """
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    open_one = _DECOMPRESSORS.get(encoding)
    if open_one is None or (encoding == "br" and not _has_brotli()):
        raise ServerError(UNKNOWN_COMPRESSION_METHOD, f"Unknown compression method '{encoding}'")
    try:
        return open_one(body, max_bytes)
    except ServerError:
        raise
    except (
        Exception
    ) as error:  # each library has its own classes; the body is the client's, so it is the client's mistake
        raise ServerError(CANNOT_DECOMPRESS, f"Cannot decompress the {encoding} body: {error}") from error


def _bound(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise ServerError(REQUEST_TOO_LARGE, f"The body has more than {max_bytes} bytes decompressed (max_body_bytes)")


def _inflate(body: bytes, max_bytes: int, window: int) -> bytes:
    inner = zlib.decompressobj(window)
    plain = inner.decompress(body, max_bytes + 1)
    _bound(len(plain), max_bytes)
    if not inner.eof:
        raise ServerError(CANNOT_DECOMPRESS, "Cannot decompress: the body is cut")
    return plain


def _open_zstd(body: bytes, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    inner = zstandard.ZstdDecompressor().decompressobj()
    for start in range(0, len(body), _ZSTD_STEP):
        data = body[start : start + _ZSTD_STEP]
        while data:
            if inner.eof:
                inner = zstandard.ZstdDecompressor().decompressobj()
            chunks.append(inner.decompress(data))
            size += len(chunks[-1])
            _bound(size, max_bytes)
            data = inner.unused_data
    if not inner.eof:
        raise ServerError(CANNOT_DECOMPRESS, "Cannot decompress: the body is cut")
    return b"".join(chunks)


def _open_lz4(body: bytes, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    rest: bytes | None = body
    while rest:
        inner = lz4.frame.LZ4FrameDecompressor()
        data: bytes = rest
        while not inner.eof:
            if inner.needs_input and not data:
                raise ServerError(CANNOT_DECOMPRESS, "Cannot decompress: the body is cut")
            chunks.append(inner.decompress(data, max_length=64 * _STEP))
            data = b""
            size += len(chunks[-1])
            _bound(size, max_bytes)
        rest = inner.unused_data
    return b"".join(chunks)


def _open_brotli(body: bytes, max_bytes: int) -> bytes:
    inner: Any = importlib.import_module("brotli").Decompressor()
    chunks: list[bytes] = []
    size = 0
    for start in range(0, len(body), _STEP):
        chunks.append(inner.process(body[start : start + _STEP]))
        size += len(chunks[-1])
        _bound(size, max_bytes)
    if not inner.is_finished():
        raise ServerError(CANNOT_DECOMPRESS, "Cannot decompress: the body is cut")
    return b"".join(chunks)


_DECOMPRESSORS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": lambda body, limit: _inflate(body, limit, 31),
    "deflate": lambda body, limit: _inflate(body, limit, 15),
    "zstd": _open_zstd,
    "lz4": _open_lz4,
    "br": _open_brotli,
}
