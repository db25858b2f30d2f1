"""The dashboard, which serve.py serves. Pages are files in screens/, what they share is in parts/.

The folder is not called pages/, because Streamlit runs the files of such a folder by itself, past this one. The
app reads through runtide.warehouse.queries, as the user that RUNTIDE_CLICKHOUSE_* name (parts/store.py), and changes
things through the gateway alone (parts/gateway.py).
"""

from __future__ import annotations

import streamlit as st
from parts import gate, look

st.set_page_config(page_icon="🌊", layout="wide")
look.style()
page = st.navigation(
    [
        st.Page("screens/runs.py", title="Runs", icon=":material/table_rows:", default=True),
        st.Page("screens/run.py", title="Run", icon=":material/show_chart:", url_path="run"),
        st.Page("screens/letters.py", title="Dead letters", icon=":material/unsubscribe:", url_path="letters"),
        st.Page("screens/system.py", title="System", icon=":material/monitor_heart:", url_path="system"),
    ],
    position="top",
)
gate.enter()  # after navigation, or whoever signs in comes to the first page instead of the one in the address
page.run()
