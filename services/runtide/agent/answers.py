"""What jobs may ask of the agent: whether it is there, what a gateway knows, to ship now, to learn what is stored.

`runtide sync` asks too: to serve the folders of all hosts.

Promises: every request is answered within a few seconds, a gateway that is away included; how much of a stream is
stored is kept fresh in position.json for as long as somebody has lately asked for it.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
from collections.abc import Callable
from typing import Any

from runtide.agent.collector import Collector
from runtide.agent.finding import Finder
from runtide.agent.gateway import Failure, GatewayClient, Tls, Verdict
from runtide.agent.served import Served
from runtide.spool.capture import CaptureTask
from runtide.v1.ingest_pb2 import Duplicate, PreflightRequest, PreflightResponse, StatusRequest
from runtide.v1.records_pb2 import Fingerprint
from runtide.wire.errors import BadInput

log = logging.getLogger(__name__)

STORED_S = 0.25
STATUS_STREAMS = 1000
WANT_STORED_S = 60.0
COLLECT_S = 2.0
"""How long what a run is to be compared by may take to be collected."""
CALL_S = 1.8
"""How long a gateway may take to answer."""


class Answers:
    """Answers for the streams that are served."""

    def __init__(self, served: Served, finder: Finder, collector: Collector, clock: Callable[[], float]) -> None:
        """`finder` looks before it is said that there is no such stream."""
        self._served, self._finder, self._collector, self._clock = served, finder, collector, clock

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer one request. Raises TypeError or ValueError for one that makes no sense."""
        match request.get("op"):
            case "ping":
                return {"ok": True, "pid": os.getpid(), "version": _version()}
            case "preflight":
                return await self._preflight(request)
            case "duplicates":
                return await self._duplicates(request)
            case "want_stored":
                return self._for_stream(request, want_stored=True)
            case "flush":
                return self._for_stream(request, want_stored=False)
            case "sync":
                self._finder.look_everywhere()
                for shipper in self._served.shippers:
                    shipper.hurry()
                return {"ok": True}
            case other:
                return {"ok": False, "error": f"unknown op {other!r}"}

    def _for_stream(self, request: dict[str, Any], want_stored: bool) -> dict[str, Any]:
        self._finder.look()
        name = request.get("stream")
        stream = next((stream for stream in self._served if stream.info.stream == name), None)
        if stream is None:
            return {"ok": False, "error": f"no stream {name!r} here"}
        now = self._clock()
        if want_stored:
            stream.stored_wanted_until = now + WANT_STORED_S
        self._served.look(stream, now)
        self._served.shipper(stream).hurry()
        return {"ok": True}

    async def _preflight(self, request: dict[str, Any]) -> dict[str, Any]:
        said = {"ok": True, "reachable": False, "project": "", "run_exists": False, "run_state": "", "attempt": 0}
        asked = PreflightRequest(
            project=str(request.get("project") or ""),
            run_id=str(request.get("run_id") or ""),
            launch_id=str(request.get("launch_id") or ""),
        )
        try:
            found = await _preflight(request, asked)
        except (BadInput, OSError) as error:
            return said | {"error": str(error)}
        except Failure as failure:
            return said | {"reachable": failure.verdict is not Verdict.RETRY, "error": failure.text}
        for shipper in self._served.shippers:
            if shipper.client.url == request.get("url"):
                shipper.hurry()
        return said | {
            "reachable": True,
            "project": found.project,
            "run_exists": found.run_exists,
            "run_state": found.run_state,
            "attempt": found.attempt,
            "last_step": found.last_step if found.HasField("last_step") else None,
            "error": "",
        }

    async def _duplicates(self, request: dict[str, Any]) -> dict[str, Any]:
        """Which runs are the same as one that is about to start, or nearly so."""
        task = CaptureTask.parsed(str(request.get("task") or "{}"))
        try:
            records = await asyncio.wait_for(asyncio.shield(self._collector.found(task)), COLLECT_S)
        except TimeoutError:
            return {"ok": False, "error": f"code and environment were not read within {COLLECT_S:g} s"}
        said = next((each.fingerprint for each in records if each.HasField("fingerprint")), Fingerprint())
        asked = PreflightRequest(
            project=str(request.get("project") or ""),
            run_id=str(request.get("run_id") or ""),
            config=str(request.get("config") or ""),
            fingerprint=Fingerprint(
                code=said.code, environment=said.environment, config=str(request.get("config_digest") or "")
            ),
        )
        try:
            found = await _preflight(request, asked)
        except (BadInput, OSError) as error:
            return {"ok": False, "error": str(error)}
        except Failure as failure:
            return {"ok": False, "error": failure.text}
        return {"ok": True, "duplicates": list(map(_duplicate, found.duplicates))}

    async def learn_stored(self) -> float:
        """Ask the gateways what is stored of the streams for which somebody waits; returns when to ask again."""
        now = self._clock()
        for shipper in self._served.shippers:
            wanted = {
                stream.info.stream: stream
                for stream in shipper.streams
                if stream.stored_wanted_until > now and stream.position.stored < stream.acknowledged
            }
            if not wanted:
                continue
            project = next(iter(wanted.values())).info.project
            try:
                request = StatusRequest(project=project, streams=list(wanted)[:STATUS_STREAMS])
                status = await shipper.client.status(request, CALL_S)
            except Failure as failure:
                log.info("status: %s", failure.text)
                continue
            for said in status.streams:
                if said.stream in wanted:
                    wanted[said.stream].say_stored(said.stored)
        return STORED_S


async def _preflight(request: dict[str, Any], asked: PreflightRequest) -> PreflightResponse:
    """Ask the gateway that a request names. Raises BadInput and OSError for what cannot be asked, and Failure."""
    client = GatewayClient(str(request.get("url") or ""), str(request.get("token") or ""), Tls.asked(request))
    try:
        return await client.preflight(asked, CALL_S)
    finally:
        await client.close()


def _duplicate(found: Duplicate) -> dict[str, Any]:
    return {
        "run_id": found.run_id,
        "name": found.name,
        "user": found.user,
        "state": found.state,
        "started_us": found.started_us,
        "duration_s": found.duration_s,
        "world_size": found.world_size,
        "differences": [(each.what, each.there, each.here) for each in found.differences],
        "result": json.loads(found.result or "{}"),
    }


@functools.cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # late: it costs a tenth of the agent's start

    try:
        return version("runtide")
    except PackageNotFoundError:
        return ""
