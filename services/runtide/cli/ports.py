"""Ports: whether one is free, and one that is."""

from __future__ import annotations

import socket

from runtide.wire.errors import RuntideError


class PortTaken(RuntideError):
    """Another program listens where a part of runtide should."""

    code = "port_taken"

    def __init__(self, part: str, port: int, flag: str) -> None:
        super().__init__(
            f"port {port} of the {part} is taken by another program; choose another with {flag} N (0: any)"
        )
        self.port = port


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)  # Linux lets two sockets bind and only one listen
        except OSError:
            return False
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
