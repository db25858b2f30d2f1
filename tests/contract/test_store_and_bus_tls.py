"""TLS, client certificates and SASL on the way to ClickHouse and Kafka: what is set arrives at the other side."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from runtide.bus import Message
from runtide.bus.kafka import KafkaPublisher, KafkaSettings
from runtide.cli.parts import kafka_settings, store_of
from runtide.cli.settings import read_settings
from runtide.cli.store import store_settings
from runtide.processor.faust_app import create_app
from runtide.testing.embedded import EmbeddedClickHouse
from runtide.testing.pem import Authority, make_authority
from runtide.warehouse.client import ClickHouseSettings, connect
from runtide.warehouse.errors import StoreError
from runtide.wire.errors import Unavailable


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("pem") / "ours")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("pem") / "others")


@contextmanager
def tls_in_front(port: int, context: ssl.SSLContext) -> Iterator[int]:
    """A port that ends TLS and hands on to a plain one, in a thread of its own."""
    loop, ready, bound = asyncio.new_event_loop(), threading.Event(), []
    done = asyncio.Event()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    async def main() -> None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
        bound.append(server.sockets[0].getsockname()[1])
        ready.set()
        await done.wait()
        server.close()

    loop.set_exception_handler(lambda *_: None)  # handshakes that are meant to fail
    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    ready.wait(10)
    try:
        yield bound[0]
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.close()


def test_clickhouse_over_mutual_tls(
    embedded_clickhouse: EmbeddedClickHouse,
    ours: Authority,
    others: Authority,
) -> None:
    server = embedded_clickhouse
    with tls_in_front(server.port, ours.server_context(mutual=True)) as port:
        told: dict[str, Any] = {"host": "127.0.0.1", "port": port, "username": "writer", "password": server.password}
        good = {"secure": True, "ca_file": ours.ca, "cert_file": ours.client, "key_file": ours.client_key}
        client = connect(ClickHouseSettings(**told, **good))
        assert client.command("SELECT currentUser() != ''", use_database=False) == 1
        client.close()
        for wrong in (
            {"secure": False},
            {"ca_file": others.ca},
            {"cert_file": "", "key_file": ""},
            {"cert_file": others.client, "key_file": others.client_key},
        ):
            with pytest.raises(StoreError):
                connect(ClickHouseSettings(**told, **(good | wrong), connect_timeout_s=2, answer_timeout_s=2))


def test_clickhouse_settings_arrive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = {"SECURE": "1", "CA_FILE": "/ca", "CERT_FILE": "/cert", "KEY_FILE": "/key", "HOST": "far", "PASSWORD": "pw"}
    for name, value in told.items():
        monkeypatch.setenv(f"RUNTIDE_CLICKHOUSE_{name}", value)
    for found in (store_of(read_settings(tmp_path)), store_settings(read_settings(tmp_path), writer=True)):
        assert (found.secure, found.ca_file, found.cert_file, found.key_file) == (True, "/ca", "/cert", "/key")
        assert (found.host, found.password) == ("far", "pw")


@asynccontextmanager
async def listener(context: ssl.SSLContext) -> AsyncIterator[tuple[int, list[dict[str, Any]], list[bytes]]]:
    """What looks like a broker until the handshake is done: keeps the client's certificates and first bytes."""
    certificates: list[dict[str, Any]] = []
    said: list[bytes] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        certificates.append(writer.get_extra_info("peercert"))
        said.append(await reader.read(1024))
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], certificates, said
    finally:
        server.close()
        await server.wait_closed()


def test_kafka_is_spoken_to_over_mutual_tls(ours: Authority) -> None:
    async def main() -> None:
        async with listener(ours.server_context(mutual=True)) as (port, certificates, said):
            security = {
                "security_protocol": "SSL",
                "ssl_cafile": ours.ca,
                "ssl_certfile": ours.client,
                "ssl_keyfile": ours.client_key,
            }
            publisher = KafkaPublisher(KafkaSettings(f"127.0.0.1:{port}", send_timeout_s=2, security=security))
            with pytest.raises(Unavailable):
                await publisher.publish(Message("p", b"k", b"v", 1))
            await publisher.close()
            assert ("email", "agent@vision") in certificates[0]["subjectAltName"]
            assert b"aiokafka" in said[0], "it speaks Kafka within TLS"

    asyncio.run(main())


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL", "SSL"])
def test_kafka_settings_arrive_at_both_clients(
    monkeypatch: pytest.MonkeyPatch, ours: Authority, tmp_path: Path, protocol: str
) -> None:
    from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

    security = {"security_protocol": protocol, "ssl_cafile": ours.ca}
    if "SASL" in protocol:
        security |= {"sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_username": "me", "sasl_plain_password": "pw"}
    monkeypatch.setenv("RUNTIDE_KAFKA_BOOTSTRAP", "k:9092")
    monkeypatch.setenv("RUNTIDE_KAFKA_SECURITY", json.dumps(security))
    kafka = kafka_settings(read_settings())
    ours_said = kafka.client()
    app = create_app(kafka, deriver=None, folder=tmp_path)  # type: ignore[arg-type]
    faust_said = credentials_to_aiokafka_auth(app.conf.broker_credentials, app.conf.ssl_context)
    for said in (ours_said, faust_said):
        assert said["security_protocol"] == protocol
        assert ("SSL" in protocol.split("_")) == (said.get("ssl_context") is not None)
        if "SASL" in protocol:
            assert (said["sasl_mechanism"], said["sasl_plain_username"]) == ("SCRAM-SHA-512", "me")
            assert said["sasl_plain_password"] == "pw"
    if context := ours_said.get("ssl_context"):
        assert len(context.get_ca_certs()) == 1, "only the authority that was named"
