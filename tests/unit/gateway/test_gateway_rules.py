"""The gateway's pure parts: who may listen and speak, what a range must be, rates, and how errors are said."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, message_factory
from runtide.gateway.checks import check_push, check_range
from runtide.gateway.limits import Limits, Rates
from runtide.gateway.settings import GatewaySettings, check_exposure, is_loopback
from runtide.gateway.status import DELAY_KEY, DETAILS_KEY, answer_for
from runtide.gateway.tokens import (
    OtherProject,
    TokenFile,
    TokenMap,
    UnknownToken,
    bearer,
    hash_token,
    project_of,
)
from runtide.v1 import ingest_pb2 as pb
from runtide.v1 import records_pb2 as rec
from runtide.wire import framing
from runtide.wire.errors import BadInput, Busy, Unavailable

LIMITS = Limits()
STEP = framing.StepEncoder(1, 2).encode(1, 2, [0.5, 1.5])


def sound(**changes: Any) -> pb.Range:
    fields: dict[str, Any] = {"stream": "s" * 32, "run_id": "r", "rank": 0, "host": "h", "body": STEP}
    return pb.Range(**fields | changes)


# --- exposure


def test_loopback_needs_nothing() -> None:
    for host in ("127.0.0.1", "127.3.2.1", "::1", "[::1]", "localhost"):
        assert is_loopback(host)
        check_exposure(GatewaySettings(host=host), has_tokens=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "gateway.example.org"])
def test_elsewhere_needs_tokens_and_tls_and_says_so(host: str) -> None:
    with pytest.raises(BadInput) as error:
        check_exposure(GatewaySettings(host=host), has_tokens=False)
    assert host in str(error.value)
    for variable in ("RUNTIDE_GATEWAY_TOKENS", "RUNTIDE_GATEWAY_TLS_CERT", "RUNTIDE_GATEWAY_TLS_KEY"):
        assert variable in str(error.value)


def test_elsewhere_with_one_of_them_names_the_other() -> None:
    with pytest.raises(BadInput, match="TLS_CERT") as error:
        check_exposure(GatewaySettings(host="0.0.0.0"), has_tokens=True)
    assert "GATEWAY_TOKENS" not in str(error.value)
    tls = GatewaySettings(host="0.0.0.0", tls_cert=Path("c"), tls_key=Path("k"))
    with pytest.raises(BadInput, match="GATEWAY_TOKENS"):
        check_exposure(tls, has_tokens=False)
    check_exposure(tls, has_tokens=True)


def test_a_proxy_may_do_tls_but_tokens_are_needed_still() -> None:
    settings = GatewaySettings(host="0.0.0.0", allow_plaintext=True)
    check_exposure(settings, has_tokens=True)
    with pytest.raises(BadInput, match="GATEWAY_TOKENS"):
        check_exposure(settings, has_tokens=False)


def test_half_a_tls_configuration_is_refused_on_loopback_too() -> None:
    with pytest.raises(BadInput, match="TLS needs both"):
        check_exposure(GatewaySettings(tls_cert=Path("c")), has_tokens=False)
    with pytest.raises(BadInput, match="client certificates need TLS"):
        check_exposure(GatewaySettings(tls_client_ca=Path("c")), has_tokens=False)


# --- tokens


def test_a_token_file(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# who\n{hash_token('one')} vision  # the vision team\n\n{hash_token('two').upper()} speech\n")
    tokens = TokenFile(path)
    assert tokens.check("one") == "vision"
    assert tokens.check("two") == "speech"
    assert tokens.check("three") is None
    assert tokens.check("") is None


def test_a_token_file_with_a_plain_token_is_refused_without_showing_it(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"{hash_token('one')} vision\nvery-secret speech\n")
    with pytest.raises(BadInput) as error:
        TokenFile(path)
    assert f"{path}:2" in str(error.value)
    assert "very-secret" not in str(error.value)


def test_what_is_kept_is_the_hash() -> None:
    assert hash_token("one") == hashlib.sha256(b"one").hexdigest()


def test_the_token_decides_the_project() -> None:
    tokens = TokenMap({hash_token("one"): "vision"})
    assert project_of(None, "", ["anything"]) is None
    assert project_of(tokens, "one", ["", "vision"]) == "vision"
    with pytest.raises(OtherProject, match=r"'vision'.*'speech'"):
        project_of(tokens, "one", ["speech"])
    with pytest.raises(UnknownToken, match="is not known"):
        project_of(tokens, "guess", [])
    with pytest.raises(UnknownToken, match="is needed"):
        project_of(tokens, "", [])


def test_bearer() -> None:
    assert bearer((("other", "x"), ("authorization", "Bearer abc"))) == "abc"
    assert bearer((("authorization", "bearer abc"),)) == "abc"
    assert bearer((("authorization", "Basic abc"),)) == ""
    assert bearer((("authorization", b"Bearer abc"),)) == ""
    assert bearer(()) == ""


# --- ranges


def test_a_sound_range() -> None:
    assert check_range(sound(body=STEP * 3), LIMITS) == 3
    assert check_range(sound(body=b"", gap=rec.Gap(length=10)), LIMITS) == 0
    assert check_range(sound(rank=-1, host=""), LIMITS) == 0 + 1


BIG = framing.seal(bytes(LIMITS.record_bytes + 1))


@pytest.mark.parametrize(
    ("range_", "code", "field", "offset"),
    [
        (sound(stream=""), "identity", "stream", 0),
        (sound(run_id="", offset=7), "identity", "run_id", 7),
        (sound(run_id="x" * 257), "identity", "run_id", 0),
        (sound(host="é" * 129), "identity", "host", 0),
        (sound(project="a\x00b"), "identity", "project", 0),
        (sound(rank=-2), "identity", "rank", 0),
        (sound(body=b""), "extent", "body, gap", 0),
        (sound(gap=rec.Gap(length=3)), "extent", "body, gap", 0),
        (sound(body=b"", gap=rec.Gap()), "extent", "gap.length", 0),
        (sound(offset=2**63), "extent", "offset", 2**63),
        (sound(body=bytes(LIMITS.batch_bytes + 1)), "batch_too_large", "body", 0),
        (
            sound(key_sets=[rec.KeySet(id=1, names=["k" * 1000] * 1023)], body=STEP),
            "batch_too_large",
            "range",
            0,
        ),
        (sound(key_sets=[rec.KeySet(id=1, names=["k"] * 1025)]), "key_set", "key_sets.names", 0),
        (sound(key_sets=[rec.KeySet(id=1, names=["k" * 1025])]), "key_set", "key_sets.names", 0),
        (sound(body=STEP + b"\x0b" + STEP, offset=100), "framing", "body", 100 + len(STEP)),
        (sound(body=STEP + STEP[:-1], offset=100), "framing", "body", 100 + len(STEP)),
        (sound(body=STEP[:-1] + b"\x00", offset=100), "crc", "body", 100),
        (sound(body=STEP + BIG, offset=100), "record_too_large", "body", 100 + len(STEP)),
    ],
)
def test_refusals_name_field_value_and_limit(range_: pb.Range, code: str, field: str, offset: int) -> None:
    refusal = check_range(range_, LIMITS)
    assert isinstance(refusal, pb.Refusal)
    assert (refusal.code, refusal.field, refusal.offset) == (code, field, offset)
    assert refusal.value
    assert refusal.limit


def ruling(**changes: Any) -> pb.Range:
    return sound(**{"body": b"", "run_id": "", "ruling": pb.Ruling(offsets=[0, 7], by="ann")} | changes)


def test_a_ruling_needs_no_body_and_no_run() -> None:
    assert check_range(ruling(), LIMITS) == 0


@pytest.mark.parametrize(
    ("range_", "field"),
    [
        (ruling(body=STEP), "body, gap"),
        (ruling(gap=rec.Gap(length=1)), "body, gap"),
        (ruling(ruling=pb.Ruling(by="ann")), "ruling.offsets"),
        (ruling(ruling=pb.Ruling(offsets=range(1001))), "ruling.offsets"),
        (ruling(ruling=pb.Ruling(offsets=[1], discard="x" * 1025)), "ruling.discard"),
        (ruling(ruling=pb.Ruling(offsets=[1], by="é" * 600)), "ruling.by"),
        (ruling(stream=""), "stream"),
    ],
)
def test_rulings_that_are_refused(range_: pb.Range, field: str) -> None:
    found = check_range(range_, LIMITS)
    assert isinstance(found, pb.Refusal)
    assert (found.field, bool(found.limit)) == (field, True)


def test_the_largest_range_that_is_taken() -> None:
    fits = framing.seal(bytes(LIMITS.record_bytes))
    assert check_range(sound(body=fits * 3), LIMITS) == 3


def test_pushes() -> None:
    assert check_push(pb.PushRequest(ranges=[sound(), sound()]), LIMITS) == 2 * len(STEP)
    with pytest.raises(BadInput, match=r"ranges is 257, but .*256 \(push_ranges\)"):
        check_push(pb.PushRequest(ranges=[sound()] * 257), LIMITS)
    body = bytes(LIMITS.push_bytes // 2)
    with pytest.raises(BadInput, match="push_bytes"):
        check_push(pb.PushRequest(ranges=[sound(body=body), sound(body=body), sound()]), LIMITS)
    with pytest.raises(BadInput, match="push_envelope_bytes"):
        check_push(pb.PushRequest(agent="x" * (LIMITS.push_envelope_bytes + 1)), LIMITS)


# --- rates


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_project_has_its_rate_and_its_burst_and_others_have_theirs() -> None:
    clock = Clock()
    rates = Rates(replace(LIMITS, project_bytes_per_s=1000, project_pushes_per_s=1000, burst_s=2), clock)
    rates.charge("a", 2000)
    with pytest.raises(Busy, match=r"project_bytes_per_s.*1500.*'a'.*1000") as busy:
        rates.charge("a", 1500)
    assert busy.value.retry_after_s == pytest.approx(1.5)
    rates.charge("b", 1500)
    clock.now += busy.value.retry_after_s
    rates.charge("a", 1500)


def test_a_push_that_is_refused_costs_nothing() -> None:
    clock = Clock()
    rates = Rates(replace(LIMITS, project_bytes_per_s=1000, project_pushes_per_s=1, burst_s=1), clock)
    rates.charge("a", 10)
    for _ in range(5):
        with pytest.raises(Busy, match="project_pushes_per_s"):
            rates.charge("a", 10)
    clock.now += 1.0
    rates.charge("a", 1000)


def test_a_push_larger_than_the_burst_passes_when_all_of_it_is_there() -> None:
    clock = Clock()
    rates = Rates(replace(LIMITS, project_bytes_per_s=1000, burst_s=1), clock)
    rates.charge("a", 5000)
    with pytest.raises(Busy) as busy:
        rates.charge("a", 1)
    assert busy.value.retry_after_s == pytest.approx(4.001)


# --- statuses


def rich(trailing: tuple[tuple[str, str | bytes], ...], detail: str, fields: list[tuple[str, int, str]]) -> Any:
    """Decode the status details with messages described here, as any client of google.rpc would."""
    file = descriptor_pb2.FileDescriptorProto(
        name="rpc.proto",
        package="google.rpc",
        syntax="proto3",
        dependency=["google/protobuf/any.proto", "google/protobuf/duration.proto"],
    )
    types = descriptor_pb2.FieldDescriptorProto
    status = file.message_type.add(name="Status")
    status.field.add(name="code", number=1, type=types.TYPE_INT32, label=types.LABEL_OPTIONAL)
    status.field.add(name="message", number=2, type=types.TYPE_STRING, label=types.LABEL_OPTIONAL)
    any_name = ".google.protobuf.Any"
    status.field.add(name="details", number=3, type=types.TYPE_MESSAGE, type_name=any_name, label=types.LABEL_REPEATED)
    info = file.message_type.add(name=detail)
    for name, number, kind in fields:
        info.field.add(
            name=name,
            number=number,
            type=types.TYPE_MESSAGE if kind else types.TYPE_BYTES,
            type_name=kind or None,
            label=types.LABEL_OPTIONAL,
        )
    pool = descriptor_pool.DescriptorPool()
    for known in ("google/protobuf/any.proto", "google/protobuf/duration.proto"):
        found = descriptor_pb2.FileDescriptorProto()
        descriptor_pool.Default().FindFileByName(known).CopyToProto(found)
        pool.Add(found)
    pool.Add(file)
    whole = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.rpc.Status"))()
    value = dict(trailing)[DETAILS_KEY]
    assert isinstance(value, bytes)
    whole.ParseFromString(value)
    message: Any = whole
    assert message.details[0].type_url == f"type.googleapis.com/google.rpc.{detail}"
    inner = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"google.rpc.{detail}"))()
    inner.ParseFromString(message.details[0].value)
    return message, inner


def test_busy_says_when() -> None:
    answer = answer_for(Busy("full", 0.25))
    assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert dict(answer.trailing)[DELAY_KEY] == "250"
    status, info = rich(answer.trailing, "RetryInfo", [("retry_delay", 1, ".google.protobuf.Duration")])
    assert (status.code, status.message) == (8, "full")
    assert duration_pb2.Duration.FromString(info.retry_delay.SerializeToString()).ToMilliseconds() == 250


def test_unavailable_says_when() -> None:
    answer = answer_for(Unavailable("away"))
    assert answer.code is grpc.StatusCode.UNAVAILABLE
    assert dict(answer.trailing)[DELAY_KEY] == "1000"


def test_bad_input_names_the_field() -> None:
    answer = answer_for(BadInput("ranges", 300, "at most 256"))
    assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
    status, info = rich(answer.trailing, "BadRequest", [("field_violations", 1, "")])
    assert status.message == "ranges is 300, but at most 256"
    assert b"ranges" in info.field_violations


def test_tokens_have_their_two_codes() -> None:
    assert answer_for(UnknownToken("who?")).code is grpc.StatusCode.UNAUTHENTICATED
    assert answer_for(OtherProject("not yours")).code is grpc.StatusCode.PERMISSION_DENIED
