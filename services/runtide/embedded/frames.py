"""ClickHouse's own block compression over HTTP (`compress=1`, `decompress=1`): LZ4 blocks behind CityHash128.

The hash is the 128 bits of CityHash 1.0.2, in Python: some ten MB/s of compressed bytes. Clients that care for speed
use HTTP compression instead.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import lz4.block
import zstandard

from runtide.embedded.errors import CANNOT_DECOMPRESS, CHECKSUM_DOESNT_MATCH, REQUEST_TOO_LARGE, ServerError

_LZ4, _ZSTD, _NONE = 0x82, 0x90, 0x02
_HEADER = struct.Struct("<BII")
_CHECKSUM_BYTES = 16
BLOCK_BYTES = 1024 * 1024

_M = 0xFFFFFFFFFFFFFFFF
_K0, _K1, _K2, _K3 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F, 0xC949D7C7509E6557
_KMUL = 0x9DDFEA08EB382D69


def _rotate(value: int, by: int) -> int:
    return ((value >> by) | (value << (64 - by))) & _M if by else value


def _shift_mix(value: int) -> int:
    return value ^ (value >> 47)


def _hash16(u: int, v: int) -> int:
    a = ((u ^ v) * _KMUL) & _M
    a ^= a >> 47
    b = ((v ^ a) * _KMUL) & _M
    b ^= b >> 47
    return (b * _KMUL) & _M


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _hash0to16(data: bytes) -> int:
    size = len(data)
    if size > 8:
        a, b = _u64(data, 0), _u64(data, size - 8)
        return _hash16(a, _rotate((b + size) & _M, size)) ^ b
    if size >= 4:
        return _hash16((size + (_u32(data, 0) << 3)) & _M, _u32(data, size - 4))
    if size > 0:
        y = data[0] + (data[size >> 1] << 8)
        z = size + (data[-1] << 2)
        return (_shift_mix(((y * _K2) & _M) ^ ((z * _K3) & _M)) * _K2) & _M
    return _K2


def _weak32(data: bytes, at: int, a: int, b: int) -> tuple[int, int]:
    w, x, y, z = struct.unpack_from("<4Q", data, at)
    a = (a + w) & _M
    b = _rotate((b + a + z) & _M, 21)
    c = a
    a = (a + x + y) & _M
    b = (b + _rotate(a, 44)) & _M
    return (a + z) & _M, (b + c) & _M


def _murmur(data: bytes, low: int, high: int) -> tuple[int, int]:
    a, b, size = low, high, len(data)
    left = size - 16
    if left <= 0:
        a = (_shift_mix((a * _K1) & _M) * _K1) & _M
        c = (b * _K1 + _hash0to16(data)) & _M
        d = _shift_mix((a + (_u64(data, 0) if size >= 8 else c)) & _M)
    else:
        c = _hash16((_u64(data, size - 8) + _K1) & _M, a)
        d = _hash16((b + size) & _M, (c + _u64(data, size - 16)) & _M)
        a = (a + d) & _M
        at = 0
        while True:
            a ^= (_shift_mix((_u64(data, at) * _K1) & _M) * _K1) & _M
            a = (a * _K1) & _M
            b ^= a
            c ^= (_shift_mix((_u64(data, at + 8) * _K1) & _M) * _K1) & _M
            c = (c * _K1) & _M
            d ^= c
            at += 16
            left -= 16
            if left <= 0:
                break
    a = _hash16(a, c)
    b = _hash16(d, b)
    return a ^ b, _hash16(b, a)


def _city_seeded(data: bytes, low: int, high: int) -> tuple[int, int]:
    if len(data) < 128:
        return _murmur(data, low, high)
    size = left = len(data)
    x, y, z = low, high, (size * _K1) & _M
    v0 = (_rotate(y ^ _K1, 49) * _K1 + _u64(data, 0)) & _M
    v1 = (_rotate(v0, 42) * _K1 + _u64(data, 8)) & _M
    w0 = (_rotate((y + z) & _M, 35) * _K1 + x) & _M
    w1 = (_rotate((x + _u64(data, 88)) & _M, 53) * _K1) & _M
    at = 0
    while True:
        for _ in range(2):
            x = (_rotate((x + y + v0 + _u64(data, at + 16)) & _M, 37) * _K1) & _M
            y = (_rotate((y + v1 + _u64(data, at + 48)) & _M, 42) * _K1) & _M
            x ^= w1
            y ^= v0
            z = _rotate(z ^ w0, 33)
            v0, v1 = _weak32(data, at, (v1 * _K1) & _M, (x + w0) & _M)
            w0, w1 = _weak32(data, at + 32, (z + w1) & _M, y)
            z, x = x, z
            at += 64
        left -= 128
        if left < 128:
            break
    y = (y + _rotate(w0, 37) * _K0 + z) & _M
    x = (x + _rotate((v0 + z) & _M, 49) * _K0) & _M
    tail = 0
    while tail < left:
        tail += 32
        y = (_rotate((y - x) & _M, 42) * _K0 + v1) & _M
        w0 = (w0 + _u64(data, size - tail + 16)) & _M
        x = (_rotate(x, 49) * _K0 + w0) & _M
        w0 = (w0 + v0) & _M
        v0, v1 = _weak32(data, size - tail, v0, v1)
    x = _hash16(x, v0)
    y = _hash16(y, w0)
    return (_hash16((x + v1) & _M, w1) + y) & _M, _hash16((x + w1) & _M, (y + v1) & _M)


def city_hash128(data: bytes) -> bytes:
    """CityHash128 of version 1.0.2, as the 16 bytes that ClickHouse writes before a block."""
    size = len(data)
    if size >= 16:
        low, high = _city_seeded(data[16:], _u64(data, 0) ^ _K3, _u64(data, 8))
    elif size >= 8:
        low, high = _city_seeded(b"", _u64(data, 0) ^ ((size * _K0) & _M), _u64(data, size - 8) ^ _K1)
    else:
        low, high = _city_seeded(data, _K0, _K1)
    return struct.pack("<QQ", low, high)


def compress_blocks(data: bytes) -> Iterator[bytes]:
    """Frame bytes as LZ4 blocks."""
    for start in range(0, len(data), BLOCK_BYTES):
        plain = data[start : start + BLOCK_BYTES]
        packed = lz4.block.compress(plain, store_size=False)
        block = _HEADER.pack(_LZ4, len(packed) + _HEADER.size, len(plain)) + packed
        yield city_hash128(block) + block


def decompress_blocks(data: bytes, max_bytes: int) -> bytes:
    """Read all blocks of a body.

    Raises: ServerError when a checksum is wrong, a block is cut, or the result is larger than `max_bytes`.
    """
    plain, at, total = [], 0, 0
    while at < len(data):
        if len(data) - at < _CHECKSUM_BYTES + _HEADER.size:
            raise ServerError(CANNOT_DECOMPRESS, "Cannot decompress: the last block is cut")
        method, size, plain_size = _HEADER.unpack_from(data, at + _CHECKSUM_BYTES)
        block = data[at + _CHECKSUM_BYTES : at + _CHECKSUM_BYTES + size]
        total += plain_size
        if total > max_bytes:
            raise ServerError(
                REQUEST_TOO_LARGE, f"The body has more than {max_bytes} bytes decompressed (max_body_bytes)"
            )
        if len(block) != size or size < _HEADER.size:
            raise ServerError(CANNOT_DECOMPRESS, "Cannot decompress: the last block is cut")
        if city_hash128(block) != data[at : at + _CHECKSUM_BYTES]:
            raise ServerError(CHECKSUM_DOESNT_MATCH, "Checksum doesn't match: corrupted data")
        plain.append(_open_block(method, block[_HEADER.size :], plain_size))
        at += _CHECKSUM_BYTES + size
    return b"".join(plain)


def _open_block(method: int, packed: bytes, size: int) -> bytes:
    try:
        if method == _LZ4:
            return bytes(lz4.block.decompress(packed, uncompressed_size=size))
        if method == _ZSTD:
            return zstandard.ZstdDecompressor().decompress(packed, max_output_size=size)
    except (lz4.block.LZ4BlockError, zstandard.ZstdError) as error:
        raise ServerError(CANNOT_DECOMPRESS, f"Cannot decompress: {error}") from error
    if method == _NONE:
        return packed
    raise ServerError(CANNOT_DECOMPRESS, f"Cannot decompress: unknown method {method:#x}")
