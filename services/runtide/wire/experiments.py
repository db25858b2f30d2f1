"""What is said of an experiment, objective, plan, budget, dependencies, as people write it and as JSON. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from runtide.wire.errors import BadInput
from runtide.wire.limits import NAME_BYTES

GOALS = ("max", "min")
UNITS = ("gpu-hours", "hours")
"""Units of a budget beside currencies: hours of devices, hours of processes."""
CURRENCY = re.compile(r"[A-Z]{3}")
DATES = ("from", "to", "deadline")
NEEDS = ("data", "model", "order")
"""Why one thing waits for another: it takes its data, its model, or only has to come after it."""
DECISIONS = ("accepted", "rejected", "postponed")

Said = dict[str, Any]


def parse_objective(text: str) -> Said:
    """`METRIC max|min TARGET`, for example `val/acc max 0.95`. Raises BadInput."""
    limit = "it must be METRIC max|min TARGET, for example 'val/acc max 0.95'"
    metric, goal, target = _words(text, 3) or ("", "", "")
    found: Said = {"metric": metric, "goal": goal, "target": _number(target)}
    if problem := judge_objective(found):
        raise BadInput("objective", repr(text), f"{limit}: {problem}")
    return found


def judge_objective(value: Any) -> str:
    """What is wrong with an objective; empty where nothing is."""
    if not _has(value, "metric", "goal", "target"):
        return "it must be an object with metric, goal and target"
    if not _is_name(value["metric"]):
        return f"metric must be a text of 1 to {NAME_BYTES} bytes"
    if value["goal"] not in GOALS:
        return "goal must be max or min"
    return "" if _finite(value["target"]) else "target must be a finite number"


def parse_budget(text: str) -> Said:
    """`NUMBER UNIT`, for example `200 gpu-hours` or `500 EUR`. Raises BadInput."""
    limit = "it must be NUMBER gpu-hours|hours|CURRENCY, for example '200 gpu-hours' or '500 EUR'"
    amount, unit = _words(text, 2) or ("", "")
    found: Said = {"amount": _number(amount), "unit": unit}
    if problem := judge_budget(found):
        raise BadInput("budget", repr(text), f"{limit}: {problem}")
    return found


def judge_budget(value: Any) -> str:
    """What is wrong with a budget; empty where nothing is."""
    if not _has(value, "amount", "unit"):
        return "it must be an object with amount and unit"
    if not _finite(value["amount"]) or value["amount"] <= 0:
        return "the amount must be a finite number above 0"
    unit = value["unit"]
    fits = isinstance(unit, str) and (unit in UNITS or CURRENCY.fullmatch(unit))
    return "" if fits else "the unit must be gpu-hours, hours or a currency of three capital letters"


def parse_plan(told: Mapping[str, str | None]) -> Said:
    """Dates as ISO 8601, YYYY-MM-DD; those that are None are not planned. Raises BadInput naming the one."""
    found = {name: text for name, text in told.items() if text is not None}
    for name, text in found.items():
        if _date(text) is None:
            raise BadInput(f"--{name}", repr(text), "it must be a date, YYYY-MM-DD, from 1970 to 2148")
    if problem := judge_plan(found):
        raise BadInput("plan", repr(found), problem)
    return found


def judge_plan(value: Any) -> str:
    """What is wrong with a plan; empty where nothing is."""
    if not isinstance(value, dict) or set(value) - set(DATES):
        return f"it must be an object with none but {', '.join(DATES)}"
    dates = {name: _date(text) for name, text in value.items()}
    if None in dates.values():
        return "each must be a date, YYYY-MM-DD, from 1970 to 2148"
    begin, end = dates.get("from"), dates.get("to")
    return "to must not lie before from" if begin and end and end < begin else ""


def judge_depends(value: Any) -> str:
    """What is wrong with a dependency; empty where nothing is."""
    if not _has(value, "on", "needs"):
        return "it must be an object with on and needs"
    form, _, name = value["on"].partition(":") if isinstance(value["on"], str) else ("", "", "")
    if form not in ("experiment", "run") or not name.strip():
        return "on must be experiment:NAME or run:ID"
    if value["needs"] not in NEEDS:
        return f"needs must be one of {', '.join(NEEDS)}"
    if not isinstance(value.get("why", ""), str) or not isinstance(value.get("removed", False), bool):
        return "why must be a text, and removed true or false"
    return ""


def _has(value: Any, *names: str) -> bool:
    return isinstance(value, dict) and all(name in value for name in names)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value.encode()) <= NAME_BYTES


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _words(text: str, number: int) -> list[str] | None:
    """The last words are told apart first, since a metric may have blanks in its name."""
    found = text.strip().rsplit(maxsplit=number - 1)
    return found if len(found) == number else None


def _date(text: Any) -> date | None:
    """A date that ClickHouse's type Date can hold."""
    try:
        found = date.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return found if found and found.isoformat() == text and 1970 <= found.year <= 2148 else None
