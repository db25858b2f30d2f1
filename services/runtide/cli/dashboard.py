"""The Streamlit app: where its script lies, how it is served, and what tells it where ClickHouse is."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from runtide.cli.settings import Settings
from runtide.cli.store import store_settings
from runtide.warehouse.client import ClickHouseSettings
from runtide.wire.errors import BadInput
from runtide.wire.loopback import is_loopback


def script() -> Path:
    """The app: inside the package where it is installed, beside services/ in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "dashboards" / "serve.py"
    return installed if installed.is_file() else package.parents[1] / "dashboards" / "serve.py"


def arguments(host: str, port: int) -> tuple[str, ...]:
    """Arguments of `python -m streamlit` that serve the app, quietly and without opening a browser."""
    return (
        "run",
        str(script()),
        f"--server.address={host}",
        f"--server.port={port}",
        "--server.headless=true",
        "--server.fileWatcherType=none",
        "--browser.gatherUsageStats=false",
    )


def environment(store: ClickHouseSettings) -> dict[str, str]:
    """What tells the app where ClickHouse is, and as whom to read."""
    return {
        "RUNTIDE_CLICKHOUSE_HOST": store.host,
        "RUNTIDE_CLICKHOUSE_PORT": str(store.port),
        "RUNTIDE_CLICKHOUSE_USERNAME": store.username,
        "RUNTIDE_CLICKHOUSE_PASSWORD": store.password,
        "RUNTIDE_CLICKHOUSE_DATABASE": store.database,
        "RUNTIDE_CLICKHOUSE_SECURE": "1" if store.secure else "0",
        "RUNTIDE_CLICKHOUSE_CA_FILE": store.ca_file,
        "RUNTIDE_CLICKHOUSE_CERT_FILE": store.cert_file,
        "RUNTIDE_CLICKHOUSE_KEY_FILE": store.key_file,
    }


def sign_in(settings: Settings, host: str, gateway: str = "") -> dict[str, str]:
    """What tells the app who may see it. Raises BadInput where it would show everything to whoever reaches it."""
    if not settings.dashboard_sign_in and not is_loopback(host):
        raise BadInput(
            "RUNTIDE_DASHBOARD_HOST",
            host,
            "others can reach it, so it needs a sign-in: set RUNTIDE_DASHBOARD_SIGN_IN to token or oidc",
        )
    return {
        "RUNTIDE_DASHBOARD_SIGN_IN": settings.dashboard_sign_in,
        "RUNTIDE_DASHBOARD_GATEWAY": gateway or settings.dashboard_gateway,
        "RUNTIDE_DASHBOARD_NAMES": settings.dashboard_names,
        "RUNTIDE_DASHBOARD_TOKEN": settings.dashboard_token,
    }


def serve(settings: Settings, host: str, port: int, clickhouse: str | None) -> NoReturn:
    """Become Streamlit: this process is replaced, so signals and exit codes are its own."""
    os.environ.update(environment(store_settings(settings, clickhouse)) | sign_in(settings, host))
    os.chdir(script().parent)  # beside the script lies .streamlit with the looks
    os.execv(sys.executable, [sys.executable, "-m", "streamlit", *arguments(host, port)])
