"""The standard health service. Unlike grpc_health's own, it ends the calls of those who watch once the gateway stops.

A stop waits for all calls, and a balancer that watches would have it wait until the end of its grace, every time.
"""

from __future__ import annotations

import asyncio

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc as pb_grpc

_STATUS = pb.HealthCheckResponse
Context = grpc.aio.ServicerContext[pb.HealthCheckRequest, pb.HealthCheckResponse]


class Health(pb_grpc.HealthServicer):
    """One status for all of these services."""

    def __init__(self, services: frozenset[str]) -> None:
        self._services = services
        self._serving = False
        self._stopping = False
        self._changed = asyncio.Event()

    def serve(self) -> None:
        """From now on: SERVING."""
        self._serving = True
        self._tell()

    def stop(self) -> None:
        """From now on, and for good: NOT_SERVING. Who watches hears it as the last word."""
        self._serving = False
        self._stopping = True
        self._tell()

    async def Check(self, request: pb.HealthCheckRequest, context: Context) -> pb.HealthCheckResponse:  # noqa: N802  gRPC's name
        """Say it once."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return _STATUS(status=self._status(request.service))

    async def Watch(self, request: pb.HealthCheckRequest, context: Context) -> None:  # noqa: N802
        """Say it, and again whenever it changes."""
        told = None
        while True:
            changed, status = self._changed, self._status(request.service)
            if status != told:
                await context.write(_STATUS(status=status))
            told = status
            if self._stopping:
                return
            await changed.wait()

    def _status(self, service: str) -> int:
        if service not in self._services:
            return _STATUS.SERVICE_UNKNOWN
        return _STATUS.SERVING if self._serving else _STATUS.NOT_SERVING

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
