"""A request that is no message of its kind is the caller's mistake: it hears so, and no traceback fills the log.

Left to gRPC it would be answered UNKNOWN, and logged in full each time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError


class _Unreadable:
    """In place of a request."""


class Unreadable(grpc.aio.ServerInterceptor):
    """Answers INVALID_ARGUMENT where a unary request cannot be parsed."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of a call."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None or handler.request_deserializer is None:
            return handler  # of no method, or a stream
        parse, answer = handler.request_deserializer, handler.unary_unary

        def parsed(raw: bytes) -> Any:
            try:
                return parse(raw)
            except DecodeError:
                return _Unreadable()

        async def answered(request: Any, context: Any) -> Any:
            if isinstance(request, _Unreadable):
                method = handler_call_details.method.rpartition("/")[2]
                await context.abort(
                    grpc.StatusCode.INVALID_ARGUMENT, f"the request is no {method} request of this wire (protobuf)"
                )
            return await answer(request, context)

        return grpc.unary_unary_rpc_method_handler(
            answered, request_deserializer=parsed, response_serializer=handler.response_serializer
        )
