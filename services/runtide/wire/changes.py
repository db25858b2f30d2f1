"""What may be changed afterwards, of what, and by whom: every kind of Change and every form of a subject. Pure.

A change says `after` as JSON. Kinds that speak of the same thing, such as tag_add and tag_remove, share a slot: what a
subject's slot holds after one change is `before` of the next.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from runtide.v1.records_pb2 import Change, Record
from runtide.wire import experiments
from runtide.wire.errors import BadInput
from runtide.wire.framing import CRC_BYTES, FramingError, elements, sound
from runtide.wire.limits import KIB, NAME_BYTES

SUBJECT_BYTES = 2 * KIB
REASON_BYTES = 4 * KIB
VALUE_BYTES = 64 * KIB
"""Of `before` and of `after`, as JSON."""
TAGS = 256
"""Tags of one change."""
SUBJECTS = ("run", "experiment", "config", "model", "artifact", "dataset", "view", "project")
"""What a subject begins with, before the colon. `project:` stands alone, the others have a name; models, artifacts and
datasets may have @VERSION; a config is named by its fingerprint."""
VERSIONED = frozenset({"model", "artifact", "dataset"})


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of change."""

    judge: Callable[[Any], str]
    """Says what `after` has to be, where it is not that; empty where it is."""
    slot: str = ""
    """What it changes, where several kinds change the same; empty for the kind's own."""
    subjects: tuple[str, ...] = SUBJECTS
    admin: bool = False
    """A writer's token is not enough."""
    adds: bool = False
    """It stands beside what was said before, and replaces nothing."""


def _anything(_: Any) -> str:
    return ""


def _text(value: Any) -> str:
    return "" if isinstance(value, str) else "it must be a text"


def _words(value: Any) -> str:
    return "" if isinstance(value, str) and value.strip() else "it must be a text that is not blank"


def _name(value: Any) -> str:
    fits = isinstance(value, str) and value.strip() and len(value.encode()) <= NAME_BYTES
    return "" if fits else f"it must be a text of 1 to {NAME_BYTES} bytes"


def _tags(value: Any) -> str:
    fits = isinstance(value, list) and 0 < len(value) <= TAGS and not any(map(_name, value))
    return "" if fits else f"it must be 1 to {TAGS} texts, each of 1 to {NAME_BYTES} bytes"


def _yes_or_no(value: Any) -> str:
    return "" if isinstance(value, bool) else "it must be true or false"


def _object(value: Any) -> str:
    return "" if isinstance(value, dict) else "it must be an object"


def _exactly(wanted: Any) -> Callable[[Any], str]:
    return lambda value: "" if value is wanted else f"it must be {json.dumps(wanted)}"


FIXED: dict[str, Any] = {"delete": True, "restore": False, "release": None, "view_delete": None}
"""Kinds that can say one thing only."""

KINDS: dict[str, Kind] = {
    "tag_add": Kind(_tags, "tags"),
    "tag_remove": Kind(_tags, "tags"),
    "rename": Kind(_name),
    "notes": Kind(_text),
    "comment": Kind(_words, adds=True),
    "claim": Kind(_text, "claim"),
    "release": Kind(_exactly(None), "claim"),
    "favourite": Kind(_yes_or_no),
    "create": Kind(_anything, adds=True),
    "delete": Kind(_exactly(True), "deleted", admin=True),
    "restore": Kind(_exactly(False), "deleted", admin=True),
    "alias": Kind(_anything),
    "stage": Kind(_anything, admin=True),
    "approve": Kind(_anything, admin=True),
    "decision": Kind(_anything),
    "hypothesis": Kind(_text, subjects=("experiment",)),
    "owner": Kind(_text, subjects=("experiment",)),
    "objective": Kind(experiments.judge_objective, subjects=("experiment",)),
    "budget": Kind(experiments.judge_budget),
    "plan": Kind(experiments.judge_plan, subjects=("experiment",)),
    "depends": Kind(experiments.judge_depends, subjects=("experiment", "run"), adds=True),
    "retention": Kind(_anything, admin=True),
    "view_save": Kind(_object, "view", ("view",)),
    "view_delete": Kind(_exactly(None), "view", ("view",)),
}


def check_change(change: Change) -> None:
    """Raises BadInput, naming field, value and limit, where a change is none."""
    kind = KINDS.get(change.kind)
    if kind is None:
        raise BadInput("change.kind", repr(change.kind[:80]), f"it must be one of {', '.join(KINDS)}")
    _check_subject(change.subject, kind, change.kind)
    for field, text, most in (
        ("reason", change.reason, REASON_BYTES),
        ("before", change.before, VALUE_BYTES),
        ("after", change.after, VALUE_BYTES),
    ):
        if (size := len(text.encode())) > most:
            raise BadInput(f"change.{field}", f"{size} bytes", f"at most {most} are taken")
    if change.kind == "delete" and not change.reason.strip():
        raise BadInput("change.reason", repr(change.reason), "it must say why something is deleted")
    if change.before:
        _value("before", change.before)
    if limit := kind.judge(_value("after", change.after)):
        raise BadInput("change.after", change.after[:80], f"{limit} for {change.kind}")


def _check_subject(subject: str, kind: Kind, name: str) -> None:
    form, colon, rest = subject.partition(":")
    shown = repr(subject[:80])
    if not colon or form not in SUBJECTS:
        raise BadInput("change.subject", shown, f"it must begin with one of {', '.join(f'{x}:' for x in SUBJECTS)}")
    if form not in kind.subjects:
        raise BadInput("change.subject", shown, f"{name} is said of {' or '.join(kind.subjects)}")
    if (form == "project") != (not rest):
        raise BadInput("change.subject", shown, "a name must follow, but after project: none")
    if form in VERSIONED and "@" in rest and not all(rest.rpartition("@")):
        raise BadInput("change.subject", shown, "it must be NAME or NAME@VERSION")
    if (size := len(subject.encode())) > SUBJECT_BYTES or not subject.isprintable():
        raise BadInput("change.subject", f"{size} bytes", f"at most {SUBJECT_BYTES} printable ones are taken")


def _value(field: str, text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"change.{field}", repr(text[:80]), "it must be JSON") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def changes_in(body: bytes) -> Iterator[Change]:
    """The records of a body, each of which must be a change. Raises BadInput where one is damaged or something else."""
    try:
        for element in elements(body):
            record = Record.FromString(body[element.record : element.end - CRC_BYTES])
            if not sound(body, element) or record.WhichOneof("said") != "change":
                raise BadInput("body", f"something else at byte {element.start}", "it must be changes only")
            yield record.change
    except (FramingError, DecodeError) as error:
        raise BadInput("body", str(error), "it must be whole records") from error


def slot(kind: str) -> str:
    """What a kind changes of its subject."""
    known = KINDS.get(kind)
    return (known.slot if known else "") or kind


def adds(kind: str) -> bool:
    """Whether nothing was there before."""
    return kind in KINDS and KINDS[kind].adds


def following(kind: str, before: str, after: str) -> str:
    """What a slot holds after a change: what the change says, but of tags the set of them."""
    if slot(kind) != "tags":
        return after
    had, said = _as_tags(before), _as_tags(after)
    return as_json(sorted(had | said if kind == "tag_add" else had - said))


def _as_tags(text: str) -> set[str]:
    try:
        found = json.loads(text)
    except ValueError:
        return set()
    return {tag for tag in found if isinstance(tag, str)} if isinstance(found, list) else set()


def as_json(value: Any) -> str:
    """A value the one way that it is written: equal values are equal texts. Raises BadInput."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise BadInput("value", type(value).__name__, f"it must be JSON: {error}") from error
