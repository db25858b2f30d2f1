"""The gateway's pure parts: who may listen and speak, what a range must be, rates, and how errors are said."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, message_factory
from runtide.gateway.access import RULES, Access, Caller, OtherProject, WrongRole
from runtide.gateway.checks import check_push, check_range
from runtide.gateway.limits import Limits, Rates
from runtide.gateway.settings import GatewaySettings, check_exposure
from runtide.gateway.status import DELAY_KEY, DETAILS_KEY, answer_for
from runtide.gateway.tokens import Token, TokenBook, UnknownToken, bearer, hash_token, new_token, revoked
from runtide.v1 import artifacts_pb2 as artifacts
from runtide.v1 import ingest_pb2 as pb
from runtide.v1 import records_pb2 as rec
from runtide.wire import framing, limits
from runtide.wire.books import CHANGES, UNREADABLE
from runtide.wire.errors import BadInput, Busy, Unavailable
from runtide.wire.loopback import is_loopback
from runtide.wire.roles import Role

LIMITS = Limits()
STEP = framing.StepEncoder(1, 2).encode(1, 2, [0.5, 1.5])


def sound(**changes: Any) -> pb.Range:
    fields: dict[str, Any] = {"stream": "s" * 32, "run_id": "r", "rank": 0, "host": "h", "body": STEP}
    return pb.Range(**fields | changes)


# --- exposure


def test_loopback_needs_nothing() -> None:
    for host in ("127.0.0.1", "127.3.2.1", "::1", "[::1]", "localhost"):
        assert is_loopback(host)
        check_exposure(GatewaySettings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "gateway.example.org"])
def test_elsewhere_needs_tls_and_says_so(host: str) -> None:
    with pytest.raises(BadInput) as error:
        check_exposure(GatewaySettings(host=host))
    assert host in str(error.value)
    for variable in ("RUNTIDE_GATEWAY_TLS_CERT", "RUNTIDE_GATEWAY_TLS_KEY", "RUNTIDE_GATEWAY_ALLOW_PLAINTEXT"):
        assert variable in str(error.value)
    check_exposure(GatewaySettings(host=host, tls_cert=Path("c"), tls_key=Path("k")))
    check_exposure(GatewaySettings(host=host, allow_plaintext=True))


def test_half_a_tls_configuration_is_refused_on_loopback_too() -> None:
    with pytest.raises(BadInput, match="TLS needs both"):
        check_exposure(GatewaySettings(tls_cert=Path("c")))
    with pytest.raises(BadInput, match="client certificates need TLS"):
        check_exposure(GatewaySettings(tls_client_ca=Path("c")))


# --- tokens


def test_a_token_is_random_and_kept_as_a_hash() -> None:
    texts = {new_token("vision", Role.WRITER)[1] for _ in range(50)}
    assert len(texts) == 50
    token, text = new_token("vision", Role.READER, "ci", expires=5_000, now=1_000.9)
    assert text.startswith(f"runtide_{token.id}_")
    assert len(text.split("_", 2)[2]) == 43, "256 bits"
    assert token.sha256 == hash_token(text) == hashlib.sha256(text.encode()).hexdigest()
    kept = str(token.entry())
    assert text.split("_", 2)[2] not in kept
    assert Token.of(token.entry()) == token
    assert (token.created, token.expires, token.revoked) == (1_000, 5_000, None)


@pytest.mark.parametrize("project", ["", " x", "a/b", "a\x00b", "x" * 257])
def test_a_project_has_a_name(project: str) -> None:
    with pytest.raises(BadInput, match="project"):
        new_token(project, Role.WRITER)


def test_a_token_is_good_until_it_expires_or_is_revoked() -> None:
    clock = Clock()
    lasting, ended = new_token("vision", Role.WRITER), new_token("vision", Role.WRITER, expires=150, now=100)
    book = TokenBook([lasting[0], ended[0]], clock)
    assert book.find(ended[1]) == ended[0]
    clock.now = 150.0
    with pytest.raises(UnknownToken, match="has expired at 1970"):
        book.find(ended[1])
    assert book.find(lasting[1]) == lasting[0]
    gone = revoked(lasting[0], now=160)
    assert revoked(gone, now=170) == gone
    book.learn({"token/x": gone.entry()})
    with pytest.raises(UnknownToken, match="was revoked at 1970") as error:
        book.find(lasting[1])
    assert lasting[1] not in str(error.value)


def test_what_is_not_exactly_a_token_is_not_known() -> None:
    token, text = new_token("vision", Role.WRITER)
    book = TokenBook([token])
    other = new_token("vision", Role.WRITER)[1]
    forged = f"runtide_{token.id}_{other.split('_', 2)[2]}"
    for guess in (other, forged, text[:-1], text + "x", text.upper(), token.id, token.sha256, f"x{text}", "é", "_" * 9):
        with pytest.raises(UnknownToken, match="is not known") as error:
            book.find(guess)
        assert guess not in str(error.value) or len(guess) < 10
    with pytest.raises(UnknownToken, match="is needed"):
        book.find("")


def test_an_entry_that_is_none_lets_nobody_in_and_counts_as_a_token() -> None:
    book = TokenBook()
    assert not book.used
    book.learn({"other/x": {"id": "x"}})
    assert not book.used
    book.learn({"token/x": {"id": "x", "role": "king"}, "token/y": {}})
    assert book.used
    book.learn({})
    assert book.used, "a store that lost its tokens opens nothing"


# --- who may call what


def services() -> list[str]:
    """Every call of every service in proto/, as gRPC names it."""
    return [
        f"/{service.full_name}/{method.name}"
        for file in (artifacts.DESCRIPTOR, pb.DESCRIPTOR, rec.DESCRIPTOR)
        for service in file.services_by_name.values()
        for method in service.methods
    ]


def test_every_call_has_its_rule_and_no_rule_is_without_a_call() -> None:
    files = {path.stem for path in (Path(__file__).parents[3] / "proto/runtide/v1").glob("*.proto")}
    assert files == {"artifacts", "ingest", "records"}, "services() must know every file"
    ours = {method for method in RULES if method.startswith("/runtide.")}
    assert ours == set(services())
    assert all(RULES[method] for method in ours), "none of our own calls is public"


@pytest.mark.parametrize("method", services())
@pytest.mark.parametrize("role", list(Role))
def test_roles(method: str, role: Role) -> None:
    token, text = new_token("vision", role)
    access = Access(TokenBook([token]), open_while_unused=True, refused=lambda method, code: None)
    if role in RULES[method]:
        assert access.judge(method, text).project == "vision"
    else:
        with pytest.raises(WrongRole, match=f"role is {role}.*--role writer"):
            access.judge(method, text)
    with pytest.raises(UnknownToken):
        access.judge(method, "")


def test_readers_do_not_write() -> None:
    assert RULES["/runtide.v1.Ingest/Push"] == {Role.WRITER, Role.ADMIN}


def test_a_call_without_a_rule_is_refused_to_everybody() -> None:
    token, text = new_token("vision", Role.ADMIN)
    for book in (TokenBook(), TokenBook([token])):
        access = Access(book, open_while_unused=True, refused=lambda method, code: None)
        with pytest.raises(WrongRole, match="no rule"):
            access.judge("/runtide.v1.Ingest/New", text)


def test_only_loopback_is_open_and_only_until_the_first_token() -> None:
    book = TokenBook()
    here = Access(book, open_while_unused=True, refused=lambda method, code: None)
    elsewhere = Access(book, open_while_unused=False, refused=lambda method, code: None)
    assert here.judge("/runtide.v1.Ingest/Push", "").project is None
    with pytest.raises(UnknownToken):
        elsewhere.judge("/runtide.v1.Ingest/Push", "")
    token, text = new_token("vision", Role.WRITER)
    book.learn({"token/a": revoked(token).entry()})
    for access in (here, elsewhere):
        for given in ("", text):
            with pytest.raises(UnknownToken):
                access.judge("/runtide.v1.Ingest/Push", given)


def test_the_token_decides_the_project() -> None:
    Caller(None).check(["anything"])
    Caller("vision").check(["", "vision"])
    with pytest.raises(OtherProject, match=r"'vision'.*'speech'"):
        Caller("vision").check(["speech"])


def test_bearer() -> None:
    assert bearer((("other", "x"), ("authorization", "Bearer abc"))) == "abc"
    assert bearer((("authorization", "bearer abc"),)) == "abc"
    assert bearer((("authorization", "Basic abc"),)) == ""
    assert bearer((("authorization", b"Bearer abc"),)) == ""
    assert bearer(()) == ""


# --- ranges


def test_a_sound_range() -> None:
    assert check_range(sound(body=STEP * 3), LIMITS) == framing.Checked(3, 6)
    assert check_range(sound(body=b"", gap=rec.Gap(length=10)), LIMITS) == framing.Checked()
    assert check_range(sound(rank=-1, host=""), LIMITS) == framing.Checked(1, 2)


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
        (sound(body=b"", gap=rec.Gap(length=1, records=2**64 - 1)), "extent", "gap.records, gap.points", 0),
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
    assert check_range(ruling(), LIMITS) == framing.Checked()


@pytest.mark.parametrize(
    ("range_", "field"),
    [
        (ruling(body=STEP), "body, gap"),
        (ruling(gap=rec.Gap(length=1)), "body, gap"),
        (ruling(ruling=pb.Ruling(by="ann")), "ruling.offsets"),
        (ruling(ruling=pb.Ruling(offsets=range(1001))), "ruling.offsets"),
        (ruling(ruling=pb.Ruling(offsets=[1], discard="x" * 1025)), "ruling.discard"),
        (ruling(ruling=pb.Ruling(offsets=[1], discard=" \n")), "ruling.discard"),
        (ruling(ruling=pb.Ruling(offsets=[1], why="x" * 1025)), "ruling.why"),
        (ruling(ruling=pb.Ruling(offsets=[1], by="é" * 600)), "ruling.by"),
        (ruling(ruling=pb.Ruling(offsets=[1], by="ann\nand bob")), "ruling.by"),
        (ruling(stream=""), "stream"),
    ],
)
def test_rulings_that_are_refused(range_: pb.Range, field: str) -> None:
    found = check_range(range_, LIMITS)
    assert isinstance(found, pb.Refusal)
    assert (found.field, bool(found.limit)) == (field, True)


@pytest.mark.parametrize(
    ("run_id", "role", "taken"),
    [
        ("@kpis", rec.ROLE_USER, True),
        ("@kpis", rec.ROLE_RANK, False),
        ("@changes", rec.ROLE_RANK, False),
        ("@other", rec.ROLE_AGENT, False),
        ("r", rec.ROLE_USER, False),
    ],
)
def test_only_users_write_in_books_and_users_in_nothing_else(run_id: str, role: rec.Role, taken: bool) -> None:
    verdict = check_range(sound(run_id=run_id, role=role), LIMITS)
    assert (not isinstance(verdict, pb.Refusal)) is taken
    assert taken or (verdict.code, verdict.field, verdict.value) == ("identity", "run_id", run_id)  # type: ignore[union-attr]


def test_no_job_speaks_in_a_stream_that_sinks_leave_out_of_their_ledger() -> None:
    named = {"stream": f"{UNREADABLE}-1-2", "run_id": "r"}
    verdict = check_range(sound(**named), LIMITS)
    assert isinstance(verdict, pb.Refusal)
    assert (verdict.code, verdict.field, verdict.value) == ("identity", "stream", named["stream"])
    ruled = pb.Range(stream=named["stream"], ruling=pb.Ruling(offsets=[0], by="ann", discard="enough"))
    assert not isinstance(check_range(ruled, LIMITS), pb.Refusal)


def test_who_writes_in_a_book_is_the_tokens_holder_however_long_the_name_and_whatever_is_said() -> None:
    for name in ("ann", "n" * limits.IDENTITY_BYTES, "\u00e9" * (limits.IDENTITY_BYTES // 2)):
        token, _ = new_token("vision", Role.WRITER, name)
        book = sound(run_id="@kpis", role=rec.ROLE_USER, actor="somebody else")
        request = pb.PushRequest(ranges=[book, sound(actor="somebody else")])
        Caller("vision", token).sign(request)
        in_book, of_run = request.ranges
        assert in_book.actor.startswith(f"{token.id} writer {name[:100]}")
        assert of_run.actor == ""
        assert not isinstance(check_range(in_book, LIMITS), pb.Refusal), "a long name costs no data"


def test_the_largest_range_that_is_taken() -> None:
    fits = framing.seal(bytes(LIMITS.record_bytes))
    assert check_range(sound(body=fits * 3), LIMITS) == framing.Checked(3)


def test_pushes() -> None:
    assert check_push(pb.PushRequest(ranges=[sound(), sound()]), LIMITS) == 2 * len(STEP)
    with pytest.raises(BadInput, match=r"ranges is 257, but .*256 \(push_ranges\)"):
        check_push(pb.PushRequest(ranges=[sound()] * 257), LIMITS)
    body = bytes(LIMITS.push_bytes // 2)
    with pytest.raises(BadInput, match="push_bytes"):
        check_push(pb.PushRequest(ranges=[sound(body=body), sound(body=body), sound()]), LIMITS)
    with pytest.raises(BadInput, match="push_envelope_bytes"):
        check_push(pb.PushRequest(agent="x" * (LIMITS.push_envelope_bytes + 1)), LIMITS)


def a_change(kind: str = "notes", after: str = '"x"', **said: Any) -> pb.Range:
    record = rec.Record(change=rec.Change(subject="run:r", kind=kind, after=after, reason="why"))
    body = framing.seal(record.SerializeToString())
    return sound(**{"run_id": CHANGES, "role": rec.ROLE_USER, "actor": "ada", "body": body} | said)


def test_changes_are_looked_at_one_by_one() -> None:
    assert check_range(a_change(), LIMITS) == framing.Checked(1)
    for range_, code, field in (
        (a_change("shout"), "change", "change.kind"),
        (a_change(after="x"), "change", "change.after"),
        (a_change(body=STEP), "change", "body"),
        (a_change(rank=64), "identity", "rank, actor"),
        (a_change(actor=""), "identity", "rank, actor"),
        (a_change(role=rec.ROLE_RANK), "identity", "run_id"),
    ):
        found = check_range(range_, LIMITS)
        assert isinstance(found, pb.Refusal)
        assert (found.code, found.field, bool(found.limit)) == (code, field, True)


@pytest.mark.parametrize("kind", ["delete", "restore", "stage", "approve", "retention"])
def test_some_changes_need_an_admin_wherever_they_stand_in_a_push(kind: str) -> None:
    body = a_change().body + a_change(kind, "true").body
    for role, may in ((Role.ADMIN, True), (Role.WRITER, False)):
        token, _ = new_token("vision", role, name="ada's laptop")
        request = pb.PushRequest(ranges=[sound(), a_change(), a_change(body=body)])
        if may:
            Caller("vision", token).sign(request)
            assert {range_.actor for range_ in request.ranges} == {"", f"{token.id} admin ada's laptop"}
            continue
        with pytest.raises(WrongRole, match=f"{kind} of run:r needs admin"):
            Caller("vision", token).sign(request)


def test_without_tokens_an_actor_is_a_claim_and_looks_like_one() -> None:
    request = pb.PushRequest(ranges=[a_change(actor="0a1b2c admin ada"), a_change(actor="local:ada")])
    Caller(None).sign(request)
    assert [range_.actor for range_ in request.ranges] == ["local:0a1b2c admin ada", "local:ada"]


# --- rates


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_project_has_its_rate_and_its_burst_and_others_have_theirs() -> None:
    clock = Clock()
    rates = Rates(replace(LIMITS, project_bytes_per_s=1000, project_pushes_per_s=1000, burst_s=2), clock)
    rates.charge("a", 2000)
    with pytest.raises(Busy, match=r"project_bytes_per_s.*1500.*'a'.*1000.*wait.*RUNTIDE_GATEWAY_LIMITS") as busy:
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
    assert answer_for(WrongRole("not for this")).code is grpc.StatusCode.PERMISSION_DENIED


def test_a_limit_that_lets_nothing_pass_is_refused() -> None:
    with pytest.raises(BadInput, match="project_points_per_s"):
        Limits(project_points_per_s=0)
