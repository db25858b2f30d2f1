"""Who may see the pages: everybody, who holds a token, or who an OIDC provider knows (RUNTIDE_DASHBOARD_SIGN_IN).

A token is asked of the gateway (RUNTIDE_DASHBOARD_GATEWAY) when it is given and every half minute after; its holder
sees its project only, because ClickHouse filters every table by it. While the gateway is away who is in stays in.
"""

from __future__ import annotations

import os
import time

import grpc
import streamlit as st
from runtide.warehouse.rulings import account

from parts import gateway

CHECK_S = 30.0
_TOKEN, _PROJECT, _CHECKED = "gate:token", "gate:project", "gate:checked"


def enter() -> str:
    """Return the project that the visitor is kept to, "" for all; stop the page where nobody has signed in."""
    how = os.environ.get("RUNTIDE_DASHBOARD_SIGN_IN", "")
    if how == "oidc":
        if not getattr(st.user, "is_logged_in", False):  # not there at all while secrets.toml has no [auth]
            st.button("Sign in", on_click=st.login, type="primary")
            st.stop()
    elif how == "token":
        return _by_token()
    return ""


def _by_token() -> str:
    state = st.session_state
    if _PROJECT in state and time.monotonic() - state[_CHECKED] > CHECK_S:
        state[_CHECKED] = time.monotonic()
        if _asked(state[_TOKEN]) is None:
            for name in (_TOKEN, _PROJECT, _CHECKED):
                del state[name]
    if _PROJECT not in state:
        _ask_for_one()
    return str(state[_PROJECT])


def _ask_for_one() -> None:
    with st.form("sign in", width=480):
        token = st.text_input("Token", type="password", help="runtide token create --role reader").strip()
        if not st.form_submit_button("Sign in") or not token:
            st.stop()
    try:
        project = None if _asked("") is not None else _asked(token)
    except ConnectionError as error:
        st.error(f"The gateway at {gateway.url()} does not answer: {error}")
        st.stop()
    if project is None:
        st.error("The token is not known, or the gateway has no tokens yet: `runtide token create --role reader`")
        st.stop()
    st.session_state.update({_TOKEN: token, _PROJECT: project, _CHECKED: time.monotonic()})
    st.rerun()


def token() -> str:
    """The token that the page acts with: the visitor's own, else the one that the dashboard was given."""
    if os.environ.get("RUNTIDE_DASHBOARD_SIGN_IN") == "token":
        return str(st.session_state.get(_TOKEN, ""))
    return os.environ.get("RUNTIDE_DASHBOARD_TOKEN", "")


def visitor() -> str:
    """Who acts, as far as the page knows: whom the provider knows, else the account that the dashboard runs in."""
    known = st.user.get("email") or st.user.get("sub") if getattr(st.user, "is_logged_in", False) else ""
    return f"{known or account()} by the dashboard"


def _asked(token: str) -> str | None:
    """The project of a token, None for one that is refused. Raises ConnectionError at the first time, keeps later."""
    try:
        return str(gateway.preflight(token).project)
    except grpc.RpcError as error:
        if error.code() in gateway.NOT_ALLOWED:
            return None
        if known := st.session_state.get(_PROJECT):
            return str(known)
        raise ConnectionError(error.code().name) from error
