"""Who may call what: one table of all calls, and the interceptor that every call passes before its handler.

A call that is not in the table is refused to everybody. The project comes from the token alone; a request that names
another one is refused. As long as there has never been a token, a gateway that only this machine reaches lets
everybody in, and each range says its own project.

A ruling on dead letters may give data up for good, so it needs a role of its own, whatever call carries it, and is
signed here with the token that it came with.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc

from runtide.gateway.status import answer_for
from runtide.gateway.tokens import Token, TokenBook, bearer
from runtide.v1.ingest_pb2 import PushRequest, Range
from runtide.wire.books import CHANGES, is_book
from runtide.wire.changes import KINDS, changes_in
from runtide.wire.errors import BadInput, NotAllowed, RuntideError
from runtide.wire.roles import Role

log = logging.getLogger(__name__)

ALL = frozenset(Role)
PUBLIC: frozenset[Role] = frozenset()
"""No token is asked for: health and reflection, which say nothing of any project."""

RULES: dict[str, frozenset[Role]] = {
    "/runtide.v1.Ingest/Push": frozenset({Role.WRITER, Role.ADMIN}),
    "/runtide.v1.Ingest/Preflight": ALL,
    "/runtide.v1.Ingest/Status": ALL,
    "/runtide.v1.Artifacts/Begin": frozenset({Role.WRITER, Role.ADMIN}),
    "/runtide.v1.Artifacts/Upload": frozenset({Role.WRITER, Role.ADMIN}),
    "/runtide.v1.Artifacts/Download": ALL,
    "/grpc.health.v1.Health/Check": PUBLIC,
    "/grpc.health.v1.Health/List": PUBLIC,
    "/grpc.health.v1.Health/Watch": PUBLIC,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": PUBLIC,
}
"""Which roles may make a call."""
LOCAL = "local:"
"""Before the name of who writes in a book where there are no tokens: a claim, which no token can look like."""
RULINGS = frozenset({Role.ADMIN})
"""Which roles may rule on dead letters: a job, which holds a writer's token, may not give up what it said."""


class WrongRole(NotAllowed):
    """The token is good, but not for this: gRPC's PERMISSION_DENIED."""

    code = "wrong_role"


class OtherProject(NotAllowed):
    """The token is good, but for another project: gRPC's PERMISSION_DENIED."""

    code = "other_project"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes the call."""

    project: str | None
    """The token's; None where no token was ever made and each request says its own."""
    token: Token | None = None
    """What the call was let in with; None where no token was ever made."""

    def check(self, asked: Iterable[str]) -> None:
        """Raise OtherProject where something in `asked` is neither empty nor the caller's own project."""
        if self.project is None:
            return
        for other in asked:
            if other and other != self.project:
                raise OtherProject(f"the token is for project {self.project!r}, but project {other!r} was asked for")

    def sign(self, request: PushRequest) -> None:
        """Write the token into every ruling, over what is said there. Raises WrongRole where it may not rule."""
        for range_ in request.ranges:
            if range_.HasField("ruling"):
                if self.token is not None and self.token.role not in RULINGS:
                    raise _wrong_role(self.token, "a ruling on dead letters", RULINGS)
                range_.ruling.token = self.token.signature if self.token is not None else ""
            if not is_book(range_.run_id):
                range_.actor = ""
            elif self.token is not None:
                range_.actor = self.token.signature
                self._check_changes(range_, self.token)
            elif range_.actor:
                range_.actor = LOCAL + range_.actor.removeprefix(LOCAL)

    def _check_changes(self, range_: Range, token: Token) -> None:
        """Raises WrongRole where a change needs more than the token; what is no change at all is refused later."""
        if range_.run_id != CHANGES or token.role is Role.ADMIN:
            return
        with suppress(BadInput):
            for change in changes_in(range_.body):
                if change.kind in KINDS and KINDS[change.kind].admin:
                    raise _wrong_role(token, f"{change.kind} of {change.subject[:80]}", frozenset({Role.ADMIN}))


_caller: ContextVar[Caller] = ContextVar("caller")


def caller() -> Caller:
    """Who makes the call that this task answers. Raises LookupError where the interceptor was not passed."""
    return _caller.get()


class Access(grpc.aio.ServerInterceptor):
    """Judges every call by its token before its handler is entered."""

    def __init__(self, tokens: TokenBook, *, open_while_unused: bool, refused: Callable[[str, str], None]) -> None:
        """`refused` is told method and code of what is not let in."""
        self._tokens, self._open, self._refused = tokens, open_while_unused, refused

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Go on to the handler, or to one that says why not."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler  # gRPC says UNIMPLEMENTED
        method = str(handler_call_details.method)
        try:
            _caller.set(self.judge(method, bearer(handler_call_details.invocation_metadata or ())))
        except NotAllowed as error:
            self._refused(method.rpartition("/")[2], answer_for(error).code.name)
            return _refusal(handler, error)
        return handler

    def judge(self, method: str, token: str) -> Caller:
        """Say who calls. Raises UnknownToken and WrongRole."""
        roles = RULES.get(method)
        if roles is None:
            raise WrongRole(f"{method} has no rule that lets anybody in")
        if roles is PUBLIC or (self._open and not self._tokens.used):
            return Caller(None)
        found = self._tokens.find(token)
        if found.role not in roles:
            raise _wrong_role(found, method.rpartition("/")[2], roles)
        return Caller(found.project, found)


def _wrong_role(token: Token, what: str, roles: frozenset[Role]) -> WrongRole:
    return WrongRole(
        f"the token's role is {token.role}, but {what} needs {' or '.join(sorted(roles))}: "
        f"`runtide token create --project {token.project} --role {min(roles, key=list(Role).index)}`"
    )


def _refusal(handler: grpc.RpcMethodHandler[Any, Any], error: RuntideError) -> grpc.RpcMethodHandler[Any, Any]:
    """A handler of the same kind that ends the call with an error."""
    answer = answer_for(error)

    async def refuse(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(answer.code, answer.message, answer.trailing)

    make: Any = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[bool(handler.request_streaming), bool(handler.response_streaming)]
    refusal: grpc.RpcMethodHandler[Any, Any] = make(refuse)
    return refusal
