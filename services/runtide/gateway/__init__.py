"""The gateway room: token, limits, framing, publish, acknowledge. What the records say is left to the sink."""

from __future__ import annotations

from runtide.gateway.limits import Limits
from runtide.gateway.server import Gateway
from runtide.gateway.settings import GatewaySettings
from runtide.gateway.tokens import TokenBook

__all__ = ["Gateway", "GatewaySettings", "Limits", "TokenBook"]
