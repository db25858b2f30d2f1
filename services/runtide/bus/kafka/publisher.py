"""The producer's side: an idempotent producer that is thrown away when it sticks.

aiokafka's producer never times out by itself while the brokers are away (nor does its stop), and may stay broken after
an out-of-order answer: so every send has our own deadline, and after a failed one the producer is ended in the
background and the next send builds another.
"""

from __future__ import annotations

import asyncio
import logging

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from runtide.bus import Message
from runtide.bus.kafka.repeats import quieten
from runtide.bus.kafka.settings import REQUEST_BYTES, KafkaSettings
from runtide.bus.kafka.stopping import CUT_OFF_S, STOP_S, cut_off_producer, ended
from runtide.wire.errors import BadInput, Unavailable

log = logging.getLogger(__name__)


class KafkaPublisher:
    """The gateway's side. Begins to connect with the first publish()."""

    def __init__(self, settings: KafkaSettings) -> None:
        quieten()
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._order = [asyncio.Lock() for _ in range(64)]
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False
        self.built = 0
        """Producers built so far: more than one says that some were thrown away."""

    async def publish(self, message: Message) -> None:
        """Return after acks=all. Raises Unavailable within `send_timeout_s`, BadInput for what is never taken."""
        if self._closed:
            raise Unavailable("the bus is closed")
        producer = None
        try:
            async with asyncio.timeout(self._settings.send_timeout_s):
                producer = await self._ready()
                await self._send(producer, message)
        except MessageSizeTooLargeError as error:
            raise BadInput(
                "range", f"{len(message.value)} bytes", "Kafka takes smaller ones: max.message.bytes"
            ) from error
        except TimeoutError as error:
            self._throw_away(producer)
            raise Unavailable(f"Kafka did not answer within {self._settings.send_timeout_s:g} s") from error
        except KafkaError as error:
            self._throw_away(producer)
            raise Unavailable(f"Kafka: {error}") from error

    async def close(self) -> None:
        """Stop, within STOP_S and CUT_OFF_S; what is not acknowledged by then counts as not published."""
        self._closed = True
        producer, self._producer = self._producer, None
        if producer is not None and not await ended(producer.stop(), STOP_S):
            log.warning("producer_cut_off")
            self._end(producer)
        if self._ending:
            await asyncio.wait(self._ending, timeout=CUT_OFF_S)

    async def _send(self, producer: AIOKafkaProducer, message: Message) -> None:
        headers = [
            ("project", message.project.encode()),
            ("received_us", str(message.received_us).encode()),
            ("schema", message.schema.encode()),
        ]
        if message.ahead_us is not None:
            headers.append(("ahead_us", str(message.ahead_us).encode()))
        # Only the way into the producer's buffer is ordered here; acknowledgements are awaited side by side.
        async with self._order[hash(message.key) % len(self._order)]:
            delivered = await producer.send(
                self._settings.records_topic, value=message.value, key=message.key, headers=headers
            )
        await delivered

    async def _ready(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    enable_idempotence=True,
                    acks="all",
                    max_request_size=REQUEST_BYTES,
                    max_batch_size=REQUEST_BYTES,
                    request_timeout_ms=int(self._settings.send_timeout_s * 1000),
                    **self._settings.client(),
                )
                self.built += 1
                try:
                    await producer.start()
                except BaseException:  # cancelled by the deadline too: whatever was begun must end
                    self._end(producer)
                    raise
                self._producer = producer
            return self._producer

    def _throw_away(self, producer: AIOKafkaProducer | None) -> None:
        """Make the next send build another producer; the others that wait on this one fail at once."""
        if producer is not None and producer is self._producer:
            log.warning("producer_thrown_away built=%d", self.built)
            self._producer = None
            self._end(producer)

    def _end(self, producer: AIOKafkaProducer) -> None:
        task = asyncio.create_task(cut_off_producer(producer))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
