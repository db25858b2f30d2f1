"""What can be read of a dead letter: its records as far as they can be decoded, and its bytes for the eye."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from runtide.v1.ingest_pb2 import Range
from runtide.v1.records_pb2 import Record
from runtide.warehouse.dead_letters import UNREADABLE, Letter
from runtide.wire.framing import FramingError, elements, sound

SHOWN_BYTES = 1024


def records_in(letter: Letter) -> Iterator[dict[str, Any]]:
    """The letter decoded, record by record, as far as that goes."""
    if letter.stream.startswith(UNREADABLE):
        try:
            range_ = Range.FromString(letter.bytes)
        except DecodeError as error:
            yield {"problem": f"not a range: {error}"}
        else:
            yield {"range": MessageToDict(range_, preserving_proto_field_name=True)}
        return
    try:
        for element in elements(letter.bytes):
            said: dict[str, Any] = {"offset": letter.offset + element.start, "sound": sound(letter.bytes, element)}
            try:
                record = Record.FromString(letter.bytes[element.record : element.end])
                said["record"] = MessageToDict(record, preserving_proto_field_name=True)
            except DecodeError as error:
                said["problem"] = f"not a record of this wire: {error}"
            yield said
    except FramingError as error:
        yield {"offset": letter.offset + error.position, "problem": error.reason}


def dump(raw: bytes, rest: str, limit: int = SHOWN_BYTES) -> Iterator[str]:
    """Lines of offset, hex and text; `rest` says where the bytes past the limit are to be had."""
    for at in range(0, min(len(raw), limit), 16):
        some = raw[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in some)
        yield f"{at:6d}  {some.hex(' '):47s}  {text}"
    if len(raw) > limit:
        yield f"and {len(raw) - limit} bytes more ({rest})"
