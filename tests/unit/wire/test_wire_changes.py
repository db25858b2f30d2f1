"""What a change may be: kinds, subjects and values, each refusal naming field, value and limit."""

from __future__ import annotations

from typing import Any

import pytest
from runtide.v1.records_pb2 import Change, LogLine, Record
from runtide.wire.changes import (
    KINDS,
    REASON_BYTES,
    VALUE_BYTES,
    adds,
    as_json,
    changes_in,
    check_change,
    following,
    slot,
)
from runtide.wire.errors import BadInput
from runtide.wire.framing import seal

SOUND: dict[str, Any] = {
    "tag_add": ["a"],
    "tag_remove": ["a"],
    "rename": "a name",
    "notes": "",
    "comment": "words",
    "claim": "words",
    "release": None,
    "favourite": True,
    "delete": True,
    "restore": False,
    "objective": {"metric": "loss", "goal": "min", "target": 0.1},
    "hypothesis": "wider is better",
    "owner": "ada",
    "plan": {"from": "2026-01-01", "to": "2026-01-31", "deadline": "2026-02-01"},
    "budget": {"amount": 200, "unit": "gpu-hours"},
    "depends": {"on": "run:7c2f", "needs": "data", "why": "its labels"},
    "view_save": {"columns": ["loss"]},
    "view_delete": None,
}


def change(**said: Any) -> Change:
    return Change(**{"subject": "run:7c2f", "kind": "notes", "after": '"x"'} | said)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_said(kind: str) -> None:
    subject = f"{KINDS[kind].subjects[0]}:x"
    check_change(change(subject=subject, kind=kind, reason="why", after=as_json(SOUND.get(kind, {"any": "thing"}))))


@pytest.mark.parametrize(
    "subject",
    ["run:1", "experiment:a:b", "config:0f", "model:m", "model:m@2", "artifact:a@v1", "dataset:d", "project:"],
)
def test_subjects(subject: str) -> None:
    check_change(change(subject=subject))


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"kind": "shout"}, "change.kind"),
        ({"subject": "7c2f"}, "change.subject"),
        ({"subject": "job:7c2f"}, "change.subject"),
        ({"subject": "run:"}, "change.subject"),
        ({"subject": "project:vision"}, "change.subject"),
        ({"subject": "model:@2"}, "change.subject"),
        ({"subject": "model:m@"}, "change.subject"),
        ({"subject": "run:a\nb"}, "change.subject"),
        ({"subject": "run:" + "x" * 2048}, "change.subject"),
        ({"kind": "view_save", "after": "{}"}, "change.subject"),
        ({"after": ""}, "change.after"),
        ({"after": "odd"}, "change.after"),
        ({"after": "NaN"}, "change.after"),
        ({"after": "[" * 100_000}, "change.after"),
        ({"after": "7"}, "change.after"),
        ({"after": f'"{"x" * VALUE_BYTES}"'}, "change.after"),
        ({"kind": "tag_add", "after": "[]"}, "change.after"),
        ({"kind": "tag_add", "after": '[" "]'}, "change.after"),
        ({"kind": "rename", "after": '""'}, "change.after"),
        ({"kind": "comment", "after": '" "'}, "change.after"),
        ({"kind": "favourite", "after": "1"}, "change.after"),
        ({"kind": "release", "after": "{}"}, "change.after"),
        ({"kind": "delete", "after": "false", "reason": "why"}, "change.after"),
        ({"kind": "delete", "after": "true", "reason": " "}, "change.reason"),
        ({"reason": "x" * (REASON_BYTES + 1)}, "change.reason"),
        ({"before": "odd"}, "change.before"),
    ],
)
def test_refusals_name_the_field(said: dict[str, Any], field: str) -> None:
    with pytest.raises(BadInput) as error:
        check_change(change(**said))
    assert (error.value.field, bool(error.value.limit)) == (field, True)


def test_a_body_has_changes_only() -> None:
    sound = seal(Record(change=change()).SerializeToString())
    assert list(changes_in(sound * 2)) == [change(), change()]
    damaged = bytearray(sound)
    damaged[-1] ^= 1
    for body in (seal(Record(log_line=LogLine(line="x")).SerializeToString()), bytes(damaged), sound[:-1], b"\x0a"):
        with pytest.raises(BadInput):
            list(changes_in(sound + body))


def test_what_a_slot_holds() -> None:
    assert following("tag_add", '["b"]', '["a","b"]') == '["a","b"]'
    assert following("tag_remove", '["a","b"]', '["a","c"]') == '["b"]'
    assert following("tag_add", "null", '["a"]') == '["a"]'
    assert following("tag_add", "odd", "odd") == "[]"
    assert following("notes", '"a"', '"b"') == '"b"'
    assert (slot("tag_add"), slot("restore"), slot("notes"), slot("of a later release")) == (
        "tags",
        "deleted",
        "notes",
        "of a later release",
    )
    assert (adds("comment"), adds("notes"), adds("of a later release")) == (True, False, False)
    with pytest.raises(BadInput, match="JSON"):
        as_json(float("nan"))
