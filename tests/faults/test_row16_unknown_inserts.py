"""Row 16 of docs/reliability.md: the network loses what ClickHouse says of an insert, and everything is stored once.

The sink inserts into a real engine through a bad network. Counted in the base tables, without FINAL and without
merges.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from runtide.bus.local import LocalBus
from runtide.sink import recall as recall_module
from runtide.sink.sink import Sink, SinkSettings
from runtide.testing.embedded import EmbeddedClickHouse
from runtide.testing.fault_proxy import FaultProxy, Way
from runtide.testing.streams import MadeStream, varied_stream
from runtide.testing.waiting import until_async
from runtide.v1.ingest_pb2 import Range
from runtide.warehouse.client import ClickHouseSettings, Client
from runtide.warehouse.verify import verify_run

pytestmark = pytest.mark.fault(16)

TABLES = ("points", "samples", "log_lines", "figures", "events", "dead_letters")
STORED_S = 30.0
ANSWER_S = 1.0
"""How long the sink waits for an answer here."""


@pytest.fixture
def network(embedded_clickhouse: EmbeddedClickHouse, client: Client) -> Iterator[FaultProxy]:
    """Between the sink and the store, where no merge hides a copy meanwhile."""
    for table in TABLES:
        client.command(f"SYSTEM STOP MERGES runtide.{table}")
    with FaultProxy(embedded_clickhouse.port) as proxy:
        yield proxy
    for table in TABLES:
        client.command(f"SYSTEM START MERGES runtide.{table}")


@asynccontextmanager
async def sinking(network: FaultProxy, server: EmbeddedClickHouse) -> AsyncIterator[tuple[LocalBus, Sink]]:
    """A sink that reaches its store through the network only."""
    settings = ClickHouseSettings(server.host, network.port, "writer", server.password, answer_timeout_s=ANSWER_S)
    bus = LocalBus()
    sink = Sink(bus.consumer, settings, SinkSettings(backoff_s=(0.02, 0.1)))
    running = asyncio.create_task(sink.run())
    try:
        yield bus, sink
    finally:
        sink.stop()
        await running


async def publish(bus: LocalBus, made: MadeStream, part: Range) -> None:
    """Return when it is stored."""
    async with asyncio.timeout(STORED_S):
        await bus.publisher.publish(made.message(part))


def in_ranges(made: MadeStream, pieces: int) -> list[Range]:
    """The stream, every range with all kinds of records."""
    edges = made.edges
    cuts = [edges[place * (len(edges) - 1) // pieces] for place in range(pieces + 1)]
    return [made.range(start, end) for start, end in itertools.pairwise(cuts)]


def assert_once(client: Client, made: MadeStream) -> None:
    assert copies(client, made.run_id) == 0
    found = verify_run(client, made.project, made.run_id)
    assert found.clean, found.problems
    assert found.streams[0].ledger_mark == len(made.body)


def copies(client: Client, run: str) -> int:
    """Records of which a table has more rows than the record makes."""
    tables = " UNION ALL ".join(
        f"SELECT stream, offset, count() AS found, {'1' if table == 'dead_letters' else 'any(of)'} AS made "
        f"FROM runtide.{table} WHERE run_id = {{run:String}} GROUP BY stream, offset"
        for table in TABLES
    )
    rows = client.query(f"SELECT countIf(found > made) FROM ({tables})", parameters={"run": run}).result_rows
    return int(rows[0][0])


Fault = Callable[[FaultProxy, int], None]


def reply_is_reset(network: FaultProxy, after: int) -> None:
    network.to_client.cut_after = after


def reply_ends_early(network: FaultProxy, after: int) -> None:
    network.to_client.end_after = after


def request_is_reset(network: FaultProxy, after: int) -> None:
    network.to_server.cut_after = after


def request_ends_early(network: FaultProxy, after: int) -> None:
    network.to_server.end_after = after


@pytest.mark.parametrize("fault", [reply_is_reset, reply_ends_early, request_is_reset, request_ends_early])
def test_an_insert_whose_answer_is_lost_is_stored_once(
    network: FaultProxy, embedded_clickhouse: EmbeddedClickHouse, client: Client, fault: Fault
) -> None:
    made = varied_stream("s", 120, run_id=fault.__name__)

    async def run() -> int:
        async with sinking(network, embedded_clickhouse) as (bus, sink):
            first, *rest = in_ranges(made, 7)
            await publish(bus, made, first)  # from here on the sink knows the stream, and does nothing but insert
            for place, part in enumerate(rest):
                fault(network, place * 700)  # at another insert of the flush each time, or within one
                await publish(bus, made, part)
            assert network.connections >= 5  # it hit
            for way in (network.to_server, network.to_client):
                way.cut_after = way.end_after = None
            return sink.stats.retries

    retries = asyncio.run(run())
    assert_once(client, made)
    assert retries > 0


async def store_with_one_late(network: FaultProxy, server: EmbeddedClickHouse, made: MadeStream, way: Way) -> None:
    """The sink gives up waiting for the second of three ranges; what is late arrives before the third."""
    async with sinking(network, server) as (bus, sink):
        first, second, third = in_ranges(made, 3)
        await publish(bus, made, first)
        way.delay_s = 2 * ANSWER_S
        late = asyncio.create_task(publish(bus, made, second))
        await until_async(lambda: sink.stats.retries, STORED_S, "the sink gave up waiting")
        way.delay_s = 0.0
        await late
        await until_async(lambda: network.open == 1, STORED_S, "what was under way has arrived")
        await publish(bus, made, third)


def test_an_answer_that_comes_too_late_is_no_answer(
    network: FaultProxy, embedded_clickhouse: EmbeddedClickHouse, client: Client
) -> None:
    made = varied_stream("s", 60, run_id="late answer")
    asyncio.run(store_with_one_late(network, embedded_clickhouse, made, network.to_client))
    assert_once(client, made)


def test_an_insert_that_the_network_delivers_after_all_is_seen_once(
    network: FaultProxy, embedded_clickhouse: EmbeddedClickHouse, client: Client
) -> None:
    """ClickHouse cannot know that nobody waits for it any more, so here the last net holds: views read FINAL."""
    made = varied_stream("s", 60, run_id="late insert")
    asyncio.run(store_with_one_late(network, embedded_clickhouse, made, network.to_server))
    seen = client.query("SELECT count() FROM runtide.metrics WHERE run_id = 'late insert'").result_rows
    assert seen == [(verify_run(client, made.project, made.run_id).stored_points,)]
    assert seen == [(made.points - 5,)]  # five points are of steps whose names nobody knows


def test_without_asking_what_is_stored_the_same_makes_copies(
    network: FaultProxy, embedded_clickhouse: EmbeddedClickHouse, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = varied_stream("s", 40, run_id="not asked")
    monkeypatch.setattr(recall_module, "_beyond", lambda client, states: [])

    async def run() -> None:
        async with sinking(network, embedded_clickhouse) as (bus, _):
            first, second = in_ranges(made, 2)
            await publish(bus, made, first)
            reply_is_reset(network, 0)
            await publish(bus, made, second)

    asyncio.run(run())
    assert copies(client, made.run_id) > 0
