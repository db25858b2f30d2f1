"""Writes the first kept cases: what is frozen of the wire, and what has been, or could have been, a fault.

    python tests/fuzz/make_corpus.py

A file that is there is never overwritten. Later cases come from failures (see `kept`) and need no line here.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

from google.protobuf.message import Message
from runtide.testing.streams import NOW_US, MadeStream, element
from runtide.v1 import ingest_pb2 as pb
from runtide.v1 import records_pb2 as v1
from runtide.wire.framing import StepEncoder, seal, varint

CORPUS = Path(__file__).parent / "corpus"
GOLDEN = Path(__file__).parents[1] / "golden"
MOST = 2**64 - 1
NAMES = v1.KeySet(id=1, names=["loss", "acc"])
STEP = StepEncoder(1, 2).encode(5, NOW_US, [0.5, 1.5])
LINE = element(log_line=v1.LogLine(time_us=NOW_US, line="x"))
LATER = b"\xfa\x07\x05later"
"""Field 127, with a text."""


def field(number: int, raw: bytes) -> bytes:
    """A field with a length, whatever its bytes are."""
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def range_(body: bytes = STEP, **changes: object) -> pb.Range:
    """One that is sound but for what is changed."""
    told: dict[str, object] = {"stream": "s", "run_id": "r", "host": "h", "key_sets": [NAMES], "body": body}
    return pb.Range(**told | changes)  # type: ignore[arg-type]


def gap(**said: int) -> pb.Range:
    """The word that bytes will never come."""
    return range_(b"", gap=v1.Gap(reason="refused", **said))  # type: ignore[arg-type]


def record(**said: Message) -> pb.Range:
    """A range of one record."""
    return range_(element(**said))


def time_us(value: int) -> pb.Range:
    """A line that was said at a time."""
    return record(log_line=v1.LogLine(time_us=value, line="x"))


def sample(*names: str) -> pb.Range:
    """A sample with these readings."""
    return record(sample=v1.Sample(time_us=NOW_US, readings=[v1.Reading(name=name, value=1) for name in names]))


BODIES: dict[str, bytes] = {
    "empty": b"",
    "zero-page": bytes(4096),
    "zero-length-record": b"\x0a\x00",
    "record-shorter-than-its-crc": b"\x0a\x04abcd",
    "record-of-a-crc-alone": seal(b""),
    "length-that-never-ends": b"\x0a" + b"\xff" * 9 + b"\x01",
    "length-of-4-gib": b"\x0a\xff\xff\xff\xff\x0f" + STEP,
    "torn-tail": LINE + STEP[:-3],
    "torn-in-the-length": STEP + b"\x0a\x80",
    "bad-crc": LINE + STEP[:-1] + bytes([STEP[-1] ^ 1]) + LINE,
    "bad-bit-in-a-value": LINE + STEP[:-9] + bytes([STEP[-9] ^ 4]) + STEP[-8:] + LINE,
    "bad-length": LINE + STEP[:1] + bytes([STEP[1] ^ 8]) + STEP[2:] + LINE,
    "another-tag": LINE + b"\x12" + STEP[1:] + LINE,
    "unknown-kind": seal(LATER) + STEP,
    "kind-with-a-number-of-ten-bytes": seal(b"\xff" * 9 + b"\x01" + b"x"),
    "two-kinds-in-one-record": seal(
        v1.Record(log_line=v1.LogLine(line="a")).SerializeToString()
        + v1.Record(mark=v1.Mark(text="b")).SerializeToString()
    ),
    "text-that-is-not-utf8": seal(field(5, field(3, b"\xff\xfe"))),
    "surrogate-in-a-text": seal(field(5, field(3, b"\xed\xa0\x80"))),
    "message-shorter-than-it-says": seal(b"\x2a\x7f\x1a\x01x"),
    "step-in-another-order": seal(field(3, field(4, bytes(16)) + b"\x0d\x01\x00\x00\x00")),
    "step-with-a-later-field": seal(field(3, v1.Step(key_set=1, step=5, values=[1, 2]).SerializeToString() + LATER)),
    "step-that-ends-the-buffer": STEP[:34],
}
RANGES: dict[str, pb.Range] = {
    "gap-of-more-records-than-can-be": gap(length=9, records=MOST, points=MOST),
    "gap-to-the-end-of-numbers": gap(length=MOST),
    "gap-of-nothing": gap(),
    "gap-and-body": range_(gap=v1.Gap(length=9)),
    "neither-gap-nor-body": range_(b""),
    "offset-at-the-end-of-numbers": range_(offset=MOST),
    "records-past-the-end-of-numbers": range_(STEP * 3 + LINE * 3, offset=MOST - len(STEP)),
    "gap-past-the-end-of-numbers": range_(b"", offset=MOST, gap=v1.Gap(length=9)),
    "stream-unnamed": range_(stream=""),
    "run-unnamed": range_(run_id=""),
    "identity-too-long": range_(run_id="r" * 300),
    "identity-with-control-characters": range_(stream="s\x00\n\x1b[2J"),
    "rank-below-all": range_(rank=-(2**31)),
    "attempt-beyond-all": range_(attempt=2**32 - 1),
    "role-of-a-later-release": range_(role=9),
    "ruling-on-nothing": range_(b"", ruling=pb.Ruling(by="ann")),
    "ruling-with-a-body": range_(ruling=pb.Ruling(offsets=[0], by="ann")),
    "key-set-that-is-not-there": range_(key_sets=[]),
    "key-set-of-another-length": range_(key_sets=[v1.KeySet(id=1, names=["a"])]),
    "key-set-with-one-name-twice": range_(key_sets=[v1.KeySet(id=1, names=["a", "a"])]),
    "key-set-with-an-empty-name": range_(key_sets=[v1.KeySet(id=1, names=["a", ""])]),
    "key-set-without-names": record(key_set=v1.KeySet(id=1)),
    "key-set-of-too-many-names": record(key_set=v1.KeySet(id=1, names=[str(n) for n in range(1025)])),
    "key-set-that-changes": range_(element(key_set=v1.KeySet(id=1, names=["b", "c"])) + STEP),
    "time-before-all": time_us(-(2**63)),
    "time-after-all": time_us(2**63 - 1),
    "sample-without-readings": sample(),
    "sample-with-one-reading-twice": sample("a", "a"),
    "said-gap-of-more-than-can-be": record(gap=v1.Gap(time_us=NOW_US, records=MOST, points=MOST)),
    "said-gap-with-a-length": record(gap=v1.Gap(time_us=NOW_US, records=1, length=MOST)),
    "end-of-another-stream": record(stream_ended=v1.StreamEnded(time_us=NOW_US, stream="t" * 300, offset=MOST)),
    "declared-more-than-can-be": record(stream_closed=v1.StreamClosed(time_us=NOW_US, records=MOST, points=MOST)),
    "console-of-a-later-release": record(log_line=v1.LogLine(time_us=NOW_US, console=9, line="x")),  # type: ignore[arg-type]
    "line-with-a-zero": record(log_line=v1.LogLine(time_us=NOW_US, line="a\x00b")),
    "figure-at-the-last-step": record(figure=v1.Figure(time_us=NOW_US, name="f", step=2**63 - 1, content=bytes(9))),
    "values-that-are-no-numbers": range_(StepEncoder(1, 2).encode(-(2**63), NOW_US, [float("nan"), float("-inf")])),
} | {f"body-{name}": range_(body) for name, body in BODIES.items()}


def http(method: str, target: str, body: bytes = b"", *head: str) -> bytes:
    """A whole request."""
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        *head,
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


REQUESTS: dict[str, bytes] = {
    "plain": http("POST", "/", b"SELECT 1"),
    "no-query": http("POST", "/"),
    "query-with-a-zero": http("POST", "/", b"SELECT '\x00'"),
    "query-that-is-not-utf8": http("POST", "/", b"SELECT '\xff\xfe'"),
    "parameter-that-is-not-utf8": http("POST", "/?query=SELECT+%27%ff%27"),
    "parameter-that-is-not-closed": http("POST", "/?param_x=1", b"SELECT {x:UInt8"),
    "percent-at-the-end": http("POST", "/?query=SELECT+1%"),
    "nested": http("POST", "/", b"SELECT " + b"(" * 2000 + b"1" + b")" * 2000),
    "brackets-that-stay-open": http("POST", "/", b"SELECT " + b"[" * 2000),
    "quote-that-stays-open": http("POST", "/", b"SELECT 'a"),
    "comment-that-stays-open": http("POST", "/", b"SELECT 1 /* a"),
    "gzip": http("POST", "/", gzip.compress(b"SELECT 1", mtime=0), "Content-Encoding: gzip"),
    "gzip-that-is-none": http("POST", "/", b"SELECT 1", "Content-Encoding: gzip"),
    "gzip-that-grows": http("POST", "/", gzip.compress(bytes(1 << 20), mtime=0), "Content-Encoding: gzip"),
    "coding-that-is-unknown": http("POST", "/", b"SELECT 1", "Content-Encoding: later"),
    "multipart-without-boundary": http("POST", "/", b"--x\r\n", "Content-Type: multipart/form-data"),
    "multipart-that-stays-open": http("POST", "/", b"--x\r\nContent-", "Content-Type: multipart/form-data; boundary=x"),
    "format-that-is-unknown": http("POST", "/", b"SELECT 1 FORMAT Later"),
    "limit-beyond-all": http("POST", f"/?max_result_rows={MOST}0", b"SELECT 1"),
    "basic-that-is-none": http("POST", "/", b"SELECT 1", "Authorization: Basic ///"),
    "foreign-origin": http("POST", "/", b"SELECT 1", "Origin: http://example.org"),
    "method-that-is-unknown": http("LATER", "/", b"SELECT 1"),
}
NOISE: dict[str, bytes] = {
    "nothing": b"",
    "line-ends-alone": b"\r\n\r\n\r\n",
    "length-that-is-no-number": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
    "length-below-zero": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "length-beyond-all": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\nSELECT 1",
    "two-lengths": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\nContent-Length: 9\r\n\r\nSELECT 1",
    "chunk-that-is-no-number": b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
    "chunk-that-never-comes": b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nSEL",
    "body-that-never-comes": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\nSELECT 1",
    "header-without-end": b"GET /?query=SELECT+1 HTTP/1.1\r\nHost: local",
    "header-that-is-too-long": b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000,
    "another-protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tls": bytes.fromhex("16030100a5010000a10303") + bytes(32),
    "request-that-was-asked-twice": REQUESTS["plain"].replace(b"Connection: close\r\n", b"") * 2,
}


def push(*ranges: pb.Range) -> bytes:
    """What an agent sends."""
    return pb.PushRequest(ranges=ranges, agent="fuzz").SerializeToString(deterministic=True)


def surfaces() -> dict[str, dict[str, bytes]]:
    """Surface to the cases of it."""
    frozen = {f"frozen-{path.parent.name}-{path.stem}": path.read_bytes() for path in sorted(GOLDEN.glob("v*/*.bin"))}
    pushes = {name: raw for name, raw in frozen.items() if name.endswith("-push")}
    ranges = {name: raw for name, raw in frozen.items() if name.endswith(("-range", "-range_gap"))}
    records = {name: raw for name, raw in frozen.items() if name not in {*pushes, *ranges}}
    raw_pushes = {
        "nothing": b"",
        "text-that-is-not-utf8": field(1, field(1, b"s") + field(3, b"\xff\xfe") + field(15, STEP)),
        "range-shorter-than-it-says": b"\x0a\x7f\x0a\x01s",
        "groups": b"\x0b\x0b\x0b\x0c",
        "later-fields": field(1, range_().SerializeToString() + LATER) + LATER,
        "one-range-twice": push(range_(), range_()),
        "good-and-bad": push(range_(), RANGES["body-bad-crc"], range_(stream="t")),
    }
    return {
        "push": pushes | raw_pushes | {name: push(each) for name, each in RANGES.items()},
        "spool": {**records, "frozen-all": b"".join(records.values()), **BODIES},
        "decoder": {
            **ranges,
            "no-range": b"\xff\xff\xff",
            "frozen-all": range_(b"".join(records.values())).SerializeToString(deterministic=True),
            **{name: each.SerializeToString(deterministic=True) for name, each in RANGES.items()},
            "varied": MadeStream("s").open().key_set(1, "loss").steps(1, range(3)).close().range().SerializeToString(),
        },
        "http": REQUESTS,
        "noise": NOISE,
    }


def main() -> int:
    """Write what is not there."""
    for surface, named in surfaces().items():
        (CORPUS / surface).mkdir(parents=True, exist_ok=True)
        for name, raw in named.items():
            path = CORPUS / surface / f"{name}.bin"
            if not path.exists():
                path.write_bytes(raw)
    return 0


if __name__ == "__main__":
    sys.exit(main())
