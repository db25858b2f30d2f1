"""The dashboard: `streamlit run app.py`. Pages are files in pages/, what they share is in parts/.

It only reads, through runtide.warehouse.queries, as the user that RUNTIDE_CLICKHOUSE_* name (parts/store.py).
"""

from __future__ import annotations

import streamlit as st
from parts import look

st.set_page_config(page_title="runtide", page_icon="🌊", layout="wide")
look.style()
st.navigation(
    [
        st.Page("pages/runs.py", title="Runs", icon=":material/table_rows:", default=True),
        st.Page("pages/run.py", title="Run", icon=":material/show_chart:", url_path="run"),
    ],
    position="top",
).run()
