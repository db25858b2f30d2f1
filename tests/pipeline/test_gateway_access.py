"""Who may call a gateway: tokens give the project, and no open door by mistake."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import grpc
import pytest
from runtide.gateway import Gateway, GatewaySettings
from runtide.gateway.tokens import new_token
from runtide.testing.gateway import bearer, serving
from runtide.v1 import ingest_pb2 as pb
from runtide.wire.errors import BadInput
from runtide.wire.roles import Role

from tests.pipeline.gateway_calls import (
    ONE,
    TOKENS,
    TWO,
    Failing,
    refused,
    sound,
)


def test_the_token_gives_the_project() -> None:
    async def main() -> None:
        async with serving(tokens=TOKENS) as served:
            await served.push(sound(), token=ONE)
            await served.push(sound(project="speech"), token=TWO)
            assert [message.project for message in served.stored] == ["vision", "speech"]
            assert [range_.project for range_ in served.ranges()] == ["vision", "speech"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("token", "project", "code", "words"),
    [
        ("", "", grpc.StatusCode.UNAUTHENTICATED, ("RUNTIDE_TOKEN",)),
        (new_token("vision", Role.WRITER)[1], "", grpc.StatusCode.UNAUTHENTICATED, ("not known",)),
        (ONE, "speech", grpc.StatusCode.PERMISSION_DENIED, ("vision", "speech")),
    ],
    ids=["missing", "unknown", "of another project"],
)
def test_wrong_tokens(token: str, project: str, code: grpc.StatusCode, words: Sequence[str]) -> None:
    async def main() -> None:
        async with serving(tokens=TOKENS) as served:
            calls = (
                served.push(sound(), sound(project=project), token=token),
                served.stub.Preflight(pb.PreflightRequest(project=project), metadata=bearer(token)),
                served.stub.Status(pb.StatusRequest(project=project), metadata=bearer(token)),
            )
            for call in calls:
                error = await refused(call)
                assert error.code() is code
                for word in words:
                    assert word in str(error.details())
                assert not token or token not in str(error.details())
            assert served.stored == []

    asyncio.run(main())


def test_listening_elsewhere_without_tls_is_refused_at_once() -> None:
    with pytest.raises(BadInput, match="RUNTIDE_GATEWAY_TLS_CERT"):
        Gateway(GatewaySettings(host="0.0.0.0"), Failing())
