"""Small pieces of every page: style sheet, state chips, facts in a row, the word that the store is away, lessons."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import urlencode

import streamlit as st
from runtide.warehouse.client import ClickHouseSettings

from parts import format as say
from parts import palette

_STYLE = """
<style>
.block-container, [data-testid="stMainBlockContainer"] {padding: 4.2rem 1.5rem 2rem; max-width: 1800px}
[data-stale="true"] {opacity: 1 !important; transition: none !important}
[data-testid="stHeader"] {height: 3rem}
.rt-chip {display: inline-flex; gap: .35em; align-items: center; padding: .05em .6em .1em .5em; border-radius: 1em;
  font-size: .8rem; font-weight: 600; white-space: nowrap; color: inherit;
  border: 1px solid color-mix(in srgb, var(--c) 60%, transparent);
  background: color-mix(in srgb, var(--c) 16%, transparent)}
.rt-chip i {font-style: normal; color: color-mix(in srgb, var(--c) 75%, currentColor);
  font-size: .75rem; min-width: .9em; text-align: center}
.rt-wide {overflow-x: auto}
.rt-table {width: 100%; border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums}
.rt-table th {text-align: left; font-weight: 500; opacity: .65; font-size: .76rem;
  padding: .3rem .6rem; white-space: nowrap; border-bottom: 1px solid color-mix(in srgb, currentColor 25%, transparent)}
.rt-table td {padding: .34rem .6rem; white-space: nowrap; max-width: 22rem; overflow: hidden; text-overflow: ellipsis;
  border-bottom: 1px solid color-mix(in srgb, currentColor 9%, transparent)}
