"""What a gateway is asked when a person rules on dead letters, without a store: who says it, and what if it is busy."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

import pytest
from runtide.v1.ingest_pb2 import Ack, PushRequest, Refusal
from runtide.warehouse.dead_letters import Letter
from runtide.warehouse.rulings import RULING_BYTES, Word, account, hand_over, rulings
from runtide.wire.errors import BadInput, Busy, NotAllowed, Unavailable
from runtide.wire.limits import RULING_LETTERS


def letter(offset: int, stream: str = "s", project: str = "p", length: int = 10) -> Letter:
    said = ("r", stream, offset, length, "step", "unknown key set", 0, "h", 1, 0, "", 0, "", "", 0, "", "")
    return Letter(project, *said)  # type: ignore[arg-type]


class Gateway:
    """Answers as it is told, then well."""

    def __init__(self, *answers: Exception | Refusal) -> None:
        self.asked: list[PushRequest] = []
        self._answers = list(answers)

    def push(self, request: PushRequest) -> Sequence[Ack]:
        self.asked.append(request)
        answer = self._answers.pop(0) if self._answers else None
        if isinstance(answer, Exception):
            raise answer
        return [Ack(stream=range_.stream, refusal=answer) for range_ in request.ranges]


def test_nothing_is_given_up_without_a_reason() -> None:
    for why in ("", " \n"):
        with pytest.raises(BadInput, match="why they are given up"):
            Word("ann", why, discard=True)
    assert Word("ann").why == ""


def test_a_word_is_said_of_few_enough_letters_of_one_stream() -> None:
    many = [letter(offset) for offset in range(RULING_LETTERS + 1)]
    large = [letter(offset, "large", length=RULING_BYTES // 2 + 1) for offset in (20_000_000, 0)]
    found = list(rulings([*many, *large], Word("ann", "fixed")))
    assert [(range_.stream, len(range_.ruling.offsets)) for range_ in found] == [
        ("s", RULING_LETTERS),
        ("s", 1),
        ("large", 1),
        ("large", 1),
    ]
    assert {(range_.ruling.by, range_.ruling.why, range_.ruling.discard) for range_ in found} == {("ann", "fixed", "")}
    (given_up,) = rulings([letter(0)], Word("ann", "enough", discard=True))
    assert (given_up.ruling.why, given_up.ruling.discard) == ("", "enough")


def test_projects_do_not_travel_together() -> None:
    gateway = Gateway()
    hand_over(list(rulings([letter(0), letter(0, project="q"), letter(5, "t")], Word("ann"))), gateway.push)
    assert [{range_.project for range_ in request.ranges} for request in gateway.asked] == [{"p"}, {"q"}]


def test_a_busy_gateway_is_asked_again_and_one_that_says_no_is_not() -> None:
    ranges = list(rulings([letter(0)], Word("ann")))
    busy = Gateway(Busy("later", 0.001), Unavailable("restarting"))
    hand_over(ranges, busy.push)
    assert len(busy.asked) == 3
    never = Gateway(*[Busy("later", 0.001)] * 100)
    with pytest.raises(Busy):
        hand_over(ranges, never.push)
    refusing = Gateway(NotAllowed("needs admin"))
    with pytest.raises(NotAllowed, match="needs admin"):
        hand_over(ranges, refusing.push)
    assert len(refusing.asked) == 1
    with pytest.raises(BadInput, match=r"ruling.by of stream s is x, but short"):
        hand_over(ranges, Gateway(Refusal(field="ruling.by", value="x", limit="short")).push)


def test_an_account_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert account().endswith(f"@{socket.gethostname()}")
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)
    assert account() == f"uid-{2**31 - 7}@{socket.gethostname()}"
