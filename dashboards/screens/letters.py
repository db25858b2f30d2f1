"""Dead letters: records that could not be understood. A table of them, one in full, and what a person does about them.

What happens to a letter is said here, goes through the gateway, and is kept with who, when and why.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from html import escape

import streamlit as st
from parts import address, look, palette, ruling, store
from parts import format as say
from runtide.warehouse import queries
from runtide.warehouse.client import Client

_PAGE = 50
_ALL = "all"
_STATES = (*palette.LETTERS, _ALL)
_NO_RUN = "-"  # how the address names letters of no run, as the command line does
_LINES = 24
_OFFSET_DIGITS = 20  # as many as 64 bits have


@dataclass(frozen=True)
class _Answer:
    projects: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    found: list[queries.Letter] = field(default_factory=list)
    rulings: list[queries.Ruled] = field(default_factory=list)


def _which(*states: str) -> queries.Which:
    run = address.get("run")
    return queries.Which(
        project=address.get("project"),
        run_id="" if run == _NO_RUN else run,
        no_run=run == _NO_RUN,
        states=states,
        text=address.get("find"),
    )


def _one() -> tuple[str, int] | None:
    """Stream and offset of the letter that the address names."""
    stream, colon, offset = address.get("letter").rpartition(":")
    fits = offset.isascii() and offset.isdigit() and len(offset) <= _OFFSET_DIGITS
    return (stream, int(offset)) if colon and stream and fits else None


def _ask(client: Client) -> _Answer:
    if (one := _one()) is not None:
        which = _which()
        key = which.project, which.run_id, one[0], [min(one[1], 2**64 - 1)]
        return _Answer(found=queries.letters_of(client, *key), rulings=queries.rulings_of(client, *key))
    state = address.get("state", "pending")
    states = () if state == _ALL else (state,)
    return _Answer(
        queries.projects(client),
        queries.count_letters(client, _which()),
        queries.found_letters(client, _which(*states), limit=_PAGE, skip=(_page() - 1) * _PAGE),
    )


def _page() -> int:
    return address.whole("page", 1, 10**6) or 1


def _draw(answer: _Answer) -> bool:
    if _one() is None:
        _list(answer)
    else:
        _letter(answer)
    return True


def _list(answer: _Answer) -> None:
    _controls(answer.projects)
    words = " · ".join(f"{answer.counts.get(state, 0):,} {state}" for state in palette.LETTERS)
    run = address.get("run")
    of_run = f" of run `{run}`" if run not in {"", _NO_RUN} else " of no run" if run else ""
    st.caption(f"Dead letters{of_run}: {words}", help="Records that could not be understood; their bytes are kept.")
    if run:
        link = look.link_to_letters("Of all runs", project=address.get("project"))
        st.html(f'<div class="rt-links">{link}</div>')
    pending = answer.counts.get("pending", 0)
    if address.get("state", "pending") in {"pending", _ALL}:
        here = sorted({letter.project for letter in answer.found}) if pending <= len(answer.found) else answer.projects
        ruling.offer(pending, [address.get("project")] if address.get("project") else here, _take_all)
    if not answer.found:
        _nothing(answer)
        return
    heads = [("Received", ""), ("State", ""), ("Project", "rt-later"), ("Run", ""), ("Stream", "rt-later")]
    heads += [("Offset", "n"), ("Kind", "rt-later"), ("Reason", "wrap"), ("Length", "n rt-later")]
    st.html(look.table(heads, map(_row, answer.found), "Dead letters"))
    state = address.get("state", "pending")
    _pages(sum(answer.counts.values()) if state == _ALL else answer.counts.get(state, 0))


def _take_all() -> Sequence[queries.Letter]:
    return queries.found_letters(store.client(), _which("pending"), limit=ruling.MOST)


def _nothing(answer: _Answer) -> None:
    if not answer.counts and not address.get("find"):
        st.success("No dead letters: everything that came was understood.", icon=":material/verified:")
    else:
        st.info("No dead letter matches. Take a word away or choose another state to see more.")


def _controls(projects: list[str]) -> None:
    project, find, state = st.columns([2, 4, 5])
    with project:
        address.one("Project", "project", ["", *projects], "", names={"": "All projects"})
    with find:
        address.text("Find", "find", "Find in reason, kind, stream, host, run")
    with state:
        address.choice("State", "state", _STATES, "pending")


def _row(letter: queries.Letter) -> list[str]:
    where = {"project": letter.project, "run": letter.run_id or _NO_RUN}
    where["letter"] = f"{letter.stream}:{letter.offset}"
    return [
        _moment(letter.received_us),
        look.state_chip(letter.state, letter.why),
        escape(letter.project),
        _run(letter),
        f'<span class="rt-id" title="{escape(letter.stream, quote=True)}">{escape(letter.stream[-10:])}</span>',
        f"{letter.offset:,}",
        escape(letter.kind),
        look.link_to_letters(letter.reason or "no reason", **where),
        say.size(letter.length),
    ]


def _run(letter: queries.Letter) -> str:
    if not letter.run_id:
        return '<span class="rt-dim">none</span>'
    return look.link_to_run(letter.project, letter.run_id, letter.run_id)


def _moment(time_us: int) -> str:
    moment = datetime.fromtimestamp(time_us / 1_000_000, UTC)
    return look.moment(moment, say.ago(moment), say.exact(moment))


def _pages(total: int) -> None:
    last = -(-total // _PAGE)
    if last <= 1:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        for words, to, off in (("Newer", _page() - 1, _page() == 1), ("Older", _page() + 1, _page() >= last)):
            st.button(words, disabled=off, key=words, on_click=partial(address.keep, "page", str(to), "1"))
        st.caption(f"Page {_page()} of {last}")


def _letter(answer: _Answer) -> None:
    which = _which()
    back = {"project": which.project, "run": address.get("run")}
    of_run, everything = (
        look.link_to_letters("Dead letters of this run", **back),
        look.link_to_letters("All dead letters"),
    )
    st.html(f'<div class="rt-links">{of_run} · {everything}</div>')
    if not answer.found:
        st.info("No dead letter is there.", icon=":material/search:")
        return
    (letter,) = answer.found
    chip = look.state_chip(letter.state, letter.why)
    st.html(f'<div class="rt-title"><h1>{escape(letter.reason)}</h1>{chip}</div>')
    st.html(look.facts(_facts(letter)))
    ruling.offer(int(letter.open), [letter.project], lambda: [letter])
    if answer.rulings:
        st.html('<div class="rt-section">What became of it</div>')
        heads = [("When", ""), ("What", ""), ("By", ""), ("Token", "rt-later"), ("Why", "wrap"), ("Refusal", "wrap")]
        st.html(look.table(heads, map(_ruled, answer.rulings), "What became of it"))
    st.html('<div class="rt-section">As far as it can be read</div>')
    read = list(queries.records_in(letter))
    text = json.dumps(read[0] if len(read) == 1 else read, indent=2)
    st.code(text, language="json", height=480 if text.count("\n") > _LINES else "content", wrap_lines=True)
    st.html('<div class="rt-section">Bytes</div>')
    st.code("\n".join(queries.dump(letter.bytes, "`runtide dead-letters show --json` has all")), language=None)


def _facts(letter: queries.Letter) -> list[tuple[str, str]]:
    return [
        ("Received", _moment(letter.received_us)),
        ("Project", escape(letter.project)),
        ("Run", _run(letter)),
        ("Stream", f'<span class="rt-id">{escape(letter.stream)}</span>'),
        ("Offset", f"{letter.offset:,}"),
        ("Length", f'<span title="{letter.length:,} bytes">{say.size(letter.length)}</span>'),
        ("Kind", escape(letter.kind) or '<span class="rt-dim">unknown</span>'),
        ("Rank", str(letter.rank)),
        ("Host", escape(letter.host)),
        ("Attempt", str(letter.attempt)),
    ]


def _ruled(ruled: queries.Ruled) -> list[str]:
    return [
        _moment(ruled.at_us),
        escape(ruled.fate),
        escape(ruled.by),
        escape(ruled.token) or '<span class="rt-dim">none</span>',
        escape(ruled.why),
        escape(ruled.refusal),
    ]


store.live("letters", _ask, _draw)
