"""Where a gateway listens, and whether it may.

Anything but loopback needs TLS: the alternative is that tokens are read off the wire. That tokens are needed there is
`gateway.access`'s to see to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import grpc

from runtide.gateway.limits import Limits
from runtide.wire.errors import BadInput
from runtide.wire.loopback import is_loopback


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Everything that an operator chooses."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 7171
    """gRPC; 0 takes a free one."""
    metrics_host: str = "127.0.0.1"
    """Address of /metrics, /healthz and /readyz."""
    metrics_port: int | None = 7172
    """Their port; 0 takes a free one, None leaves them out."""
    tls_cert: Path | None = None
    """PEM of the certificate chain."""
    tls_key: Path | None = None
    """PEM of its key."""
    tls_client_ca: Path | None = None
    """PEM of the authority whose client certificates are let in; without it none is asked for."""
    allow_plaintext: bool = False
    """Listen without TLS on an address that is not loopback: a proxy in front does TLS. Tokens are needed still."""
    publish_timeout_s: float = 30.0
    """A Push that is not on the bus by then is answered UNAVAILABLE; what was begun goes on, and may be joined."""
    limits: Limits = field(default_factory=Limits)
    artifacts: str = ""
    """Where contents of artifacts are kept: a folder, or a URL that fsspec can open; empty takes none."""


def check_exposure(settings: GatewaySettings) -> None:
    """Raise BadInput, saying what to set, where others could read what is sent."""
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise BadInput(
            "gateway.tls_cert and gateway.tls_key",
            "one of them",
            "TLS needs both: set RUNTIDE_GATEWAY_TLS_CERT and RUNTIDE_GATEWAY_TLS_KEY",
        )
    if settings.tls_client_ca and not settings.tls_cert:
        raise BadInput(
            "gateway.tls_client_ca",
            settings.tls_client_ca,
            "client certificates need TLS: set RUNTIDE_GATEWAY_TLS_CERT and RUNTIDE_GATEWAY_TLS_KEY",
        )
    if is_loopback(settings.host) or settings.tls_cert or settings.allow_plaintext:
        return
    raise BadInput(
        "gateway.host",
        settings.host,
        "others can reach it, so it needs TLS: set RUNTIDE_GATEWAY_TLS_CERT and RUNTIDE_GATEWAY_TLS_KEY, "
        "or RUNTIDE_GATEWAY_ALLOW_PLAINTEXT=1 behind a proxy that does TLS",
    )


def server_credentials(settings: GatewaySettings) -> grpc.ServerCredentials | None:
    """Read certificate and key; None where there are none. Raises OSError."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    authority = settings.tls_client_ca.read_bytes() if settings.tls_client_ca else None
    pair = (settings.tls_key.read_bytes(), settings.tls_cert.read_bytes())
    return grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)
