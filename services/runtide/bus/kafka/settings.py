"""Where Kafka is, what the topics are called and how they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiokafka.helpers import create_ssl_context

from runtide.wire.limits import MIB

REQUEST_BYTES = MIB
"""One message and one batch: below what a broker takes by default (message.max.bytes, 1 MiB and 12 bytes)."""

_TLS_FILES = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Where Kafka is and how topics are made."""

    bootstrap: str
    """Brokers as host:port, joined by commas."""
    topic_prefix: str = "runtide"
    """First part of every topic's name."""
    partitions: int = 12
    """Partitions of the topics that runtide makes."""
    replication: int = 1
    """Copies of every partition, where the topic is made by runtide."""
    retention_hours: int = 7 * 24
    """How long topics made by runtide keep messages: the longest outage of all sinks that loses nothing."""
    retention_bytes: int = 16 * 1024 * MIB
    """How much of one partition topics made by runtide keep, whatever its age; -1 for no bound."""
    send_timeout_s: float = 10.0
    """Deadline of every send, and of every other question to the brokers."""
    security: dict[str, str] = field(default_factory=dict)
    """Handed on to the client: security_protocol, sasl_mechanism, sasl_plain_username, sasl_plain_password; and
    ssl_cafile, ssl_certfile, ssl_keyfile for TLS."""
    group: str = "runtide-sink"
    """Consumer group of the sinks."""
    session_timeout_s: float = 10.0
    """A member of it that the brokers have not heard of for this long loses its partitions to the others."""

    @property
    def records_topic(self) -> str:
        """What streams say; key: see `message_key`."""
        return f"{self.topic_prefix}.records"

    @property
    def changes_topic(self) -> str:
        """What people and programs alter afterwards; key: project."""
        return f"{self.topic_prefix}.changes"

    @property
    def control_topic(self) -> str:
        """Tokens and the like; compacted."""
        return f"{self.topic_prefix}.control"

    def client(self) -> dict[str, Any]:
        """Return what every aiokafka client is built with. Raises OSError for TLS files that cannot be read."""
        options: dict[str, Any] = {"bootstrap_servers": [each.strip() for each in self.bootstrap.split(",")]}
        options |= {name: value for name, value in self.security.items() if name not in _TLS_FILES}
        if self.security.get("security_protocol", "").endswith("SSL"):
            files = {name.removeprefix("ssl_"): self.security.get(name) for name in _TLS_FILES}
            options["ssl_context"] = create_ssl_context(**files)
        return options
