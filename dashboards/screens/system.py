"""System: what the canary says of the way from log() to rows, with an honest word where none runs."""

from __future__ import annotations

import streamlit as st
from parts import format as say
from parts import look, store
from runtide.warehouse import queries
from runtide.warehouse.client import Client


def _ask(client: Client) -> queries.Canary | None:
    return queries.canary(client)


def _draw(found: queries.Canary | None) -> bool:
    st.markdown('<div class="rt-section">Canary</div>', unsafe_allow_html=True)
    if found is None:
        st.info(
            "**No canary has been heard for a day**, so nothing is known here of delay and loss. `runtide up --canary` "
            "or `runtide canary` logs a small run for ever and watches it arrive.",
            icon=":material/help:",
        )
        return False
    if found.trouble:
        st.error(f"**The canary: {found.trouble}.**", icon=":material/error:")
    declared = found.gaps + found.dead
    pairs = [
        ("Delay now", say.delay(found.delay_s)),
        ("Delay, median of the last hour", say.delay(found.delay_hour_s)),
        ("Agreement", "yes" if found.agrees else "NO"),
        ("Last beat", look.moment(found.last_at, say.duration(found.age_s) + " ago", say.exact(found.last_at))),
        ("Points logged in a day", say.count(found.logged)),
        ("Stored", say.count(found.stored)),
        ("Neither stored nor declared", say.count(found.lost)),
        ("Stored more than once", say.count(found.duplicates)),
        ("Records declared as lost", say.count(declared)),
    ]
    st.html(look.facts(pairs))
    st.caption(
        "Delay is from log() until the rows can be queried. Agreement is yes while every point that the canary logged "
        f"is stored once or declared as lost. A beat is due every {found.interval_s:g} s."
    )
    return True


store.live("system", _ask, _draw)
