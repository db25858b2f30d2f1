"""How an error becomes a gRPC status: the code, a message, and details that a client can act on.

Details travel twice: as google.rpc.Status in `grpc-status-details-bin`, which standard clients read, and the delay as
plain `retry-after-ms` beside it. The three small messages are written by hand: their package is no dependency.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration

from runtide.gateway.blobs import Damaged, NoContent
from runtide.gateway.tokens import UnknownToken
from runtide.wire.errors import BadInput, Busy, NotAllowed, RuntideError, Unavailable
from runtide.wire.framing import varint

RETRY_AFTER_S = 1.0
"""What a client is told when the bus does not answer."""

DETAILS_KEY = "grpc-status-details-bin"
DELAY_KEY = "retry-after-ms"

_TYPES = "type.googleapis.com/google.rpc."


class Answer(NamedTuple):
    """What a failed call ends with."""

    code: grpc.StatusCode
    message: str
    trailing: tuple[tuple[str, str | bytes], ...]


def answer_for(error: RuntideError) -> Answer:
    """Map one of our errors; what is not ours is a fault of the gateway, INTERNAL, and not for here."""
    message = str(error)
    if isinstance(error, BadInput):
        code, details, delay = grpc.StatusCode.INVALID_ARGUMENT, [_bad_request(error)], None
    elif isinstance(error, UnknownToken):
        code, details, delay = grpc.StatusCode.UNAUTHENTICATED, [], None
    elif isinstance(error, NotAllowed):
        code, details, delay = grpc.StatusCode.PERMISSION_DENIED, [], None
    elif isinstance(error, Busy):
        code, details, delay = grpc.StatusCode.RESOURCE_EXHAUSTED, [], error.retry_after_s
    elif isinstance(error, Unavailable):
        code, details, delay = grpc.StatusCode.UNAVAILABLE, [], RETRY_AFTER_S
    elif isinstance(error, NoContent):
        code, details, delay = grpc.StatusCode.NOT_FOUND, [], None
    elif isinstance(error, Damaged):
        code, details, delay = grpc.StatusCode.DATA_LOSS, [], None
    else:
        code, details, delay = grpc.StatusCode.FAILED_PRECONDITION, [], None
    trailing: list[tuple[str, str | bytes]] = []
    if delay is not None:
        milliseconds = max(1, math.ceil(delay * 1000))
        trailing.append((DELAY_KEY, str(milliseconds)))
        details = [_retry_info(milliseconds)]
    if details:
        trailing.append((DETAILS_KEY, _status(code, message, details)))
    return Answer(code, message, tuple(trailing))


def _field(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def _retry_info(milliseconds: int) -> Any:
    delay = Duration()
    delay.FromMilliseconds(milliseconds)
    return Any(type_url=_TYPES + "RetryInfo", value=_field(1, delay.SerializeToString()))


def _bad_request(error: BadInput) -> Any:
    violation = _field(1, error.field.encode()) + _field(2, str(error).encode())
    return Any(type_url=_TYPES + "BadRequest", value=_field(1, violation))


def _status(code: grpc.StatusCode, message: str, details: list[Any]) -> bytes:
    number: int = code.value[0]
    whole = b"\x08" + varint(number) + _field(2, message.encode())
    return whole + b"".join(_field(3, detail.SerializeToString()) for detail in details)
