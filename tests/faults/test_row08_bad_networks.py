"""Row 8 of docs/reliability.md: a bad network between the agent and its gateway, and between the gateway and Kafka.

Everything arrives and is stored once, no call of log() waits for the network, and what travels in vain stays less than
what arrives.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from runtide.agent.gateway import DEAD_S, GatewayClient
from runtide.agent.shipper import Shipper
from runtide.agent.streams import TailedStream
from runtide.spool.layout import Position
from runtide.testing.fault_proxy import FaultProxy
from runtide.testing.stack import Stack
from runtide.testing.waiting import until, until_async
from runtide.v1 import ingest_pb2 as pb
from runtide.v1.records_pb2 import LogLine, Record

from tests.pipeline.agent_scripted import Job, Scripted, agent, fails, living, serving, take, write_stream

pytestmark = pytest.mark.fault(8)


@pytest.fixture
def gateway() -> Iterator[Scripted]:
    with serving(Scripted()) as served:
        yield served


@pytest.fixture
def network(gateway: Scripted) -> Iterator[FaultProxy]:
    """Between an agent and the scripted gateway."""
    with FaultProxy(port_of(gateway.url)) as proxy:
        yield proxy


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


def url_of(network: FaultProxy) -> str:
    return f"grpc://127.0.0.1:{network.port}"


def arrived(job: Job) -> bool:
    return Position.read(job.writer.folder).acknowledged == job.writer.offset


LOGS = """
    import json, sys, time, runtide
    from pathlib import Path
    run = runtide.init("networks", run_id="r")
    step, slowest = 0, 0.0
    while not Path(sys.argv[1]).exists():
        began = time.monotonic()
        run.log({f"m{k}": float(step) for k in range(50)}, step=step)
        slowest = max(slowest, time.monotonic() - began)
        step += 1
        time.sleep(0.002)
    run.finish(timeout=0)
    print(json.dumps([step, slowest]))
"""


@pytest.mark.slow
def test_whatever_the_network_does_all_is_stored_once_and_no_log_waits(stack: Stack, tmp_path: Path) -> None:
    stack.up("--no-dashboard")
    enough = tmp_path / "enough"
    with FaultProxy(stack.state.ports.gateway) as network:
        job = stack.job(LOGS, str(enough), RUNTIDE_URL=url_of(network))
        until(lambda: network.to_client.passed > 1000, 30, "Pushes pass")
        for after in (20_000, 100):
            network.to_server.cut_after = after
            until(lambda: network.to_server.cut_after is None, 30, "a Push was cut")
        for _ in range(2):
            network.to_client.cut_after = 0
            until(lambda: network.to_client.cut_after is None, 30, "an acknowledgement was cut")
        network.to_server.end_after = 20_000
        until(lambda: network.to_server.end_after is None, 30, "the connection was closed by half")
        network.refuse(True)
        network.cut()
        time.sleep(1.0)
        network.refuse(False)
        passes(network)
        network.to_server.delay_s = network.to_client.delay_s = 0.3
        passes(network)
        network.to_server.delay_s = network.to_client.delay_s = 0.0
        network.to_server.bytes_per_s = 100_000
        passes(network)
        network.to_server.bytes_per_s = 0
        enough.touch()
        assert job.wait(30) == 0
        assert job.stdout is not None
        steps, slowest = json.loads(job.stdout.readline())
        stack.wait_state("r", "finished", 60)
        stack.wait_agent(60)
    code, found = stack.verify("r")
    assert code == 0, found["problems"]
    assert (found["stored_points"], found["duplicates"], found["gaps"]) == (50 * steps, 0, 0)
    assert slowest < 1.0  # a shared machine; it waits for the disk only


def passes(network: FaultProxy) -> None:
    """Wait until some acknowledgements have passed."""
    before = network.to_client.passed
    until(lambda: network.to_client.passed > before + 200, 30, "acknowledgements pass")


@pytest.mark.slow
def test_a_connection_that_died_in_silence_is_left(tmp_path: Path, gateway: Scripted, network: FaultProxy) -> None:
    with living() as process, agent(tmp_path):
        job = write_stream(tmp_path, process, url_of(network))
        until(lambda: arrived(job), 20, "it arrives")
        network.black_hole(True)
        job.log(100)
        until(lambda: network.lost == 1, 10, "a Push fell into it")
        network.black_hole(False)  # for new connections
        until(lambda: arrived(job), DEAD_S + 15, "the agent has opened another one")
        assert gateway.records(job.info.stream) == job.elements
    assert network.connections == 2


def test_a_push_is_no_larger_than_a_slow_link_carries_within_its_deadline(
    tmp_path: Path, gateway: Scripted, network: FaultProxy
) -> None:
    with living() as process:
        job = write_stream(tmp_path, process, url_of(network))
        backlog(job, 2**20)
        network.to_server.bytes_per_s = 200_000  # the whole Push would take 5 s

        async def ship() -> None:
            client = GatewayClient(url_of(network))
            shipper = Shipper(url_of(network), client, "test", push_timeout_s=1.0)
            stream = TailedStream(job.writer.folder, job.info)
            shipper.streams.add(stream)
            running = asyncio.create_task(shipper.run())
            shipper.offer(stream)
            await until_async(lambda: stream.acknowledged == job.writer.offset, 40, "all has arrived")
            running.cancel()
            await asyncio.wait({running})
            await client.close()

        asyncio.run(ship())
    assert gateway.records(job.info.stream) == job.elements
    assert network.to_server.passed < 2 * job.writer.offset


def test_the_agents_retries_never_multiply_the_load(tmp_path: Path, gateway: Scripted, network: FaultProxy) -> None:
    """A backlog, and a gateway that soon takes nothing for four seconds; then nothing above half a MiB for two."""
    began: list[float] = []
    busy = fails(grpc.StatusCode.RESOURCE_EXHAUSTED, ("retry-after-ms", "200"))

    def judge(request: pb.PushRequest, context: grpc.ServicerContext) -> pb.PushResponse:
        began.append(time.monotonic())
        age = began[-1] - began[0]
        refused = 0.2 < age < 4.2 or (age < 6.2 and request.ByteSize() > 2**19)
        return (busy if refused else take)(request, context)

    gateway.always = judge
    with living() as process:
        job = write_stream(tmp_path, process, url_of(network))
        backlog(job, 24 * 2**20)
        written = job.elements
        with agent(tmp_path):
            until(lambda: arrived(job), 40, "all has arrived")
    assert sum(0.2 < at - began[0] < 4.2 for at in began) > 5  # it was refused, and tried again
    assert gateway.records(job.info.stream) == written
    assert network.to_server.passed < 2 * job.writer.offset


def backlog(job: Job, size: int) -> None:
    """Write much at once."""
    line = Record(log_line=LogLine(line="x" * 20_000))
    while job.writer.offset < size:
        assert job.writer.append_record(line)
