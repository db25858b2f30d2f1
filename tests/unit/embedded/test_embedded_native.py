from __future__ import annotations

import pytest
from runtide.embedded.errors import ServerError
from runtide.embedded.native import HIGHEST, LOWEST, read_revision, revise

INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"
NUMBERS = b"\x01n\x06UInt16", b"\x01\x00\x02\x00"
TEXTS = (
    b"\x01t\x16LowCardinality(String)",
    (
        b"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00"
        b"\x02\x00\x00\x00\x00\x00\x00\x00\x00\x01a\x02\x00\x00\x00\x00\x00\x00\x00\x01\x00"
    ),
)
DEEP = "Array(" * 900 + "UInt8" + ")" * 900
BLOCK = b"\x02\x02" + b"".join(NUMBERS) + b"".join(TEXTS)


def test_blocks_follow_each_other() -> None:
    revised = INFO + b"\x02\x02" + b"\x00".join(NUMBERS) + b"\x00".join(TEXTS)
    assert revise(BLOCK * 3, 54454) == revised * 3
    assert revise(BLOCK * 3, LOWEST) == (INFO + BLOCK) * 3
    assert revise(BLOCK * 3, 0) == BLOCK * 3
    assert revise(b"", HIGHEST) == b""


def test_a_block_of_no_rows_has_no_values() -> None:
    header = b"\x01\x00\x01x" + b"\x07Dynamic"
    assert revise(header, 54454) == INFO + header + b"\x00"


@pytest.mark.parametrize("length", range(1, len(BLOCK)))
def test_a_cut_document_is_refused(length: int) -> None:
    with pytest.raises(ServerError, match="NOT_IMPLEMENTED"):
        revise(BLOCK[:length], 54454)


@pytest.mark.parametrize("name", ["Unheard", "AggregateFunction(sum, UInt8)", DEEP, "("])
def test_a_type_that_cannot_be_followed_is_refused(name: str) -> None:
    size = bytes((len(name) & 0x7F | 0x80, len(name) >> 7))
    with pytest.raises(ServerError, match="cannot find the end"):
        revise(b"\x01\x01\x01x" + size + name.encode() + b"\x00" * 8000, 54454)


def test_layouts_that_only_a_setting_brings_are_refused() -> None:
    flat = b"\x03\x00\x00\x00\x00\x00\x00\x00"
    for name in (b"\x07Dynamic", b"\x04JSON"):
        with pytest.raises(ServerError, match="cannot find the end"):
            revise(b"\x01\x01\x01x" + name + flat + b"\x00" * 100, 54454)


def test_revisions() -> None:
    assert [read_revision(text) for text in ("", "0", "54405", "54491")] == [0, 0, 54405, 54491]
    for text in ("1", "54404", "54492", "-1", "x"):
        with pytest.raises(ServerError):
            read_revision(text)
