"""TLS and mutual TLS between agent and gateway, with certificates made here."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from runtide.agent.gateway import Failure, GatewayClient, Tls, Verdict
from runtide.gateway import GatewaySettings, TokenBook
from runtide.gateway.tokens import new_token
from runtide.testing.gateway import serving
from runtide.v1 import ingest_pb2 as pb
from runtide.wire.errors import BadInput
from runtide.wire.roles import Role

TOKEN, TEXT = new_token("vision", Role.WRITER)
BOOK = TokenBook([TOKEN])


@dataclass(frozen=True)
class Files:
    """PEM files of two authorities and what they signed."""

    ca: str
    server: Path
    server_key: Path
    client: str
    client_key: str
    other_ca: str
    other_client: str
    other_key: str

    def gateway(self, *, mutual: bool) -> GatewaySettings:
        return GatewaySettings(
            tls_cert=self.server, tls_key=self.server_key, tls_client_ca=Path(self.ca) if mutual else None
        )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("pem")
    ours, others = trustme.CA(), trustme.CA()

    def written(name: str, blob: trustme.Blob) -> str:
        path = folder / name
        blob.write_to_path(str(path))
        return str(path)

    def pair(name: str, cert: trustme.LeafCert) -> tuple[str, str]:
        chain = folder / f"{name}.pem"
        for blob in cert.cert_chain_pems:
            blob.write_to_path(str(chain), append=True)
        return str(chain), written(f"{name}.key", cert.private_key_pem)

    server, server_key = pair("server", ours.issue_cert("127.0.0.1", "localhost"))
    client, client_key = pair("client", ours.issue_cert("agent@vision"))
    other_client, other_key = pair("other", others.issue_cert("agent@vision"))
    return Files(
        written("ca.pem", ours.cert_pem),
        Path(server),
        Path(server_key),
        client,
        client_key,
        written("other-ca.pem", others.cert_pem),
        other_client,
        other_key,
    )


async def asked(port: int, tls: Tls, scheme: str = "grpcs", token: str = TEXT) -> str:
    """The project that the gateway answers with; raises Failure."""
    client = GatewayClient(f"{scheme}://127.0.0.1:{port}", token, tls)
    try:
        return (await client.preflight(pb.PreflightRequest(), 3)).project
    finally:
        await client.close()


async def unreachable(port: int, tls: Tls, scheme: str = "grpcs") -> None:
    with pytest.raises(Failure) as failure:
        await asked(port, tls, scheme)
    assert failure.value.verdict is Verdict.RETRY, "bytes are kept"


def test_tls(files: Files) -> None:
    async def main() -> None:
        async with serving(files.gateway(mutual=False), BOOK) as served:
            port = served.gateway.port
            assert await asked(port, Tls(ca_file=files.ca)) == "vision"
            await unreachable(port, Tls())
            await unreachable(port, Tls(ca_file=files.other_ca))
            await unreachable(port, Tls(), "grpc")

    asyncio.run(main())


def test_mutual_tls_lets_in_who_has_certificate_and_token(files: Files) -> None:
    async def main() -> None:
        async with serving(files.gateway(mutual=True), BOOK) as served:
            port = served.gateway.port
            ours = Tls(files.ca, files.client, files.client_key)
            assert await asked(port, ours) == "vision"
            await unreachable(port, Tls(ca_file=files.ca))
            await unreachable(port, Tls(files.ca, files.other_client, files.other_key))
            with pytest.raises(Failure, match="UNAUTHENTICATED") as failure:
                await asked(port, ours, token="")
            assert failure.value.verdict is Verdict.NOT_ALLOWED

    asyncio.run(main())


def test_a_job_ships_over_mutual_tls(files: Files, tmp_path: Path) -> None:
    job = "import runtide\nwith runtide.init(run_id='r') as run:\n    run.log({'loss': 1.0}, step=1)\n"

    async def main() -> None:
        async with serving(files.gateway(mutual=True), BOOK) as served:
            told = {
                "RUNTIDE_HOME": str(tmp_path / "home"),
                "RUNTIDE_SILENT": "1",
                "RUNTIDE_URL": f"grpcs://127.0.0.1:{served.gateway.port}",
                "RUNTIDE_TOKEN": TEXT,
                "RUNTIDE_CA_FILE": files.ca,
                "RUNTIDE_CERT_FILE": files.client,
                "RUNTIDE_KEY_FILE": files.client_key,
            }
            done = await asyncio.to_thread(
                subprocess.run, [sys.executable, "-c", job], env=os.environ | told, check=True, timeout=60
            )
            assert done.returncode == 0
            deadline = time.monotonic() + 20
            while not {"rank", "agent"} <= {role(range_) for range_ in served.ranges()}:
                assert time.monotonic() < deadline, "the agent's own words travel too"
                await asyncio.sleep(0.05)
            assert {message.project for message in served.stored} == {"vision"}

    asyncio.run(main())


def role(range_: pb.Range) -> str:
    return "agent" if range_.rank == -1 else "rank"


def test_half_a_pair_is_refused_in_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    from runtide.sdk.settings import settings

    for given, missing in (("RUNTIDE_CERT_FILE", "RUNTIDE_KEY_FILE"), ("RUNTIDE_KEY_FILE", "RUNTIDE_CERT_FILE")):
        with pytest.raises(BadInput, match=f"{given} is .*set {missing}"):
            settings({given: "/x.pem"})
