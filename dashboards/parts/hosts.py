"""Under which names the pages answer where nobody signs in.

Whoever reaches them there may see and change everything, so only this machine should. But a web page of anybody, in a
browser on this machine, reaches them too once its own name leads to 127.0.0.1 (DNS rebinding), and Streamlit takes that
for its own origin. An address in the Host header cannot be turned like that; a name can, unless it is localhost.
"""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import urlsplit

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


def is_ours(host: str) -> bool:
    """Say whether a Host header is an address, localhost, or a name that RUNTIDE_DASHBOARD_NAMES allows."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    told = os.environ.get("RUNTIDE_DASHBOARD_NAMES", "").lower()
    if name in {"localhost", *(each.strip() for each in told.split(",") if each.strip())}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class OwnHosts:
    """Refuses what asks for another host."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request or websocket."""
        app = self._app
        if scope["type"] in {"http", "websocket"} and not os.environ.get("RUNTIDE_DASHBOARD_SIGN_IN"):
            host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
            if not is_ours(host):
                text = f"Host {host!r} is not a name of this dashboard; use its address, or RUNTIDE_DASHBOARD_NAMES\n"
                app = PlainTextResponse(text, 403)
        await app(scope, receive, send)
