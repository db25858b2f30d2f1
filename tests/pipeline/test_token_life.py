"""Tokens from `runtide token create` to a job's rows: on one machine, and on two gateways behind Kafka."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest
from runtide.testing.gateway import bearer
from runtide.testing.kafka_stack import KafkaStack, home_of
from runtide.testing.mock_kafka import MockKafka
from runtide.testing.stack import Stack
from runtide.testing.waiting import until
from runtide.v1 import ingest_pb2 as pb
from runtide.v1.ingest_pb2_grpc import IngestStub

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

JOB = """
    import runtide
    with runtide.init(run_id="same") as run:
        for step in range(5):
            run.log({"loss": step}, step=step)
"""


def preflight(port: int, token: str) -> grpc.StatusCode:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            IngestStub(channel).Preflight(pb.PreflightRequest(), metadata=bearer(token), timeout=10)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


def created(stack: Stack, *arguments: str) -> str:
    found = stack.runtide("token", "create", *arguments)
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("runtide_")
    assert found.stdout.strip() not in found.stderr
    return found.stdout.strip()


def listed(stack: Stack) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = json.loads(stack.runtide("token", "list", "--json").stdout)
    return rows


def test_one_machine(stack: Stack) -> None:
    stack.up("--no-dashboard")
    port = stack.state.ports.gateway
    stack.run_job(JOB)
    stack.wait_state("same", "finished")
    assert preflight(port, "") is grpc.StatusCode.OK

    one, two = created(stack, "--project", "vision", "--role", "writer"), created(stack, "-p", "speech", "-r", "writer")
    until(lambda: preflight(port, "") is grpc.StatusCode.UNAUTHENTICATED, 5, "tokens are needed")
    for token in (one, two):
        stack.run_job(JOB, RUNTIDE_TOKEN=token)
    until(lambda: points(stack) == [("default", 5), ("speech", 5), ("vision", 5)], 30, "three runs of one id")

    job = stack.job(JOB, RUNTIDE_RUN_ID="refused")
    assert job.wait(60) == 0, "a job without a token trains on"
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    assert not [line for line in lines if one in line or two in line]
    secrets = [token.split("_", 2)[2] for token in (one, two)]
    for path in stack.home.rglob("*"):
        if path.is_file() and "clickhouse/" not in str(path):
            text = path.read_bytes().decode(errors="replace")
            if path.name == "stream.json":
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
            else:
                assert not [secret for secret in secrets if secret in text], path

    ids = {row["project"]: row["id"] for row in listed(stack)}
    found = stack.runtide("token", "revoke", ids["vision"])
    assert found.returncode == 0, found.stderr
    until(lambda: preflight(port, one) is grpc.StatusCode.UNAUTHENTICATED, 5, "the revocation acts")
    assert preflight(port, two) is grpc.StatusCode.OK
    assert {row["project"]: row["good"] for row in listed(stack)} == {"vision": False, "speech": True}
    # a gateway that is started anew knows the same
    ingest = psutil.Process(stack.state.parts["ingest"].pid)
    ingest.kill()
    until(lambda: preflight(port, two) is grpc.StatusCode.OK, 30, "the gateway is back")
    assert preflight(port, one) is grpc.StatusCode.UNAUTHENTICATED
    assert preflight(port, "") is grpc.StatusCode.UNAUTHENTICATED


def points(stack: Stack) -> list[tuple[str, int]]:
    return list(stack.sql("SELECT project, count() FROM metrics WHERE run_id = 'same' GROUP BY 1 ORDER BY 1"))


@pytest.fixture
def broker() -> Iterator[MockKafka]:
    with MockKafka() as made:
        yield made


def test_two_gateways_on_kafka_without_a_store(broker: MockKafka, tmp_path: Path) -> None:
    """ClickHouse is away all the time, and Kafka for a while: who was let in before stays in."""
    stack = KafkaStack(home_of(tmp_path), bootstrap=broker.bootstrap)
    settings = stack.settings()
    for topic in (settings.records_topic, settings.changes_topic, settings.control_topic):
        broker.create_topic(topic, 4)
    (stack.home / "secret").write_text("x" * 32)
    try:
        before = created(stack, "--project", "vision", "--role", "reader", "--name", "before any gateway")
        for _ in range(2):
            stack.start_gateway()
        after = created(stack, "--project", "vision", "--role", "writer")
        for port in stack.gateways:
            assert preflight(port, "") is grpc.StatusCode.UNAUTHENTICATED
            assert preflight(port, before) is grpc.StatusCode.OK
            until(lambda port=port: preflight(port, after) is grpc.StatusCode.OK, 5, "the new token is known")
        broker.set_down()
        until_s = time.monotonic() + 4
        while time.monotonic() < until_s:
            for port in stack.gateways:
                assert preflight(port, before) is grpc.StatusCode.OK
                assert preflight(port, "") is grpc.StatusCode.UNAUTHENTICATED
            time.sleep(0.3)
        broker.set_up()
        ids = {row["role"]: row["id"] for row in listed(stack)}
        found = stack.runtide("token", "revoke", ids["reader"])
        assert found.returncode == 0, found.stderr
        for port in stack.gateways:
            until(lambda port=port: preflight(port, before) is grpc.StatusCode.UNAUTHENTICATED, 10, stack.logs())
            assert preflight(port, after) is grpc.StatusCode.OK
        assert before.split("_", 2)[2] not in stack.logs()
    finally:
        stack.end()
