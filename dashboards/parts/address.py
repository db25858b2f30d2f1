"""The address holds the state: controls that begin with a query parameter and write it when they are changed.

They write it in a callback, so whoever asks the store in the same turn already sees the new value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st


def get(name: str, default: str = "") -> str:
    """A query parameter."""
    return str(st.query_params.get(name, default))


def whole(name: str, least: int = -(2**63), most: int = 2**63 - 1) -> int | None:
    """A query parameter that holds a whole number; None where it holds none, or one out of bounds."""
    try:
        found = int(get(name))
    except ValueError:
        return None
    return found if least <= found <= most else None


def words(name: str) -> list[str]:
    """A query parameter that holds several values."""
    return [word for word in get(name).split(",") if word]


def question() -> str:
    """The whole address as one text: the same text asks for the same thing."""
    return str(sorted(st.query_params.to_dict().items()))


def keep(name: str, value: str, default: str = "") -> None:
    """Write a query parameter, or take it away where it says nothing more than its default."""
    if value == default:
        if name in st.query_params:
            del st.query_params[name]
    elif get(name) != value:
        st.query_params[name] = value


def choice(label: str, name: str, options: Sequence[str], default: str) -> str:
    """One of a few."""
    key = f"address:{name}"
    if st.session_state.get(key) not in options:
        asked = get(name, default)
        st.session_state[key] = asked if asked in options else default

    def changed() -> None:
        keep(name, st.session_state[key] or default, default)

    picked = st.segmented_control(label, options, key=key, label_visibility="collapsed", on_change=changed)
    return str(picked) if picked else default


def one(label: str, name: str, options: Sequence[str], default: str, names: Mapping[str, str]) -> str:
    """One of many; `names` says what to show for an option."""
    key = f"address:{name}"
    if st.session_state.get(key) not in options:
        asked = get(name, default)
        st.session_state[key] = asked if asked in options else default

    def changed() -> None:
        keep(name, st.session_state[key], default)
        keep("page", "")

    return str(
        st.selectbox(
            label,
            options,
            key=key,
            label_visibility="collapsed",
            on_change=changed,
            format_func=lambda option: names.get(option, option),
        )
    )


def several(label: str, name: str, options: Sequence[str], placeholder: str) -> list[str]:
    """Any number of many, joined by commas in the address."""
    key = f"address:{name}"
    if key not in st.session_state:
        st.session_state[key] = [word for word in words(name) if word in options]

    def changed() -> None:
        keep(name, ",".join(st.session_state[key]))
        keep("page", "")

    picked = st.multiselect(
        label, options, key=key, placeholder=placeholder, label_visibility="collapsed", on_change=changed
    )
    return [str(option) for option in picked]


def text(label: str, name: str, placeholder: str) -> str:
    """A few words."""
    key = f"address:{name}"
    if key not in st.session_state:
        st.session_state[key] = get(name)

    def changed() -> None:
        keep(name, st.session_state[key].strip())
        keep("page", "")

    return st.text_input(
        label, key=key, placeholder=placeholder, label_visibility="collapsed", on_change=changed
    ).strip()
