"""The processor's shell on Kafka: a Faust worker. Several share the partitions, and with them the runs.

Faust may commit past a message that was not worked on, and acknowledges one that failed. Neither loses anything here:
a message is only a hint, derived rows are made from what is stored, and the sweep finds what no hint announced. There
are no Faust tables, so nothing has to be recovered after a rebalance.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faust

from runtide.bus.kafka import KafkaSettings
from runtide.processor.deriver import Deriver
from runtide.processor.hints import hint_of
from runtide.processor.loop import ProcessorLoop

AT_ONCE = 100
"""Messages that are taken together."""
WITHIN_S = 0.2
"""How long a message waits for others."""

SESSION_S = 10.0
"""After this long without a word from a worker others take its partitions."""


def create_app(
    kafka: KafkaSettings, deriver: Deriver, *, folder: Path, web_host: str = "127.0.0.1", web_port: int = 6066
) -> faust.App:
    """The app of one worker; `folder` is for Faust's own files, which may be thrown away."""
    brokers = ";".join(f"aiokafka://{each.strip()}" for each in kafka.bootstrap.split(","))
    app = faust.App(
        f"{kafka.topic_prefix}-processor",
        broker=brokers,
        broker_credentials=_credentials(kafka),
        datadir=str(folder),
        store="memory://",
        key_serializer="raw",
        value_serializer="raw",
        consumer_auto_offset_reset="earliest",
        topic_disable_leader=True,
        stream_wait_empty=False,
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=SESSION_S / 5,
        broker_rebalance_timeout=2 * SESSION_S,
        web_host=web_host,
        web_bind=web_host,
        web_port=web_port,
        autodiscover=False,
    )
    loop = ProcessorLoop(deriver)
    records = app.topic(kafka.records_topic, key_serializer="raw", value_serializer="raw")

    @app.agent(records, name="hints")
    async def _hints(values: Any) -> None:
        async for several in values.take(AT_ONCE, within=WITHIN_S):
            found = (hint_of(value) for value in several)
            loop.hint([hint for hint in found if hint is not None])

    @app.task  # type: ignore[untyped-decorator]
    async def _derive() -> None:
        await loop.run()

    return app


def _credentials(kafka: KafkaSettings) -> Any:
    """What Faust wants in place of the client's own words; None without any."""
    told = kafka.security
    protocol = told.get("security_protocol", "PLAINTEXT")
    context = kafka.client().get("ssl_context")
    if protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=told.get("sasl_plain_username", ""),
            password=told.get("sasl_plain_password", ""),
            mechanism=told.get("sasl_mechanism", "PLAIN"),
            ssl_context=context,
        )
    return faust.SSLCredentials(context) if context is not None else None
