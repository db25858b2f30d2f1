"""Row 17 of docs/reliability.md: what is left where a sink freezes between its last look and the store's answer.

No look of a sink can be as late as its insert. What comes too late lies twice in one base table until ClickHouse merges
it; here is what readers see meanwhile. And how a sink knows when to store nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import pyarrow as pa
import pytest
from runtide.bus import Lapsed, Message
from runtide.bus.kafka import KafkaConsumer, KafkaPublisher, KafkaSettings
from runtide.bus.kafka.membership import Membership
from runtide.processor.deriver import Deriver
from runtide.sink.arrived import read
from runtide.sink.store import Store, TakenAway
from runtide.testing.mock_kafka import MockKafka
from runtide.testing.streams import MadeStream, varied_stream
from runtide.testing.waiting import until_async
from runtide.warehouse.client import Client
from runtide.warehouse.verify import verify_run
from runtide.warehouse.writer import Writer

pytestmark = pytest.mark.fault(17)

TABLES = ("dead_letters", "points", "samples", "log_lines", "figures", "events")


class Freezing(Writer):
    """Freezes before one insert, when it has looked for the last time; others work meanwhile."""

    def __init__(self, client: Client, table: str, meanwhile: Callable[[], None]) -> None:
        super().__init__(client)
        self._table, self._meanwhile = table, meanwhile
        self.woken = False

    def insert(self, table: str, batch: pa.RecordBatch | pa.Table) -> None:
        if table == self._table and not self.woken:
            self._meanwhile()
            self.woken = True
        super().insert(table, batch)

    def hold(self) -> AbstractContextManager[bool]:
        return nullcontext(not self.woken)


def store_with_a_zombie(client: Client, made: MadeStream, table: str) -> None:
    """Two sinks store the same; the first one froze before it inserted into a table, and wakes up when all is there."""
    parts = [read(made.message(made.range(0, made.edges[40]))), read(made.message(made.range(made.edges[40])))]

    def other() -> None:
        store = Store(client, Writer(client))
        store.forget(others=True)
        store.flush(parts)

    writer = Freezing(client, table, other)
    try:
        Store(client, writer).flush(parts[:1], writer.hold)
    except TakenAway:
        assert table != "ledger"
    assert writer.woken


def copies(client: Client, run: str) -> set[str]:
    """Tables with more rows than distinct ones."""
    keys = {"points": "(stream, offset, metric)", "samples": "(stream, offset, device, name)"}
    found = set()
    for table in TABLES:
        sql = f"SELECT count(), uniqExact{keys.get(table, '(stream, offset)')} FROM runtide.{table} WHERE run_id = {{r:String}}"  # noqa: E501
        ((count, distinct),) = client.query(sql, parameters={"r": run}).result_rows
        assert distinct > 0, table
        if count > distinct:
            found.add(table)
    return found


def seen(client: Client, run: str) -> dict[str, int]:
    """How much a reader finds of a run in every view that has runs, and what the summaries count."""
    views = client.query(
        "SELECT DISTINCT table FROM system.columns WHERE database = 'runtide' AND name = 'run_id' AND table IN "
        "(SELECT name FROM system.tables WHERE database = 'runtide' AND engine = 'View')"
    ).result_rows
    found = {}
    for view in [view for (view,) in views] + ["metric_summary|sum(count)", "streams|sum(stored_offset)"]:
        name, _, what = view.partition("|")
        sql = f"SELECT {what or 'count()'} FROM runtide.{name} WHERE run_id = {{r:String}}"
        found[view] = int(client.query(sql, parameters={"r": run}).result_rows[0][0])
    return found


@contextmanager
def no_merges(client: Client) -> Iterator[None]:
    """They would take the copies away before anybody has looked."""
    for table in TABLES:
        client.command(f"SYSTEM STOP MERGES runtide.{table}")
    try:
        yield
    finally:
        for table in TABLES:
            client.command(f"SYSTEM START MERGES runtide.{table}")


@pytest.mark.parametrize("table", [*TABLES, "ledger"])
def test_an_insert_that_comes_too_late_is_counted_once_by_readers(client: Client, table: str) -> None:
    on_time, late = (varied_stream("s", run_id=f"{when}-{table}") for when in ("good", "late"))  # of one length
    Store(client, Writer(client)).flush([read(on_time.message(on_time.range()))])
    with no_merges(client):
        store_with_a_zombie(client, late, table)
        Deriver(lambda: client).settle()
        assert copies(client, late.run_id) == {table} - {"ledger"}
        assert seen(client, late.run_id) == seen(client, on_time.run_id)
        assert seen(client, late.run_id)["metrics"] > 0
        told = verify_run(client, "p", late.run_id).problems
        assert bool(told) is (table != "ledger")
        assert all("rows, but 1 distinct" in text or "rows, but 2 distinct" in text for text in told), told
    if table != "ledger":
        client.command(f"OPTIMIZE TABLE runtide.{table} FINAL")
    assert verify_run(client, "p", late.run_id).clean


def test_a_sink_that_is_not_sure_stores_nothing_and_looks_again_afterwards(client: Client) -> None:
    made = varied_stream("s", run_id="unsure")
    parts = [read(made.message(made.range(0, made.edges[40]))), read(made.message(made.range(made.edges[40])))]
    one, other = Store(client, Writer(client), backoff_s=(0.001, 0.01)), Store(client, Writer(client))
    one.flush(parts[:1])
    asked = 0

    def hold() -> AbstractContextManager[bool]:
        nonlocal asked
        asked += 1
        if asked == 3:
            other.flush(parts)
        if asked in range(2, 6):
            raise Lapsed("nobody has answered")
        return nullcontext(True)

    with no_merges(client):
        assert one.flush(parts, hold) == []
        assert copies(client, "unsure") == set()
    assert asked > 5
    assert verify_run(client, "p", "unsure").clean


class Question:
    """A client of aiokafka, as far as Membership touches it."""

    def __init__(self) -> None:
        self._client = self
        self.error_code = 0

    async def send(self, node_id: object, request: object, **more: object) -> Question:
        return self


def test_partitions_are_trusted_for_a_session_after_the_last_question_that_was_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    member, kafka = Membership(10, lambda: now[0]), Question()
    monkeypatch.setattr("runtide.bus.kafka.membership.HeartbeatRequest", str)
    member.listen(kafka)

    def ours(epoch: int) -> bool | None:
        try:
            with member.hold(epoch) as found:
                return found
        except Lapsed:
            return None

    async def heartbeat(code: int = 0) -> None:
        kafka.error_code = code
        await kafka._client.send(1, "heartbeat", group=1)

    async def main() -> None:
        assert ours(1) is None  # never heard of it
        await heartbeat()
        assert ours(1) is True
        now[0] += 9.9
        assert ours(1) is True
        await heartbeat(27)  # a rebalance: the session does not count any more
        now[0] += 0.2
        assert ours(1) is None
        await heartbeat()
        assert ours(1) is True
        await member.let_go()
        assert ours(1) is False
        now[0] += 100
        assert ours(1) is False  # what was taken away stays so, heard or not

    asyncio.run(main())


def test_partitions_are_let_go_of_only_after_an_insert_under_way() -> None:
    member = Membership(30, lambda: 0.0)
    member._heard_at = 0.0

    async def main() -> None:
        with member.hold(1) as ours:
            assert ours
            leaving = asyncio.create_task(member.on_partitions_revoked(()))
            await until_async(lambda: member.epoch > 1)
            done, _ = await asyncio.wait({leaving}, timeout=0.2)
            assert not done
        await asyncio.wait_for(leaving, 5)

    asyncio.run(main())


def test_a_sink_whose_broker_is_away_for_a_session_is_not_sure_until_it_is_back() -> None:
    with MockKafka() as mock:
        settings = KafkaSettings(mock.bootstrap, "t", session_timeout_s=1.0, send_timeout_s=1.0)
        mock.create_topic(settings.records_topic)

        async def main() -> None:
            publisher, consumer = KafkaPublisher(settings), KafkaConsumer(settings)
            await publisher.publish(Message("p", b"k", b"v", 1))

            def sure() -> bool:
                try:
                    with consumer.hold(consumer.epoch) as ours:
                        return ours
                except Lapsed:
                    return False

            polling = True

            async def poll() -> None:
                while polling:
                    await consumer.poll(0.05)

            task = asyncio.create_task(poll())
            await until_async(sure, 20, "it has partitions")
            mock.set_down()
            await until_async(lambda: not sure(), 10, "it is not sure any more")
            mock.set_up()
            await until_async(sure, 30, "it is sure again")
            polling = False
            await task
            await consumer.close()
            await publisher.close()

        asyncio.run(main())
