from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import lz4.frame
import pytest
import zstandard
from runtide.embedded import bodies, frames
from runtide.embedded.errors import ServerError

TEXT = b"some words, and some words more, " * 10_000
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "lz4": lz4.frame.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "": bytes,
}


@pytest.mark.parametrize("encoding", PACK)
def test_a_body_comes_out_as_it_went_in(encoding: str) -> None:
    assert bodies.decompress(PACK[encoding](TEXT), encoding, 1 << 20) == TEXT


@pytest.mark.parametrize("encoding", [name for name in PACK if name])
def test_bodies_in_two_pieces_and_cut_ones_in_the_second(encoding: str) -> None:
    if encoding in ("lz4", "zstd"):  # frames may follow one another
        both = PACK[encoding](TEXT) + PACK[encoding](b"more")
        assert bodies.decompress(both, encoding, 1 << 20) == TEXT + b"more"
        with pytest.raises(ServerError):
            bodies.decompress(both[:-3], encoding, 1 << 20)


@pytest.mark.parametrize("encoding", [name for name in PACK if name])
def test_a_bomb_is_refused(encoding: str) -> None:
    with pytest.raises(ServerError, match="max_body_bytes"):
        bodies.decompress(PACK[encoding](bytes(50_000_000)), encoding, 1 << 20)


@pytest.mark.parametrize("encoding", [name for name in PACK if name])
def test_broken_and_cut_bodies(encoding: str) -> None:
    with pytest.raises(ServerError):
        bodies.decompress(b"not compressed at all", encoding, 1 << 20)
    packed = PACK[encoding](TEXT)
    with pytest.raises(ServerError):
        bodies.decompress(packed[: len(packed) // 2], encoding, 1 << 20)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "lz4", "zstd"])
def test_chunks_are_one_body(encoding: str) -> None:
    packer = bodies.compressor(encoding)
    packed = b"".join([packer.compress(TEXT[:1000]), packer.compress(TEXT[1000:]), packer.flush()])
    assert bodies.decompress(packed, encoding, 1 << 20) == TEXT
    empty = bodies.compressor(encoding)
    assert bodies.decompress(empty.compress(b"") + empty.flush(), encoding, 1 << 20) == b""


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", ""),
        ("identity", ""),
        ("gzip, lz4", "gzip"),
        ("lz4", "lz4"),
        ("zstd;q=1.0, lz4;q=0.5", "zstd"),
        ("gzip;q=0", ""),
    ],
)
def test_the_encoding_is_one_of_those_offered(accepted: str, chosen: str) -> None:
    assert bodies.choose(accepted) == chosen


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 15, 16, 17, 100, 127, 143, 144, 145, 300, 1 << 20, (1 << 20) + 1])
def test_frames_come_out_as_they_went_in(size: int) -> None:
    data = (TEXT * 5)[:size]
    packed = b"".join(frames.compress_blocks(data))
    assert frames.decompress_blocks(packed, 1 << 22) == data
    if packed:
        for at in (3, len(packed) - 1):
            broken = packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :]
            with pytest.raises(ServerError):
                frames.decompress_blocks(broken, 1 << 22)
        with pytest.raises(ServerError):
            frames.decompress_blocks(packed[:-1], 1 << 22)


def test_frames_are_bounded() -> None:
    with pytest.raises(ServerError, match="max_body_bytes"):
        frames.decompress_blocks(b"".join(frames.compress_blocks(bytes(3 << 20))), 1 << 20)
