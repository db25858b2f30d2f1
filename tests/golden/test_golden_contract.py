"""The contract of each release is frozen, and every later one only adds to it.

`make lint` says the same with buf's rules; here the two descriptors are compared, and both are shown to turn red.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)
from runtide.v1 import ingest_pb2, records_pb2

ROOT = Path(__file__).parents[2]
FROZEN = sorted(Path(__file__).parent.glob("v*/contract.binpb"))
assert FROZEN

Meaning = tuple[object, ...]


def today() -> FileDescriptorSet:
    found = FileDescriptorSet()
    for module in (records_pb2, ingest_pb2):
        module.DESCRIPTOR.CopyToProto(found.file.add())
    return found


def facts(contract: FileDescriptorSet) -> dict[str, Meaning]:
    """What bytes and calls mean: each field by its number, each value of an enum, each call."""
    found: dict[str, Meaning] = {}
    for file in contract.file:
        for message in file.message_type:
            found.update(_fields(f"{file.package}.{message.name}", message))
        for enum in file.enum_type:
            found.update(_values(f"{file.package}.{enum.name}", enum))
        for service in file.service:
            found.update(_calls(f"{file.package}.{service.name}", service))
    return found


def _fields(path: str, message: DescriptorProto) -> Iterator[tuple[str, Meaning]]:
    for field in message.field:
        oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else ""
        meaning = field.name, field.type, field.type_name, field.label, field.proto3_optional, oneof
        yield f"{path} {field.number}", meaning
    for nested in message.nested_type:
        yield from _fields(f"{path}.{nested.name}", nested)
    for enum in message.enum_type:
        yield from _values(f"{path}.{enum.name}", enum)


def _values(path: str, enum: EnumDescriptorProto) -> Iterator[tuple[str, Meaning]]:
    for value in enum.value:
        yield f"{path} {value.number}", (value.name,)


def _calls(path: str, service: ServiceDescriptorProto) -> Iterator[tuple[str, Meaning]]:
    for call in service.method:
        yield f"{path}/{call.name}", (call.input_type, call.output_type, call.client_streaming, call.server_streaming)


def broken(frozen: FileDescriptorSet, later: FileDescriptorSet) -> list[str]:
    """What an earlier release relies on and a later one does not keep."""
    now = facts(later)
    return [f"{what}: {was} is {now.get(what)}" for what, was in facts(frozen).items() if now.get(what) != was]


@pytest.mark.parametrize("path", FROZEN, ids=lambda path: path.parent.name)
def test_nothing_of_a_frozen_contract_has_changed(path: Path) -> None:
    frozen = FileDescriptorSet.FromString(path.read_bytes())
    assert len(facts(frozen)) > 150
    assert broken(frozen, today()) == []


def _message(contract: FileDescriptorSet, name: str) -> DescriptorProto:
    return next(message for file in contract.file for message in file.message_type if message.name == name)


def _calls_of(contract: FileDescriptorSet) -> ServiceDescriptorProto:
    return next(service for file in contract.file for service in file.service)


def renumbered(contract: FileDescriptorSet) -> None:
    _message(contract, "Range").field[1].number = 22


def retyped(contract: FileDescriptorSet) -> None:
    _message(contract, "Step").field[1].type = FieldDescriptorProto.TYPE_SINT64


def removed(contract: FileDescriptorSet) -> None:
    del _message(contract, "Gap").field[0]


def no_longer_repeated(contract: FileDescriptorSet) -> None:
    _message(contract, "KeySet").field[1].label = FieldDescriptorProto.LABEL_OPTIONAL


def other_presence(contract: FileDescriptorSet) -> None:
    _message(contract, "StreamOpened").field[19].proto3_optional = False


def another_name_for_a_number(contract: FileDescriptorSet) -> None:
    first, second = _message(contract, "Record").field[:2]
    first.name, second.name = second.name, first.name


def enum_value_removed(contract: FileDescriptorSet) -> None:
    del next(enum for file in contract.file for enum in file.enum_type if enum.name == "Role").value[2]


def call_removed(contract: FileDescriptorSet) -> None:
    del _calls_of(contract).method[2]


def call_retyped(contract: FileDescriptorSet) -> None:
    _calls_of(contract).method[0].output_type = ".runtide.v1.StatusResponse"


def call_streams(contract: FileDescriptorSet) -> None:
    _calls_of(contract).method[0].client_streaming = True


@pytest.mark.parametrize(
    "change",
    [
        renumbered,
        retyped,
        removed,
        no_longer_repeated,
        other_presence,
        another_name_for_a_number,
        enum_value_removed,
        call_removed,
        call_retyped,
        call_streams,
    ],
    ids=lambda change: change.__name__,
)
def test_a_change_that_breaks_is_seen(change: Callable[[FileDescriptorSet], None]) -> None:
    later = today()
    change(later)
    assert broken(today(), later)


def test_what_is_only_added_breaks_nothing() -> None:
    later = today()
    _message(later, "Range").field.add(name="later", number=99, type=FieldDescriptorProto.TYPE_STRING)
    later.file[0].message_type.add(name="Later")
    _calls_of(later).method.add(name="Later", input_type=".runtide.v1.Later", output_type=".runtide.v1.Later")
    assert broken(today(), later) == []


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("ingest", "uint64 offset = 2;", "uint64 offset = 22;"),
        ("ingest", "rpc Status(StatusRequest) returns (StatusResponse);", ""),
        ("records", "sfixed64 step = 2;", "sint64 step = 2;"),
        ("records", "LogLine log_line = 5;", ""),
    ],
    ids=["renumbered", "call removed", "retyped", "kind removed"],
)
def test_the_linter_sees_it_too(tmp_path: Path, file: str, before: str, after: str) -> None:
    proto = tmp_path / "proto"
    (proto / "runtide" / "v1").mkdir(parents=True)
    (proto / "buf.yaml").write_text((ROOT / "proto" / "buf.yaml").read_text())
    for name in ("ingest", "records"):
        source = (ROOT / "proto" / "runtide" / "v1" / f"{name}.proto").read_text()
        (proto / "runtide" / "v1" / f"{name}.proto").write_text(source)
    assert breaking(proto).returncode == 0
    path = proto / "runtide" / "v1" / f"{file}.proto"
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after))
    found = breaking(proto)
    assert found.returncode == 100, found.stdout + found.stderr


def breaking(proto: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("buf"), "breaking", proto, "--against", FROZEN[-1]]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
