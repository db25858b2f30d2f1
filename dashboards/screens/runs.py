"""Runs: every run of a project with its state, progress and last values; a name opens the run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

import streamlit as st
from parts import address, look, palette, store
from parts import format as say
from runtide.warehouse import queries
from runtide.warehouse.client import Client
from runtide.wire.states import ENDED

_PAGE = 50


@dataclass(frozen=True)
class _Answer:
    projects: list[str]
    found: list[queries.RunRow]
    counts: dict[str, int]
    total: int
    metrics: list[str]
    values: dict[tuple[str, str], dict[str, float]]
    usual: list[str]


def _ask(client: Client) -> _Answer:
    selection = queries.Selection(
        project=address.get("project") or None,
        text=address.get("find"),
        states=address.words("state"),
    )
    found = queries.runs(client, selection, _PAGE, offset=_offset())
    keys = [(row.project, row.run_id) for row in found]
    usual = queries.usual_metrics(client, keys, 60)
    metrics = address.words("metrics") or usual[:3]
    counts = queries.count_runs(client, queries.Selection(project=selection.project, text=selection.text))
    total = sum(n for state, n in counts.items() if not selection.states or state in selection.states)
    values = queries.last_values(client, keys, metrics)
    return _Answer(queries.projects(client), found, counts, total, metrics, values, usual)


def _offset() -> int:
    return ((address.whole("page", 1, 10**9) or 1) - 1) * _PAGE


def _draw(answer: _Answer) -> bool:
    if not answer.projects:
        look.lesson()
        return True
    _controls(answer)
    words = " · ".join(f"{n} {state}" for state, n in sorted(answer.counts.items(), key=lambda item: -item[1]))
    st.caption(f"{say.count(answer.total)} runs" + (f" — {words}" if words else ""))
    if not answer.found:
        st.info("No run matches. Take a word or a state away to see more.", icon=":material/filter_alt_off:")
        return True
    many = len({row.project for row in answer.found}) > 1
    heads = [("State", ""), ("Run", ""), *([("Project", "rt-later")] if many else []), ("Experiment", "rt-later")]
    heads += [("Step", "n"), *((metric, "n") for metric in answer.metrics)]
    heads += [("Started", ""), ("Duration", "n rt-later"), ("Ranks", "n rt-later"), ("User", "rt-later")]
    st.html(look.table(heads, (_row(row, answer, many) for row in answer.found), "Runs"))
    _pages(answer.total)
    return any(row.state not in ENDED for row in answer.found)


def _row(row: queries.RunRow, answer: _Answer, many: bool) -> list[str]:
    values = answer.values.get((row.project, row.run_id), {})
    name = look.link_to_run(row.project, row.run_id, row.name or row.run_id)
    if row.name:
        name += f' <span class="rt-id">{escape(row.run_id[:32])}</span>'
    cells = [look.state_chip(row.state, row.reason), name, *([escape(row.project)] if many else [])]
    cells += [escape(row.experiment), say.count(row.last_step)]
    cells += [say.number(values.get(metric)) for metric in answer.metrics]
    cells += [
        look.moment(row.started_at, say.ago(row.started_at), say.exact(row.started_at)),
        say.duration(_seconds(row)),
        say.count(row.world_size or None),
        escape(row.user),
    ]
    return cells


def _seconds(row: queries.RunRow) -> float:
    if row.state in ENDED:
        return row.duration_s
    return max((datetime.now(UTC) - row.started_at).total_seconds(), row.duration_s)


def _controls(answer: _Answer) -> None:
    project, find, states, metrics = st.columns([2, 4, 3, 4])
    with project:
        address.one("Project", "project", ["", *answer.projects], "", names={"": "All projects"})
    with find:
        address.text("Find", "find", "Find in name, id, experiment, user, host, tags")
    with states:
        address.several("State", "state", list(palette.STATES), "Any state")
    with metrics:
        options = sorted({*answer.usual, *answer.metrics})
        address.several("Metrics", "metrics", options, "Metrics: " + ", ".join(answer.metrics))


def _pages(total: int) -> None:
    if total <= _PAGE:
        return
    now, last = _offset() // _PAGE + 1, -(-total // _PAGE)
    before, where, after, _ = st.columns([1, 2, 1, 8])
    if before.button("Newer", disabled=now == 1, key="newer"):
        address.keep("page", str(now - 1), "1")
        st.rerun()
    where.caption(f"Page {now} of {last}")
    if after.button("Older", disabled=now >= last, key="older"):
        address.keep("page", str(now + 1), "1")
        st.rerun()


store.live("runs", _ask, _draw)
