"""What `streamlit run` gets: app.py, and what its pages import is loaded before the first visitor comes."""

from __future__ import annotations

import streamlit as st
from parts import hosts, store, views  # noqa: F401 - bring pandas and pyarrow, half a second of the first visit
from starlette.middleware import Middleware

app = st.App("app.py", middleware=[Middleware(hosts.OwnHosts)])
