"""What a gateway looks at before it takes bytes in: identity, sizes, framing and crc. Pure.

What is wrong with a whole Push is raised; what is wrong with one range is returned, and its neighbours go on.
"""

from __future__ import annotations

from runtide.gateway.limits import Limits
from runtide.v1 import ingest_pb2 as pb
from runtide.v1.records_pb2 import ROLE_USER
from runtide.wire import framing
from runtide.wire.books import CHANGES, MARK, UNREADABLE, is_book
from runtide.wire.changes import changes_in, check_change
from runtide.wire.errors import BadInput
from runtide.wire.framing import Checked
from runtide.wire.limits import GAP_RECORDS, RULING_LETTERS, STREAM_BYTES

FRAMING_CODES = {"crc does not fit": "crc", "record too large": "record_too_large"}
"""Codes of a refusal by the reason of a FramingError; every other reason is `framing`."""


def check_push(request: pb.PushRequest, limits: Limits) -> int:
    """Return the bytes of all bodies. Raises BadInput where the whole Push breaks a limit."""
    if len(request.ranges) > limits.push_ranges:
        raise BadInput("ranges", len(request.ranges), f"a Push has at most {limits.push_ranges} (push_ranges)")
    size = sum(len(range_.body) for range_ in request.ranges)
    if size > limits.push_bytes:
        raise BadInput("ranges.body", f"{size} bytes", f"a Push has at most {limits.push_bytes} (push_bytes)")
    whole = request.ByteSize()
    if whole > size + limits.push_envelope_bytes:
        limit = f"beside its bodies a Push has at most {limits.push_envelope_bytes} (push_envelope_bytes)"
        raise BadInput("Push", f"{whole - size} bytes", limit)
    return size


def check_range(range_: pb.Range, limits: Limits) -> pb.Refusal | Checked:
    """Return what a sound range holds, or why it will never be taken."""
    return (
        _identity(range_, limits)
        or _extent(range_, limits)
        or _key_sets(range_, limits)
        or (Checked() if range_.HasField("gap") or range_.HasField("ruling") else _body(range_, limits))
    )


def end_of(range_: pb.Range) -> int:
    """The stream's offset behind a range."""
    return range_.offset + (range_.gap.length if range_.HasField("gap") else len(range_.body))


def _refusal(code: str, field: str, value: object, limit: str, offset: int = 0) -> pb.Refusal:
    return pb.Refusal(code=code, field=field, value=str(value)[:200], limit=limit, offset=offset)


def _identity(range_: pb.Range, limits: Limits) -> pb.Refusal | None:
    texts = {
        "stream": range_.stream,
        "run_id": range_.run_id,
        "host": range_.host,
        "project": range_.project,
        "actor": range_.actor,
    }
    for field, text in texts.items():
        if not text:
            if field == "stream" or (field == "run_id" and not range_.HasField("ruling")):
                return _refusal("identity", field, "empty", "it must be given", range_.offset)
            continue
        size = len(text) if text.isascii() else len(text.encode())
        if size > limits.identity_bytes:
            limit = f"at most {limits.identity_bytes} bytes (identity_bytes)"
            return _refusal("identity", field, f"{size} bytes", limit, range_.offset)
        if not text.isprintable():
            return _refusal("identity", field, ascii(text), "printable characters only", range_.offset)
    if range_.stream.startswith(UNREADABLE) and not range_.HasField("ruling"):
        limit = f"streams that begin with {UNREADABLE} are of the sinks, and stand in no ledger"
        return _refusal("identity", "stream", range_.stream, limit, range_.offset)
    if is_book(range_.run_id) != (range_.role == ROLE_USER) and not range_.HasField("ruling"):
        limit = f"role user writes in books, whose ids begin with {MARK}, and nobody else does"
        return _refusal("identity", "run_id", range_.run_id, limit, range_.offset)
    if range_.run_id == CHANGES and not range_.HasField("ruling") and (range_.rank or not range_.actor):
        limit = "changes of a project are said as rank 0, so that one sink chains them, and by somebody"
        return _refusal("identity", "rank, actor", f"{range_.rank}, {range_.actor!r}", limit, range_.offset)
    if range_.rank < -1:
        return _refusal("identity", "rank", range_.rank, "-1 (the host) or more", range_.offset)
    return None


