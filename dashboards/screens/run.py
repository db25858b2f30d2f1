"""Run: one run while it runs. What it is and how it does, and one of five views of it.

Only the view that is open is asked for, in one round of queries for each refresh.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from typing import Any

import streamlit as st
from parts import address, look, store, views
from parts import format as say
from runtide.warehouse import queries
from runtide.warehouse.client import Client
from runtide.wire.states import ENDED

_VIEWS = {
    "Charts": (views.ask_charts, views.charts),
    "Resources": (views.ask_resources, views.resources),
    "Logs": (views.ask_logs, views.logs),
    "Configuration": (views.ask_nothing, views.configuration),
    "Streams": (views.ask_nothing, views.streams),
}


@dataclass(frozen=True)
class _Answer:
    run: queries.RunRow | None
    streams: list[queries.StreamRow] = field(default_factory=list)
    view: str = ""
    content: Any = None
    version: tuple[object, ...] = ()
    letters: dict[str, int] = field(default_factory=dict)


def _ask(client: Client) -> _Answer:
    project, run_id = _which(client)
    if not run_id:
        return _Answer(None, content=next(iter(queries.runs(client, queries.Selection(), 1)), None))
    row = queries.run(client, project, run_id)
    if row is None:
        return _Answer(None)
    view = address.get("view", "Charts")
    view = view if view in _VIEWS else "Charts"
    version: tuple[object, ...] = ()
    letters = queries.count_letters(client, queries.Which(project, run_id))
    if row.state in ENDED:  # then nothing is asked for again before something new is known
        version = (address.question(), *sorted(letters.items()), *queries.content_version(client, project, run_id))
        before: _Answer | None = st.session_state.get("answer:run")
        if before is not None and before.version == version:
            return before
    found = queries.streams(client, project, run_id)
    answer = _Answer(row, found, view, _VIEWS[view][0](client, row), version, letters)
    st.session_state["answer:run"] = answer
    return answer


def _which(client: Client) -> tuple[str, str]:
    """The run that the address names; its project may be left out where the id says enough."""
    project, run_id = address.get("project"), address.get("run")
    if run_id and not project:
        same = [row for row in queries.runs(client, queries.Selection(text=run_id), 20) if row.run_id == run_id]
        project = same[0].project if same else ""
    return project, run_id


def _draw(answer: _Answer) -> bool:
    if answer.run is None:
        return _nothing(answer.content)
    _header(answer.run, answer.streams, answer.letters)
    view = address.choice("View", "view", list(_VIEWS), "Charts")
    if view == answer.view:
        _VIEWS[view][1](answer.run, answer.content, answer.streams)
    return answer.run.state not in ENDED


def _nothing(newest: queries.RunRow | None) -> bool:
    if address.get("run"):
        st.info(
            f"Nothing is known yet of a run `{address.get('run')}`"
            + (f" in project `{address.get('project')}`." if address.get("project") else ".")
            + " If it has just begun, it shows here within a second. All runs are on the page Runs.",
            icon=":material/search:",
        )
    else:
        st.info("The address names no run. Open one on the page Runs.", icon=":material/table_rows:")
        if newest is None:
            look.lesson()
        else:
            link = look.link_to_run(newest.project, newest.run_id, newest.name or newest.run_id)
            st.html(f'<div class="rt-links">The newest is {link}</div>')
    return True


def _header(row: queries.RunRow, found: list[queries.StreamRow], letters: dict[str, int]) -> None:
    name = escape(row.name or row.run_id)
    ident = f'<span class="rt-id">{escape(row.project)} / {escape(row.run_id)}</span>'
    tags = " ".join(f'<span class="rt-chip" style="--c:#8C8C8C">{escape(tag)}</span>' for tag in row.tags)
    why = f'<span class="rt-dim">{escape(row.reason)}</span>' if row.reason and row.state != "running" else ""
    st.html(f'<div class="rt-title"><h1>{name}</h1>{look.state_chip(row.state, row.reason)}{ident}{tags}{why}</div>')
    ended = row.state in ENDED
    now = datetime.now(UTC)
    heard = max([stream.received_at for stream in found], default=row.heartbeat_at)
    pairs = [
        ("Duration", say.duration(row.duration_s if ended else max((now - row.started_at).total_seconds(), 0))),
        ("Last step", say.count(row.last_step)),
        ("Ranks", _ranks(row, found)),
        ("Started", look.moment(row.started_at, say.ago(row.started_at, now), say.exact(row.started_at))),
        ("Ended" if ended else "As of", _as_of(row, heard, now) if not ended else look.moment(
            row.finished_at, say.ago(row.finished_at, now), say.exact(row.finished_at))),
    ]  # fmt: skip
    if row.attempt > 1:
        pairs.append(("Attempt", str(row.attempt)))
    if row.exit_code is not None:
        pairs.append(("Exit code", str(row.exit_code)))
    if letters:
        words = ", ".join(f"{number:,} {state}" for state, number in sorted(letters.items()))
        where = {"project": row.project, "run": row.run_id, "state": "pending" if "pending" in letters else "all"}
        pairs.append(("Dead letters", look.link_to_letters(words, **where)))
    pairs += [(label, escape(value)) for label, value in _who(row) if value]
    st.html(look.facts(pairs))


def _who(row: queries.RunRow) -> list[tuple[str, str]]:
    return [
        ("Experiment", row.experiment),
        ("User", row.user),
        ("Host", row.host),
        ("Commit", row.git_commit[:10]),
    ]


def _ranks(row: queries.RunRow, found: list[queries.StreamRow]) -> str:
    mine = [stream for stream in found if stream.role == "rank" and stream.attempt == row.attempt]
    if row.state in ENDED or not mine:
        return say.count(row.world_size or len(mine))
    open_ = len({stream.rank for stream in mine if stream.closed_at is None})
    return f"{open_} of {max(row.world_size, len({stream.rank for stream in mine}))}"


def _as_of(row: queries.RunRow, heard: datetime, now: datetime) -> str:
    del row
    return look.moment(heard, say.ago(heard, now), say.exact(heard))


store.live("run", _ask, _draw)
