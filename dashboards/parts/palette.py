"""Colours that colour-blind people can tell apart (Okabe and Ito), and the look of each run state."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import streamlit as st

BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, YELLOW, GREY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#8C8C8C",
)  # fmt: skip
SERIES = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
"""Without yellow, which cannot be seen on white."""


_ON_BLACK = {BLUE: "#3FA7E8", VERMILION: "#F2803A", GREEN: "#2CC596"}
"""The dark ones, lighter, where the page is dark."""


def seen(colour: str) -> str:
    """The colour as it is drawn on the page's background."""
    return _ON_BLACK.get(colour, colour) if st.context.theme.type == "dark" else colour


def of_name(name: str) -> str:
    """The same colour for the same name, on every page."""
    return seen(SERIES[zlib.crc32(name.encode()) % len(SERIES)])


def of_rank(rank: int) -> str:
    """The same colour for the same rank."""
    return seen(SERIES[rank % len(SERIES)])


@dataclass(frozen=True)
class StateLook:
    """A colour, a sign that says the same without colour, and what the state means."""

    colour: str
    sign: str
    meaning: str


STATES = {
    "running": StateLook(BLUE, "▶", "Its processes live and log"),
    "degraded": StateLook(ORANGE, "◐", "Some ranks are silent or dead while others go on"),
    "stalled": StateLook(ORANGE, "⏸", "Its processes live but no step has come for a long time"),
    "preempted": StateLook(PURPLE, "⏏", "Told to stop by the scheduler; it may come back"),
    "crashed": StateLook(VERMILION, "✖", "A process died without a last word, or all are silent"),
    "failed": StateLook(VERMILION, "!", "It ended with an exception or an exit code other than 0"),
    "finished": StateLook(GREEN, "✔", "It ended well"),
}
LETTERS = {
    "pending": StateLook(VERMILION, "✉", "Not understood, and nothing has become of it yet"),
    "replayed": StateLook(GREEN, "✔", "Understood later, and stored in its place"),
    "discarded": StateLook(GREY, "✖", "Given up by somebody: a declared loss"),
}
UNKNOWN = StateLook(GREY, "?", "Nothing is known of its state")
