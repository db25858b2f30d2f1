"""The three calls of `Ingest`: what comes of each, and how an error is said. Who may call is judged in `access`.

The store is asked only for Preflight and Status; where it is away, Push goes on and Preflight says what it knows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from runtide.gateway.access import caller
from runtide.gateway.answering import Context, answered
from runtide.gateway.intake import Intake
from runtide.gateway.limits import Limits
from runtide.gateway.metrics import Metrics
from runtide.gateway.tokens import DEFAULT_PROJECT
from runtide.v1 import ingest_pb2 as pb
from runtide.v1 import ingest_pb2_grpc as pb_grpc
from runtide.wire.errors import BadInput, RuntideError, Unavailable

log = logging.getLogger(__name__)

PREFLIGHT_STORE_S = 1.5
"""How long Preflight waits for the store: a job's init waits for Preflight."""

STATUS_STORE_S = 10.0
"""How long Status waits for the store."""

Found = TypeVar("Found")


class StreamFacts(Protocol):
    """What the ledger says of a stream."""

    @property
    def stream(self) -> str:
        """Its id."""

    @property
    def stored(self) -> int:
        """Everything below is in the store, but for holes."""

    @property
    def holes(self) -> int:
        """Number of missing ranges below."""


class RunFacts(Protocol):
    """What the store says of a run."""

    @property
    def exists(self) -> bool:
        """Whether anything of it is stored."""

    @property
    def state(self) -> str:
        """As in the view `runs`; empty where not known."""

    @property
    def attempt(self) -> int:
        """The attempt that the asking launch is."""

    @property
    def last_step(self) -> int | None:
        """Where the attempts before that one have come to; None where they logged nothing."""


class Ledger(Protocol):
    """The part of `warehouse.ledger.LedgerReader` that is asked here; it blocks, and is called from one thread."""

    def stream_status(self, project: str, streams: Sequence[str]) -> Sequence[StreamFacts]:
        """Return the known ones of these streams."""

    def run_facts(self, project: str, run_id: str, launch_id: str) -> RunFacts:
        """Return what is known of a run, and which attempt this launch is."""

    def duplicates(self, project: str, asked: pb.PreflightRequest) -> Sequence[pb.Duplicate]:
        """Return the runs that are the same as the one that asks, or nearly so. Raises BadInput."""


class Stopping(Unavailable):
    """The gateway takes nothing new in."""

    def __init__(self) -> None:
        super().__init__("this gateway is stopping; another one, or the same one soon, will take it")


class NoStore(RuntideError):
    """The gateway was started without the store's address."""

    code = "no_store"

    def __init__(self) -> None:
        super().__init__("this gateway does not know the store: set RUNTIDE_CLICKHOUSE_HOST for it")


class IngestService(pb_grpc.IngestServicer):  # type: ignore[misc]  # generated without annotations
    """Judges calls and answers them."""

    def __init__(
        self,
        intake: Intake,
        limits: Limits,
        metrics: Metrics,
        ledger: Ledger | None,
        clock: Callable[[], float],
    ) -> None:
        self._intake, self._limits, self._metrics = intake, limits, metrics
        self._ledger, self._clock = ledger, clock
        self._store = ThreadPoolExecutor(1, thread_name_prefix="gateway-store")
        self.stopping = False
        """True once nothing new is taken in."""

    def close(self) -> None:
        """Stop asking the store; a question under way is not waited for."""
        self._store.shutdown(wait=False, cancel_futures=True)

    async def Push(self, request: pb.PushRequest, context: Context) -> pb.PushResponse:  # noqa: N802  gRPC's name
        """Take ranges in."""
        with self._metrics.push_seconds.time():
            async with answered(self._metrics, "Push", context):
                return await self._push(request)

    async def Preflight(  # noqa: N802  gRPC's name
        self, request: pb.PreflightRequest, context: Context
    ) -> pb.PreflightResponse:
        """Say whether the token is good, what the limits are, and what is known of the run."""
        async with answered(self._metrics, "Preflight", context):
            return await self._preflight(request)

    async def Status(self, request: pb.StatusRequest, context: Context) -> pb.StatusResponse:  # noqa: N802  gRPC's name
        """Say what the store holds of streams."""
        async with answered(self._metrics, "Status", context):
            return await self._status(request)

    async def _push(self, request: pb.PushRequest) -> pb.PushResponse:
        project = _project({range_.project for range_ in request.ranges})
        caller().sign(request)
        if self.stopping:
            raise Stopping
        return await self._intake.push(project, request)

    async def _preflight(self, request: pb.PreflightRequest) -> pb.PreflightResponse:
        project = _project({request.project}) or request.project or DEFAULT_PROJECT
        reply = pb.PreflightResponse(
            project=project,
            time_us=int(self._clock() * 1_000_000),
            limits=self._limits.table(),
            role=token.role if (token := caller().token) is not None else "",
        )
        ledger = self._ledger
        if ledger is None:
            return reply
        try:
            if request.run_id:
                await self._say_run(reply, ledger, request)
            if request.HasField("fingerprint"):
                found = await self._ask_store(PREFLIGHT_STORE_S, lambda: ledger.duplicates(project, request))
                reply.duplicates.extend(found)
        except Unavailable as error:
            log.warning("preflight_without_store error=%s", error)  # attempt 0 says so
        return reply

    async def _say_run(self, reply: pb.PreflightResponse, ledger: Ledger, request: pb.PreflightRequest) -> None:
        facts = await self._ask_store(
            PREFLIGHT_STORE_S, lambda: ledger.run_facts(reply.project, request.run_id, request.launch_id)
        )
        reply.run_exists, reply.run_state, reply.attempt = facts.exists, facts.state, facts.attempt
        if facts.last_step is not None:
            reply.last_step = facts.last_step

    async def _status(self, request: pb.StatusRequest) -> pb.StatusResponse:
        project = _project({request.project}) or request.project or DEFAULT_PROJECT
        most = self._limits.status_streams
        if len(request.streams) > most:
            raise BadInput("streams", len(request.streams), f"a Status has at most {most} (status_streams)")
        ledger = self._ledger
        if ledger is None:
            raise NoStore
        known = await self._ask_store(STATUS_STORE_S, lambda: ledger.stream_status(project, list(request.streams)))
        return pb.StatusResponse(
            streams=[pb.StreamStatus(stream=each.stream, stored=each.stored, holes=each.holes) for each in known]
        )

    async def _ask_store(self, timeout_s: float, question: Callable[[], Found]) -> Found:
        """Ask in the store's thread. Raises Unavailable where the answer does not come in time, or not at all."""
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.get_running_loop().run_in_executor(self._store, question)
        except TimeoutError as error:
            raise Unavailable(f"the store did not answer within {timeout_s:g} s") from error
        except BadInput:
            raise
        except Exception as error:  # whatever is wrong with the store, its word cannot be had now
            raise Unavailable(f"the store could not be asked: {type(error).__name__}: {error}") from error


def _project(asked: set[str]) -> str | None:
    """The caller's project, None where each request says its own. Raises OtherProject."""
    found = caller()
    found.check(asked)
    return found.project
