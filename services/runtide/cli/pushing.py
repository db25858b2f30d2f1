"""A connection to the gateway for one command: with the token and the TLS files that the environment names."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from runtide.agent.gateway import Failure, GatewayClient, Tls, Verdict
from runtide.cli.home import Home
from runtide.cli.settings import read_settings
from runtide.spool.layout import tls_files
from runtide.v1.ingest_pb2 import Ack, PushRequest
from runtide.warehouse.rulings import Push
from runtide.wire.errors import BadInput, Busy, NotAllowed, Refused, RuntideError, Unavailable


def gateway_url(home: Path | None) -> str:
    """The gateway: RUNTIDE_URL, else that of the `runtide up` that serves the home, else the configured port here."""
    if told := os.environ.get("RUNTIDE_URL"):
        return told
    settings = read_settings(home)
    state = Home(settings.home_folder).read()
    port = state.ports.gateway if state is not None and state.alive else settings.gateway.port
    return settings.gateway.url(settings.gateway.host, port)


@contextmanager
def connected(url: str) -> Iterator[tuple[asyncio.Runner, GatewayClient]]:
    """A connection, and what runs its calls, with the token and the TLS files that the environment names."""
    token, tls = os.environ.get("RUNTIDE_TOKEN", ""), Tls(*tls_files(os.environ))

    async def connect() -> GatewayClient:
        return GatewayClient(url, token, tls)

    with asyncio.Runner() as runner:
        try:
            client = runner.run(connect())
        except OSError as error:
            raise BadInput("a TLS file", error.filename, f"it cannot be read: {error.strerror}") from error
        try:
            yield runner, client
        finally:
            runner.run(client.close())


@contextmanager
def pushing(url: str) -> Iterator[Push]:
    """The way for ranges that a command says."""
    with connected(url) as (runner, client):

        def push(request: PushRequest) -> Sequence[Ack]:
            try:
                return runner.run(client.push(request))
            except Failure as failure:
                raise _meant(failure) from failure

        yield push


def _meant(failure: Failure) -> RuntideError:
    """A failed call as an error for people."""
    if failure.verdict is Verdict.NOT_ALLOWED:
        return NotAllowed(f"{failure.text}: set RUNTIDE_TOKEN to an admin token of this project")
    if failure.verdict is Verdict.REFUSED:
        return Refused(failure.text)
    if failure.delay_s is not None:
        return Busy(failure.text, failure.delay_s)
    return Unavailable(f"{failure.text}: start `runtide up`, or say where it is with --url")
