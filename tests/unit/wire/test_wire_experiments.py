"""What people write of an experiment: understood, or refused naming field, value and limit."""

from __future__ import annotations

from typing import Any

import pytest
from runtide.v1.records_pb2 import Change
from runtide.wire.changes import as_json, check_change
from runtide.wire.errors import BadInput
from runtide.wire.experiments import parse_budget, parse_objective, parse_plan


def test_objectives() -> None:
    assert parse_objective(" val/acc max 0.95 ") == {"metric": "val/acc", "goal": "max", "target": 0.95}
    assert parse_objective("val loss min -1e-3") == {"metric": "val loss", "goal": "min", "target": -0.001}


@pytest.mark.parametrize("text", ["", "val/acc", "val/acc max", "max 0.95", "a up 1", "a max high", "a max nan"])
def test_what_is_no_objective(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_objective(text)
    assert caught.value.field == "objective"
    assert repr(text) in str(caught.value)
    assert "METRIC max|min TARGET" in caught.value.limit


def test_budgets() -> None:
    assert parse_budget("200 gpu-hours") == {"amount": 200, "unit": "gpu-hours"}
    assert parse_budget("0.5 hours") == {"amount": 0.5, "unit": "hours"}
    assert parse_budget("500 EUR") == {"amount": 500, "unit": "EUR"}


@pytest.mark.parametrize("text", ["", "200", "EUR 500", "0 EUR", "-1 hours", "inf hours", "5 eur", "5 days", "1 2 EUR"])
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(BadInput, match="NUMBER gpu-hours"):
        parse_budget(text)


def test_plans() -> None:
    assert parse_plan({"from": "2026-01-01", "to": None}) == {"from": "2026-01-01"}
    assert parse_plan({"from": None}) == {}


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-13-01", "20260101", "1969-12-31", "2149-01-01", "2026-W01-1"])
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_plan({"deadline": text})
    assert (caught.value.field, caught.value.value) == ("--deadline", repr(text))


def test_a_plan_does_not_end_before_it_begins() -> None:
    with pytest.raises(BadInput, match="to must not lie before from"):
        parse_plan({"from": "2026-02-01", "to": "2026-01-01"})


@pytest.mark.parametrize(
    ("kind", "after"),
    [
        ("objective", {"metric": "a", "goal": "max"}),
        ("objective", {"metric": "a", "goal": "max", "target": True}),
        ("budget", {"amount": "200", "unit": "hours"}),
        ("plan", {"until": "2026-01-01"}),
        ("plan", {"from": None}),
        ("depends", {"on": "model:m", "needs": "model"}),
        ("depends", {"on": "run:", "needs": "order"}),
        ("depends", {"on": "run:x", "needs": "luck"}),
        ("depends", {"on": "run:x", "needs": "order", "removed": 1}),
        ("owner", 7),
    ],
)
def test_a_gateway_takes_none_that_views_could_not_read(kind: str, after: Any) -> None:
    with pytest.raises(BadInput) as caught:
        check_change(Change(subject="experiment:x", kind=kind, after=as_json(after)))
    assert caught.value.field == "change.after"


def test_an_objective_is_an_experiments() -> None:
    after = as_json({"metric": "a", "goal": "max", "target": 1})
    with pytest.raises(BadInput, match="objective is said of experiment"):
        check_change(Change(subject="run:x", kind="objective", after=after))
