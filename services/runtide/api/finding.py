"""Which ClickHouse is meant where a reader does not say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

DEFAULT_URL = "http://127.0.0.1:8123"


def default_url(env: Mapping[str, str]) -> str:
    """RUNTIDE_CLICKHOUSE_HOST and _PORT; else where the last `runtide up` of this home served it; else port 8123."""
    host, port = env.get("RUNTIDE_CLICKHOUSE_HOST", ""), env.get("RUNTIDE_CLICKHOUSE_PORT", "")
    if host or port:
        secure = env.get("RUNTIDE_CLICKHOUSE_SECURE", "").lower() in {"1", "true", "yes"}
        return f"http{'s' if secure else ''}://{host or '127.0.0.1'}:{port or (8443 if secure else 8123)}"
    home = Path(env.get("RUNTIDE_HOME") or "~/.runtide").expanduser()
    try:
        ports = json.loads((home / "up.json").read_text())["ports"]
        return f"http://{ports['host']}:{int(ports['clickhouse'])}"
    except (OSError, ValueError, KeyError, TypeError):
        return DEFAULT_URL
