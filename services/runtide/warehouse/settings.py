"""Where ClickHouse is and who we are there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClickHouseSettings:
    """One ClickHouse, a server or the embedded engine: both speak HTTP."""

    host: str = "127.0.0.1"
    port: int = 8123
    username: str = "default"
    password: str = ""
    database: str = "runtide"
    """Tables are always named with their database, which is runtide; this is where other SQL begins."""
    secure: bool = False
    """Speak TLS."""
    ca_file: str = ""
    """PEM of the authority that signed the server's certificate; the system's ones without it."""
    cert_file: str = ""
    """PEM of our own certificate, where the server asks for one; without a password it also says who we are."""
    key_file: str = ""
    connect_timeout_s: float = 5.0
    answer_timeout_s: float = 60.0
    """After this long without an answer a request counts as lost, with its result unknown."""
