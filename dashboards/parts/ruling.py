"""Replay and Discard: two buttons, a question before anything happens, and what came of it.

What is ruled on is what was there when the button was pressed: a letter that comes in meanwhile is not among it. Where
the visitor may not, the buttons are off and the reason stands below.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import streamlit as st
from clickhouse_connect.driver.exceptions import ClickHouseError
from runtide.warehouse import queries
from runtide.warehouse.rulings import Outcome, Word, rule
from runtide.wire.errors import RuntideError

from parts import address, gate, gateway, store

MOST = 1000
"""Letters that one press of a button is about."""
_WAIT_S = 20.0
_REASON_CHARACTERS = 250
"""In UTF-8 never more than the gateway takes."""
_ASKED, _TOLD = "ruling:asked", "ruling:told"


@dataclass(frozen=True)
class _Asked:
    """A button was pressed, and the question is open."""

    question: str
    discard: bool
    letters: Sequence[queries.Letter]


@dataclass(frozen=True)
class _Told:
    """What came of it, for the page on which it was asked."""

    question: str
    lines: Sequence[str]
    good: bool


def offer(count: int, projects: Sequence[str], take: Callable[[], Sequence[queries.Letter]]) -> None:
    """Buttons for `count` open letters of these projects; `take` finds them when one is pressed."""
    _tell()
    asked: _Asked | None = st.session_state.get(_ASKED)
    if asked is not None and asked.question == address.question():
        _confirm(asked)
        return
    if not count:
        return
    why_not = gateway.access(gate.token()).why_not(projects)
    some = "" if count == 1 else f" {min(count, MOST):,}"
    with st.container(horizontal=True):
        for words, discard in ((f"Replay{some}", False), (f"Discard{some}", True)):
            if st.button(words, key=f"ruling:{discard}", disabled=bool(why_not)):
                st.session_state.pop(_TOLD, None)
                st.session_state[_ASKED] = _Asked(address.question(), discard, list(take()))
                st.rerun()
    if why_not:
        st.caption(f":material/lock: {why_not}")


def _confirm(asked: _Asked) -> None:
    number = len(asked.letters)
    letters = "this dead letter" if number == 1 else f"{number:,} dead letters"
    with st.form("ruling", width=640):
        if asked.discard:
            st.markdown(f"**Discard {letters} for good?** A declared loss from then on; the bytes are kept.")
        else:
            st.markdown(f"**Replay {letters}?** What is understood now is stored in its place, once.")
        label = "Reason" if asked.discard else "Reason (may stay empty)"
        why = st.text_input(label, key="ruling:why", max_chars=_REASON_CHARACTERS)
        with st.container(horizontal=True):
            yes = st.form_submit_button("Discard for good" if asked.discard else "Replay now", type="primary")
            no = st.form_submit_button("Cancel")
    if yes and asked.discard and not why.strip():
        st.error("Say why: it is kept, and `runtide verify` tells it.")
    elif yes:
        with st.spinner("The sink is asked ..."):
            st.session_state[_TOLD] = _carry_out(asked, why.strip())
    if no or (yes and (why.strip() or not asked.discard)):
        del st.session_state[_ASKED]
        st.rerun()


def _carry_out(asked: _Asked, why: str) -> _Told:
    word = Word(gate.visitor(), why, asked.discard)
    try:
        outcomes = rule(store.client(), asked.letters, word, gateway.pushing(gate.token()), _WAIT_S)
    except (RuntideError, ClickHouseError, OSError) as error:
        return _Told(asked.question, [f"Nothing is known to have changed: {error}"], good=False)
    return _Told(asked.question, _lines(outcomes), all(outcome.done for outcome in outcomes))


def _lines(outcomes: Sequence[Outcome]) -> list[str]:
    counted = Counter((outcome.fate, outcome.reason) for outcome in outcomes)
    return [
        f"{number:,} {fate}" + (f": {reason}" if reason else "") for (fate, reason), number in counted.most_common(10)
    ] or ["Nothing was left to do: they are no open dead letters any more."]


def _tell() -> None:
    told: _Told | None = st.session_state.get(_TOLD)
    if told is not None and told.question == address.question():
        (st.success if told.good else st.warning)("  \n".join(told.lines))
