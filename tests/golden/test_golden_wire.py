"""What earlier releases wrote is still read, and read as it was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from runtide.v1 import ingest_pb2 as ingest
from runtide.v1 import records_pb2 as v1
from runtide.wire.decode import decode
from runtide.wire.framing import check

pytestmark = pytest.mark.fault(26)

RELEASES = sorted(path for path in Path(__file__).parent.iterdir() if path.is_dir() and path.name.startswith("v"))
FILES = [path for release in RELEASES for path in sorted(release.glob("*.bin"))]
ENVELOPES = {"push": ingest.PushRequest, "range": ingest.Range, "range_gap": ingest.Range}
RECORDS = [path for path in FILES if path.stem not in ENVELOPES]


def as_json(message: Message) -> str:
    return MessageToJson(message, preserving_proto_field_name=True, sort_keys=True, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_frozen_bytes_say_what_they_said(path: Path) -> None:
    raw = path.read_bytes()
    message: Message
    if path in RECORDS:
        assert check(raw).records == 1
        (message,) = v1.Batch.FromString(raw).records
    else:
        message = ENVELOPES[path.stem].FromString(raw)
    assert as_json(message) == path.with_suffix(".json").read_text()


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_sink_understands_every_frozen_record(path: Path) -> None:
    raw = path.read_bytes()
    names = v1.KeySet(id=1, names=["a", "b", "c"])
    said = decode(ingest.Range(stream="s", run_id="r", key_sets=[names], body=raw), raw)
    assert said.dead == []
    assert said.records == 1


def test_every_kind_of_record_is_frozen() -> None:
    kinds = {field.name for field in v1.Record.DESCRIPTOR.oneofs_by_name["said"].fields}
    assert {path.stem for path in RECORDS} == kinds
