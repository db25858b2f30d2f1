"""Every call ends with a status that says what is wrong, and is counted by it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from google.protobuf.message import Message as ProtoMessage

from runtide.gateway.metrics import Metrics
from runtide.gateway.status import answer_for
from runtide.wire.errors import RuntideError

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[ProtoMessage, ProtoMessage]


@asynccontextmanager
async def answered(metrics: Metrics, method: str, context: Context) -> AsyncIterator[None]:
    """Do the work of a call in it: what is raised there ends the call with the status that it stands for."""
    code = grpc.StatusCode.CANCELLED
    try:
        yield
        code = grpc.StatusCode.OK
    except RuntideError as error:
        answer = answer_for(error)
        code = answer.code
        await context.abort(code, answer.message, answer.trailing)
    except (grpc.aio.AbortError, grpc.aio.UsageError):  # the caller has gone
        raise
    except Exception:
        code = grpc.StatusCode.INTERNAL
        log.exception("call_failed method=%s", method)
        await context.abort(code, "the gateway failed; its log says how")
    finally:
        metrics.calls.labels(method, code.name).inc()
