"""The connection to ClickHouse, and pages that go on when it is away.

Settings come from the environment: RUNTIDE_CLICKHOUSE_HOST, _PORT, _USERNAME, _PASSWORD, _DATABASE, _SECURE,
_CA_FILE, _CERT_FILE, _KEY_FILE.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Generic, TypeVar

import streamlit as st
from clickhouse_connect.driver.exceptions import ClickHouseError
from runtide.warehouse.client import ClickHouseSettings, Client, connect, keep_to
from runtide.warehouse.errors import StoreBusy, StoreError, StoreMisconfigured, classified, plain

from parts import address, gate, look

Answer = TypeVar("Answer")

QUICK_S = 1.0
SLOW_S = 10.0
_SHARE = 4
"""A refresh may take a quarter of the time; where the last few took more the next one waits longer."""
_LAST = 7


def settings() -> ClickHouseSettings:
    """Where the store is."""
    env = os.environ.get
    return ClickHouseSettings(
        host=env("RUNTIDE_CLICKHOUSE_HOST", "127.0.0.1"),
        port=int(env("RUNTIDE_CLICKHOUSE_PORT", "8123")),
        username=env("RUNTIDE_CLICKHOUSE_USERNAME", "default"),
        password=env("RUNTIDE_CLICKHOUSE_PASSWORD", ""),
        database=env("RUNTIDE_CLICKHOUSE_DATABASE", "runtide"),
        secure=env("RUNTIDE_CLICKHOUSE_SECURE", "").lower() in {"1", "true", "yes"},
        ca_file=env("RUNTIDE_CLICKHOUSE_CA_FILE", ""),
        cert_file=env("RUNTIDE_CLICKHOUSE_CERT_FILE", ""),
        key_file=env("RUNTIDE_CLICKHOUSE_KEY_FILE", ""),
        answer_timeout_s=20.0,
    )


@dataclass(frozen=True)
class Seen(Generic[Answer]):
    """The last answer, and when it came."""

    answer: Answer
    at: float
    question: str


def live(name: str, ask: Callable[[Client], Answer], draw: Callable[[Answer], bool]) -> None:
    """Ask and draw, now and again while the page is open; `draw` says whether something still moves.

    With the store away the last answer to the same question stays, with its age and the error above it.
    """
    slot, pace = f"seen:{name}", f"pace:{name}"
    every = st.session_state.setdefault(pace, QUICK_S)

    @st.fragment(run_every=every)
    def turn() -> None:
        began = time.monotonic()
        question = address.question()
        banner = st.empty()
        try:
            seen = Seen(ask(_client(gate.enter())), time.time(), question)
            st.session_state[slot] = seen
        except (ClickHouseError, StoreError, OSError) as error:
            meant = error if isinstance(error, StoreError) else classified(error)
            away = isinstance(meant, StoreBusy) and meant.clickhouse_code == 0
            if away or isinstance(meant, StoreMisconfigured):
                _client.clear()
            seen = st.session_state.get(slot)
            if seen is not None and seen.question != question:
                seen = None
            with banner.container():
                if away:
                    look.away(settings(), error, None if seen is None else seen.at)
                else:
                    look.refused(plain(str(meant)))
        moving = True
        if seen is not None:
            moving = draw(seen.answer)
        wanted = _pace(name, moving, time.monotonic() - began)
        if wanted != every:
            st.session_state[pace] = wanted
            st.rerun()

    turn()


def _pace(name: str, moving: bool, cost_s: float) -> float:
    """Seconds between refreshes: one while something moves, more where the last few took long."""
    costs: list[float] = st.session_state.setdefault(f"costs:{name}", [])
    costs.append(cost_s)
    del costs[:-_LAST]
    if not moving:
        return SLOW_S
    usual = median(costs) if len(costs) == _LAST else 0.0
    return next((pace for pace in (QUICK_S, 2.0, 5.0) if usual * _SHARE <= pace), SLOW_S)


def client() -> Client:
    """The one that may show the visitor what a page asks for between two refreshes."""
    return _client(gate.enter())


@st.cache_resource(show_spinner=False)
def _client(project: str) -> Client:
    """One for all sessions of a project, or of none: it keeps no session and may be used from many threads."""
    client = connect(settings())
    if project:
        keep_to(client, project)
    return client