def _extent(range_: pb.Range, limits: Limits) -> pb.Refusal | None:
    if range_.HasField("ruling"):
        return _ruling(range_, limits)
    gap, size = range_.HasField("gap"), len(range_.body)
    if gap == bool(size):
        value = "both" if gap else "neither"
        return _refusal("extent", "body, gap", value, "a range has one of them", range_.offset)
    if gap and not range_.gap.length:
        return _refusal("extent", "gap.length", 0, "at least 1", range_.offset)
    if gap and (most := max(range_.gap.records, range_.gap.points)) > GAP_RECORDS:
        return _refusal("extent", "gap.records, gap.points", most, f"at most {GAP_RECORDS}", range_.offset)
    if end_of(range_) > STREAM_BYTES:
        return _refusal("extent", "offset", range_.offset, f"a range ends before {STREAM_BYTES}", range_.offset)
    if size > limits.batch_bytes:
        limit = f"at most {limits.batch_bytes} (batch_bytes)"
        return _refusal("batch_too_large", "body", f"{size} bytes", limit, range_.offset)
    whole = range_.ByteSize() + limits.identity_bytes  # the project may be filled in
    if whole > limits.range_bytes:
        limit = f"at most {limits.range_bytes} with its key sets (range_bytes)"
        return _refusal("batch_too_large", "range", f"{whole} bytes", limit, range_.offset)
    return None


def _ruling(range_: pb.Range, limits: Limits) -> pb.Refusal | None:
    ruling, at = range_.ruling, range_.offset
    if range_.HasField("gap") or range_.body:
        return _refusal("extent", "body, gap", "given", "a range with a ruling has neither", at)
    if not 0 < len(ruling.offsets) <= RULING_LETTERS:
        limit = f"1 to {RULING_LETTERS} dead letters are ruled on at once"
        return _refusal("ruling", "ruling.offsets", len(ruling.offsets), limit, at)
    for field, text in (("by", ruling.by), ("discard", ruling.discard), ("why", ruling.why)):
        if (size := len(text.encode())) > limits.name_bytes:
            limit = f"at most {limits.name_bytes} bytes (name_bytes)"
            return _refusal("ruling", f"ruling.{field}", f"{size} bytes", limit, at)
    if ruling.discard and not ruling.discard.strip():
        return _refusal("ruling", "ruling.discard", "blank", "it must say why they are given up", at)
    if not ruling.by.isprintable():
        return _refusal("ruling", "ruling.by", ascii(ruling.by), "printable characters only", at)
    return None


def _key_sets(range_: pb.Range, limits: Limits) -> pb.Refusal | None:
    for key_set in range_.key_sets:
        if len(key_set.names) > limits.key_set_names:
            limit = f"at most {limits.key_set_names} (key_set_names)"
            return _refusal("key_set", "key_sets.names", len(key_set.names), limit, range_.offset)
        for name in key_set.names:
            size = len(name) if name.isascii() else len(name.encode())
            if size > limits.name_bytes:
                limit = f"at most {limits.name_bytes} bytes (name_bytes)"
                return _refusal("key_set", "key_sets.names", f"{size} bytes", limit, range_.offset)
    return None


def _body(range_: pb.Range, limits: Limits) -> pb.Refusal | Checked:
    try:
        checked = framing.check(range_.body, limits.record_bytes)
        return (_changes(range_) if range_.run_id == CHANGES else None) or checked
    except framing.FramingError as error:
        code = FRAMING_CODES.get(error.reason, "framing")
        limit = f"at most {limits.record_bytes} bytes (record_bytes)" if code == "record_too_large" else "whole records"
        return _refusal(code, "body", str(error), limit, range_.offset + error.position)


def _changes(range_: pb.Range) -> pb.Refusal | None:
    """Why what is in the book of changes is none; the rest of it goes with it."""
    try:
        for change in changes_in(range_.body):
            check_change(change)
    except BadInput as error:
        return _refusal("change", error.field, error.value, error.limit, range_.offset)
    return None
