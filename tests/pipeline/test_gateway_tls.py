"""TLS and mutual TLS between agent and gateway, with certificates made here."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runtide.agent.gateway import Failure, GatewayClient, Tls, Verdict
from runtide.cli.demo import agent_ended
from runtide.gateway import GatewaySettings, TokenBook
from runtide.gateway.tokens import new_token
from runtide.testing.gateway import serving
from runtide.testing.pem import Authority, make_authority
from runtide.v1 import ingest_pb2 as pb
from runtide.wire.errors import BadInput
from runtide.wire.roles import Role

TOKEN, TEXT = new_token("vision", Role.WRITER)
BOOK = TokenBook([TOKEN])


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("pem") / "ours")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("pem") / "others")


def listening(ours: Authority, *, mutual: bool) -> GatewaySettings:
    return GatewaySettings(
        tls_cert=Path(ours.server), tls_key=Path(ours.server_key), tls_client_ca=Path(ours.ca) if mutual else None
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


def test_tls(ours: Authority, others: Authority) -> None:
    async def main() -> None:
        async with serving(listening(ours, mutual=False), BOOK) as served:
            port = served.gateway.port
            assert await asked(port, Tls(ca_file=ours.ca)) == "vision"
            await unreachable(port, Tls())
            await unreachable(port, Tls(ca_file=others.ca))
            await unreachable(port, Tls(), "grpc")

    asyncio.run(main())


def test_mutual_tls_lets_in_who_has_certificate_and_token(ours: Authority, others: Authority) -> None:
    async def main() -> None:
        async with serving(listening(ours, mutual=True), BOOK) as served:
            port = served.gateway.port
            good = Tls(ours.ca, ours.client, ours.client_key)
            assert await asked(port, good) == "vision"
            await unreachable(port, Tls(ca_file=ours.ca))
            await unreachable(port, Tls(ours.ca, others.client, others.client_key))
            with pytest.raises(Failure, match="UNAUTHENTICATED") as failure:
                await asked(port, good, token="")
            assert failure.value.verdict is Verdict.NOT_ALLOWED

    asyncio.run(main())


def test_a_job_ships_over_mutual_tls(ours: Authority, tmp_path: Path) -> None:
    job = "import runtide\nwith runtide.init(run_id='r') as run:\n    run.log({'loss': 1.0}, step=1)\n"

    async def main() -> None:
        async with serving(listening(ours, mutual=True), BOOK) as served:
            told = {
                "RUNTIDE_HOME": str(tmp_path / "home"),
                "RUNTIDE_SILENT": "1",
                "RUNTIDE_URL": f"grpcs://127.0.0.1:{served.gateway.port}",
                "RUNTIDE_TOKEN": TEXT,
                "RUNTIDE_CA_FILE": ours.ca,
                "RUNTIDE_CERT_FILE": ours.client,
                "RUNTIDE_KEY_FILE": ours.client_key,
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
            while not agent_ended(tmp_path / "home" / "spool"):
                assert time.monotonic() < deadline, "the agent has ended: all has arrived"
                await asyncio.sleep(0.05)

    asyncio.run(main())


def role(range_: pb.Range) -> str:
    return "agent" if range_.rank == -1 else "rank"


def test_half_a_pair_is_refused_in_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    from runtide.sdk.settings import settings

    for given, missing in (("RUNTIDE_CERT_FILE", "RUNTIDE_KEY_FILE"), ("RUNTIDE_KEY_FILE", "RUNTIDE_CERT_FILE")):
        with pytest.raises(BadInput, match=f"{given} is .*set {missing}"):
            settings({given: "/x.pem"})
