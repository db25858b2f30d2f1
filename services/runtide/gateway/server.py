"""The gateway as a whole: it listens, says how it is, and stops without losing what is under way.

The publisher is handed in and stays its owner's: `stop` does not close it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from runtide.bus import Publisher
from runtide.gateway.access import Access
from runtide.gateway.artifacts import ArtifactService
from runtide.gateway.blobs import Blobs
from runtide.gateway.health import Health
from runtide.gateway.intake import Intake
from runtide.gateway.metrics import Metrics
from runtide.gateway.pages import Pages
from runtide.gateway.service import IngestService, Ledger
from runtide.gateway.settings import GatewaySettings, check_exposure, server_credentials
from runtide.gateway.tokens import TokenBook
from runtide.gateway.unreadable import Unreadable
from runtide.v1 import artifacts_pb2, artifacts_pb2_grpc
from runtide.v1 import ingest_pb2 as pb
from runtide.v1 import ingest_pb2_grpc as pb_grpc
from runtide.wire import limits as wire
from runtide.wire.errors import BadInput
from runtide.wire.loopback import is_loopback

log = logging.getLogger(__name__)

SERVICE = pb.DESCRIPTOR.services_by_name["Ingest"].full_name
ARTIFACTS = artifacts_pb2.DESCRIPTOR.services_by_name["Artifacts"].full_name
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

NOT_READY_S = 10.0
"""After the bus did not answer, /readyz says so for this long."""

RECEIVE_BYTES = 16 * wire.MIB
"""What gRPC itself lets through: well over a Push, so that a larger one hears of the limit in our words."""

OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", RECEIVE_BYTES),
    ("grpc.so_reuseport", 0),  # a port that is taken is an error, not a second listener
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]


class Gateway:
    """One gateway. Several may serve side by side: none of them keeps anything."""

    def __init__(
        self,
        settings: GatewaySettings,
        publisher: Publisher,
        ledger: Ledger | None = None,
        tokens: TokenBook | None = None,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        trouble: Callable[[], str] = str,
    ) -> None:
        """`trouble` says what is wrong behind the bus, if that is in this process: then /readyz says it too.

        `tokens` may be told more at any time; without a single one only loopback is open. Raises BadInput where these
        settings would let tokens be read on their way, or where there is no such place for artifacts.
        """
        self._trouble = trouble
        check_exposure(settings)
        self._settings = settings
        self.metrics = Metrics()
        limits = settings.limits
        self._intake = Intake(publisher, limits, self.metrics, clock, monotonic, settings.publish_timeout_s)
        self._service = IngestService(self._intake, limits, self.metrics, ledger, clock)
        blobs = Blobs(settings.artifacts) if settings.artifacts else None
        self._artifacts = ArtifactService(blobs, limits, self.metrics)
        self._tokens = TokenBook() if tokens is None else tokens
        self._access = Access(
            self._tokens,
            open_while_unused=is_loopback(settings.host),
            refused=lambda method, code: self.metrics.calls.labels(method, code).inc(),
        )
        self._health = Health(frozenset({"", SERVICE}))
        self._pages = Pages(self.metrics.registry, self.why_not_ready)
        self._server: grpc.aio.Server | None = None
        self.port = 0
        """The gRPC port, once started."""

    @property
    def metrics_port(self) -> int:
        """The port of /metrics, once started; 0 without one."""
        return self._pages.port

    def why_not_ready(self) -> str:
        """Return "" while Pushes are taken, the bus answers, and nothing is wrong behind it."""
        if self._server is None or self._service.stopping:
            return "not serving"
        if self._intake.unavailable_within(NOT_READY_S):
            return "the bus does not answer"
        return self._trouble()

    async def start(self) -> None:
        """Listen. Raises BadInput naming the setting where a port cannot be had, and OSError for TLS files."""
        settings = self._settings
        server = grpc.aio.server(
            interceptors=[self._access, Unreadable()],
            options=OPTIONS,
            maximum_concurrent_rpcs=settings.limits.concurrent_calls,
        )
        pb_grpc.add_IngestServicer_to_server(self._service, server)
        artifacts_pb2_grpc.add_ArtifactsServicer_to_server(self._artifacts, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((SERVICE, ARTIFACTS, HEALTH, reflection.SERVICE_NAME), server)
        self.port = _listen(server, settings)
        if settings.metrics_port is not None:
            try:
                await self._pages.start(settings.metrics_host, settings.metrics_port)
            except OSError as error:
                await server.stop(None)
                raise _taken("metrics_port", settings.metrics_host, settings.metrics_port) from error
        await server.start()
        self._server = server
        self._health.serve()
        self.metrics.serving.set(1)
        log.info("gateway_started host=%s port=%d metrics_port=%d", settings.host, self.port, self.metrics_port)
        if not self._tokens.used:
            who = "everybody on this machine" if is_loopback(settings.host) else "nobody"
            log.warning("no_tokens lets_in=%s hint=%s", who, "runtide token create")

    async def stop(self, grace_s: float = 10.0) -> None:
        """Say NOT_SERVING, refuse what is new, let what is under way end, then close; within `grace_s` and a little."""
        if self._server is None:
            return
        self._service.stopping = self._artifacts.stopping = True
        self._health.stop()
        self.metrics.serving.set(0)
        begun = time.monotonic()
        left = await self._intake.drain(grace_s)
        # the calls whose publishing has just ended still have to be answered
        await self._server.stop(max(0.5, grace_s - (time.monotonic() - begun)))
        self._server = None
        await self._pages.stop()
        self._service.close()
        self._artifacts.close()
        log.info("gateway_stopped port=%d unfinished=%d", self.port, left)

    async def wait(self) -> None:
        """Return when the gateway has stopped."""
        if self._server is not None:
            await self._server.wait_for_termination()


def _listen(server: grpc.aio.Server, settings: GatewaySettings) -> int:
    host = f"[{settings.host}]" if ":" in settings.host and not settings.host.startswith("[") else settings.host
    address = f"{host}:{settings.port}"
    credentials = server_credentials(settings)
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise _taken("port", settings.host, settings.port) from error


def _taken(setting: str, host: str, port: int) -> BadInput:
    variable = f"RUNTIDE_GATEWAY_{setting.upper()}"
    return BadInput(f"gateway.{setting}", f"{host}:{port}", f"it cannot be listened on (taken?): set {variable}")