.rt-table tbody tr:hover td {background: color-mix(in srgb, #0072B2 9%, transparent)}
.rt-table .n {text-align: right}
.rt-table td a {color: inherit; text-decoration: none; font-weight: 600}
.rt-table td a:hover, .rt-table td a:focus-visible {text-decoration: underline}
.rt-facts a, .rt-links a {color: inherit}
.rt-links {font-size: .86rem}
.rt-table .wrap {white-space: normal; overflow-wrap: anywhere; max-width: none}
.rt-dim {opacity: .65}
.rt-id {opacity: .6; font-size: .76rem; font-family: monospace; font-weight: 400}
.rt-facts {display: flex; flex-wrap: wrap; gap: .35rem 1.8rem; align-items: baseline; margin: .1rem 0 .2rem}
.rt-facts div {display: flex; flex-direction: column}
.rt-facts small {opacity: .65; font-size: .74rem}
.rt-facts b {font-weight: 600; font-size: 1rem; font-variant-numeric: tabular-nums}
.rt-title {display: flex; flex-wrap: wrap; gap: .3rem .8rem; align-items: center; margin-bottom: .3rem}
.rt-title h1 {font-size: 1.5rem; padding: 0; margin: 0; overflow-wrap: anywhere}
.rt-section {font-size: .95rem; font-weight: 600; margin: .5rem 0 0;
  border-bottom: 1px solid color-mix(in srgb, currentColor 14%, transparent)}
.rt-chart {display: flex; margin-bottom: -.8rem; justify-content: space-between; gap: .6rem;
  font-size: .84rem; font-weight: 600; font-variant-numeric: tabular-nums}
.rt-chart span:first-child {overflow: hidden; text-overflow: ellipsis; white-space: nowrap}
.rt-chart .bad {color: #D55E00}
.rt-log {font: .78rem/1.45 ui-monospace, monospace; max-height: 65vh; overflow: auto; display: flex;
  flex-direction: column-reverse; border-radius: 6px; padding: .5rem .7rem;
  border: 1px solid color-mix(in srgb, currentColor 14%, transparent)}
.rt-log div {white-space: pre-wrap; overflow-wrap: anywhere}
.rt-log .err {box-shadow: inset 3px 0 #D55E00; padding-left: .5em}
.rt-log span {opacity: .55; margin-right: .8em}
@media (max-width: 700px) {
  .block-container, [data-testid="stMainBlockContainer"] {padding: 4rem .7rem 1.5rem}
  .rt-later, [data-testid="stColumn"]:not(:has([data-testid="stElementContainer"])) {display: none}
  .rt-facts {gap: .3rem 1.1rem}
  .rt-table td, .rt-table th {padding: .3rem .4rem}
  .rt-table td {max-width: 11rem}
}
</style>
"""


def style() -> None:
    """Put the style sheet into the page."""
    st.html(_STYLE)


def state_chip(state: str, reason: str = "") -> str:
    """The state of a run, or of a dead letter, by sign, word and colour."""
    shown = palette.STATES.get(state) or palette.LETTERS.get(state, palette.UNKNOWN)
    title = escape(reason or shown.meaning, quote=True)
    word = escape(state or "unknown")
    return f'<span class="rt-chip" style="--c:{shown.colour}" title="{title}"><i>{shown.sign}</i>{word}</span>'


def moment(time_: object, text: str, title: str) -> str:
    """A relative time with the exact one on hover."""
    return escape(text) if time_ is None else f'<span title="{escape(title, quote=True)}">{escape(text)}</span>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Small facts in a row; values are HTML."""
    return (
        '<div class="rt-facts">'
        + "".join(f"<div><small>{escape(k)}</small><b>{v}</b></div>" for k, v in pairs)
        + "</div>"
    )


def table(heads: Sequence[tuple[str, str]], body: Iterable[Sequence[str]], label: str) -> str:
    """A table of HTML cells; a head is its words and its class (n: number, rt-later: left out on a narrow screen)."""
    top = "".join(f'<th class="{css}" scope="col">{escape(words)}</th>' for words, css in heads)
    lines = "".join(
        "<tr>" + "".join(f'<td class="{css}">{cell}</td>' for (_, css), cell in zip(heads, row, strict=True)) + "</tr>"
        for row in body
    )
    return (
        f'<div class="rt-wide"><table class="rt-table" aria-label="{escape(label, quote=True)}">'
        f"<thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def link_to_letters(words: str, **where: str) -> str:
    """An anchor that opens dead letters."""
    return f'<a href="letters?{escape(urlencode(where), quote=True)}">{escape(words)}</a>'


def link_to_run(project: str, run_id: str, words: str) -> str:
    """An anchor that opens a run, relative so that the app may live under a path."""
    query = urlencode({"project": project, "run": run_id})
    return f'<a href="run?{escape(query, quote=True)}">{escape(words)}</a>'


def away(where: ClickHouseSettings, error: Exception, seen_at: float | None) -> None:
    """Say that the store does not answer, what it said, and what to do."""
    scheme = "https" if where.secure else "http"
    age = "" if seen_at is None else f" What is shown below is **as of {say.duration(time.time() - seen_at)} ago**."
    st.error(
        f"**ClickHouse at {scheme}://{where.host}:{where.port} does not answer.** Is `runtide up` running? "
        f"`runtide status` tells. This page goes on by itself when it is back.{age}",
        icon=":material/cloud_off:",
    )
    said = " ".join(str(error).split())
    st.caption(f"{type(error).__name__}: {said[:300]}")


def refused(said: str) -> None:
    """Say that the store answers, but not this question, and why."""
    st.error(f"**ClickHouse does not answer this question.** {said}", icon=":material/error:")


def lesson() -> None:
    """How to log a first run, with the right address."""
    url = os.environ.get("RUNTIDE_PUBLIC_URL", "grpc://127.0.0.1:7171")
    st.markdown("#### No runs yet")
    st.markdown("Run this anywhere that reaches this machine; the page shows it within a second.")
    st.code(
        f"""import math, random, time
import runtide

run = runtide.init(project="tour", name="first", config={{"lr": 3e-4}}, url="{url}")
for step in range(200):
    loss = math.exp(-step / 60) + random.random() / 20
    run.log({{"train/loss": loss, "train/acc": 1 - loss}}, step=step)
    time.sleep(0.1)
run.finish()""",
        language="python",
    )
    st.markdown("Or let a real model train in front of you: `runtide demo`")
