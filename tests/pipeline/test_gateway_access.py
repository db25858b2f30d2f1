"""Who may call a gateway: tokens give the project, TLS, and no open door by mistake."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
import pytest
from runtide.gateway import Gateway, GatewaySettings
from runtide.testing.gateway import bearer, serving
from runtide.v1 import ingest_pb2 as pb
from runtide.wire.errors import BadInput

from tests.pipeline.gateway_calls import (
    TOKENS,
    Failing,
    refused,
    sound,
)


def test_the_token_gives_the_project() -> None:
    async def main() -> None:
        async with serving(tokens=TOKENS) as served:
            await served.push(sound(), token="secret-one")
            await served.push(sound(project="speech"), token="secret-two")
            assert [message.project for message in served.stored] == ["vision", "speech"]
            assert [range_.project for range_ in served.ranges()] == ["vision", "speech"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("token", "project", "code", "words"),
    [
        ("", "", grpc.StatusCode.UNAUTHENTICATED, ("RUNTIDE_TOKEN",)),
        ("secret-three", "", grpc.StatusCode.UNAUTHENTICATED, ("not known",)),
        ("secret-one", "speech", grpc.StatusCode.PERMISSION_DENIED, ("vision", "speech")),
    ],
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


def test_tls(tmp_path: Path, require: Callable[[object, str], None]) -> None:
    require(shutil.which("openssl"), "openssl makes the certificate of this test")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)

    async def main() -> None:
        settings = GatewaySettings(tls_cert=certificate, tls_key=key)
        trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
        async with serving(settings, TOKENS, credentials=trusted) as served:
            await served.push(sound(), token="secret-one")
            assert served.stored[0].project == "vision"

    asyncio.run(main())


def test_listening_elsewhere_without_tokens_is_refused_at_once() -> None:
    with pytest.raises(BadInput, match="RUNTIDE_GATEWAY_TOKENS"):
        Gateway(GatewaySettings(host="0.0.0.0"), Failing())
