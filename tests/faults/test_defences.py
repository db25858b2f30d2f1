"""Each net alone: the same harm with it and without it, and without it the damage is seen.

Counted in the base tables, without FINAL. Where another net would hide the damage, that one is off on both sides.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from runtide.agent.streams import TailedStream
from runtide.bus import Message
from runtide.bus.local import LocalBus
from runtide.gateway.checks import check_range
from runtide.gateway.limits import Limits
from runtide.sink import recall as recall_module
from runtide.sink.arrived import read
from runtide.sink.sink import Sink, SinkSettings
from runtide.sink.store import Store
from runtide.sink.streams import Extent, StreamState
from runtide.spool.layout import StreamInfo
from runtide.spool.reader import damaged_spans
from runtide.spool.writer import KeySetUse, SpoolWriter, new_stream_id
from runtide.testing.streams import MadeStream
from runtide.v1.records_pb2 import ROLE_RANK
from runtide.warehouse.client import Client
from runtide.warehouse.errors import StoreBusy
from runtide.warehouse.verify import Verification, verify_run
from runtide.warehouse.writer import Writer
from runtide.wire.decode import decode
from runtide.wire.framing import StepEncoder

NET = pytest.mark.parametrize("net", ["with the net", "without it"])


def made_stream(run: str) -> MadeStream:
    return MadeStream("s", run_id=run).open().key_set(1, "loss", "acc").steps(1, range(40)).close()


def four(made: MadeStream) -> list[Message]:
    """The stream in four ranges."""
    edges = made.edges
    cuts = [0, edges[11], edges[22], edges[33], edges[-1]]
    return [made.message(made.range(start, end)) for start, end in itertools.pairwise(cuts)]


def flush(store: Store, *messages: Message) -> None:
    store.flush([read(message) for message in messages])


def copies(client: Client, run: str) -> int:
    rows = client.query(
        "SELECT count() - uniqExact(stream, offset, metric) FROM runtide.points WHERE run_id = {run:String}",
        parameters={"run": run},
    ).result_rows
    return int(rows[0][0])


def verified(client: Client, run: str) -> Verification:
    return verify_run(client, "p", run)


@NET
def test_the_mark_keeps_copies_out(client: Client, monkeypatch: pytest.MonkeyPatch, net: str) -> None:
    made = made_stream(f"mark {net}")
    store = Store(client, Writer(client))
    if net == "without it":
        monkeypatch.setattr(Extent, "missing", lambda self, start, end: [(start, end)])
    first, *rest = four(made)
    flush(store, first)
    flush(store, first, *rest)
    assert (copies(client, made.run_id) > 0) is (net == "without it")
    assert verified(client, made.run_id).clean is (net == "with the net")
    seen = client.query("SELECT count() FROM runtide.metrics WHERE run_id = {r:String}", parameters={"r": made.run_id})
    assert seen.result_rows == [(80,)]  # the last net: views read FINAL, so that nobody sees the copies


@NET
def test_holes_let_late_ranges_in(client: Client, monkeypatch: pytest.MonkeyPatch, net: str) -> None:
    def without_holes(extent: Extent, start: int, end: int) -> None:
        extent.mark = max(extent.mark, end)

    made = made_stream(f"holes {net}")
    store = Store(client, Writer(client))
    if net == "without it":
        monkeypatch.setattr(Extent, "add", without_holes)
    one, two, three, four_ = four(made)
    for message in (one, three, four_, two):
        flush(store, message)
    found = verified(client, made.run_id)
    assert found.stored_points == (80 if net == "with the net" else 58)
    assert found.clean is (net == "with the net")
    assert (found.missing_ranges > 0) is (net == "without it")


@NET
def test_the_tables_know_what_the_ledger_does_not(client: Client, monkeypatch: pytest.MonkeyPatch, net: str) -> None:
    class Died(BaseException):
        """The process ends before it writes the ledger."""

    class UpToTheLedger(Writer):
        def insert(self, table: str, batch: object) -> None:
            if table == "ledger":
                raise Died
            super().insert(table, batch)  # type: ignore[arg-type]

    made = made_stream(f"tables {net}")
    if net == "without it":
        monkeypatch.setattr(recall_module, "_beyond", lambda client, states: [])
    with pytest.raises(Died):
        flush(Store(client, UpToTheLedger(client)), *four(made)[:2])
    flush(Store(client, Writer(client)), *four(made))
    assert (copies(client, made.run_id) > 0) is (net == "without it")
    assert verified(client, made.run_id).clean is (net == "with the net")


@NET
def test_what_does_not_go_on_at_the_mark_makes_a_sink_look_again(
    client: Client, monkeypatch: pytest.MonkeyPatch, net: str
) -> None:
    """Order: a partition went to another sink and came back, and the one that had it first remembers old marks."""
    made = made_stream(f"order {net}")
    if net == "without it":
        monkeypatch.setattr(StreamState, "is_doubtful", lambda self, start, end: False)
    first, second = Store(client, Writer(client)), Store(client, Writer(client))
    one, two, three, four_ = four(made)
    flush(first, one)
    flush(second, two, three)
    flush(first, four_)
    flush(first, two)  # a copy
    assert (copies(client, made.run_id) > 0) is (net == "without it")
    assert verified(client, made.run_id).clean is (net == "with the net")


@NET
def test_acknowledged_means_stored(client: Client, monkeypatch: pytest.MonkeyPatch, net: str) -> None:
    """A process dies with what its bus holds; the writer sends again only what was not acknowledged."""

    class Away(Writer):
        def insert(self, table: str, batch: object) -> None:
            raise StoreBusy("the store is away")

    made = made_stream(f"ack {net}")

    async def acknowledged_before_the_death() -> list[bool]:
        bus = LocalBus()
        publish = bus.publisher.publish
        if net == "without it":  # the answer comes as soon as the bus has the bytes
            held: list[asyncio.Task[None]] = []

            async def at_once(message: Message) -> None:
                held.append(asyncio.create_task(publish(message)))

            monkeypatch.setattr(bus.publisher, "publish", at_once)
        sink = Sink(bus.consumer, lambda: client, SinkSettings(backoff_s=(0.01, 0.01)), writer=Away)
        running = asyncio.create_task(sink.run())
        publishing = [asyncio.create_task(bus.publisher.publish(message)) for message in four(made)]
        await asyncio.wait(publishing, timeout=0.5)
        done = [task.done() for task in publishing]
        sink.stop()
        await running
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        return done

    done = asyncio.run(acknowledged_before_the_death())
    again = [message for message, known in zip(four(made), done, strict=True) if not known]
    if again:
        flush(Store(client, Writer(client)), *again)
    points = client.query("SELECT count() FROM runtide.points WHERE run_id = {r:String}", parameters={"r": made.run_id})
    assert points.result_rows == [(80 if net == "with the net" else 0,)]


def test_the_crc_keeps_wrong_values_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit is turned, 300 times. The gateway looks and the sink looks again; without either it is seen."""
    made = made_stream("crc")
    right = values_of(made, bytes(made.body))
    dice = random.Random(3)
    bodies = []
    for _ in range(300):
        body = bytearray(made.body)
        body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)
        bodies.append(bytes(body))
    for body in bodies:
        damaged = made.range()
        damaged.body = body
        assert not isinstance(check_range(damaged, Limits()), int)
        assert damaged_spans(body)
        assert values_of(made, body) <= right
    monkeypatch.setattr("runtide.wire.decode.sound", lambda body, element: True)
    assert sum(bool(values_of(made, body) - right) for body in bodies) > 50


def values_of(made: MadeStream, body: bytes) -> set[float]:
    """What a sink makes of bytes that no gateway has looked at."""
    return set(decode(made.range(), body).steps.values)


@dataclass
class Disk:
    """What has reached the platters: of each file, as much as it had when it was synced last."""

    synced: dict[str, int]

    def fsync(self, descriptor: int) -> None:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        self.synced[path] = os.fstat(descriptor).st_size

    def power_loss(self, folder: Path) -> None:
        for segment in folder.glob("*.seg"):
            os.truncate(segment, self.synced.get(str(segment), 0))


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[SpoolWriter]:
    info = StreamInfo(new_stream_id(), "p", "r", 0, 1, "h", ROLE_RANK, os.getpid(), 0.0, "grpc://127.0.0.1:1")
    made = SpoolWriter.create(tmp_path, info)
    yield made
    made.close()


@NET
def test_fsync_outlives_a_power_loss(
    writer: SpoolWriter,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    require: Callable[[object, str], None],
    net: str,
) -> None:
    require(Path("/proc/self/fd").is_dir(), "names of open files come from /proc")
    disk = Disk({})
    if net == "with the net":
        monkeypatch.setattr(os, "fsync", disk.fsync)
    folder = next(path for path in tmp_path.iterdir() if path.is_dir())
    stream = TailedStream(folder, StreamInfo.read(folder))
    encoder, use = StepEncoder(1, 1), KeySetUse.of(1, ("a",))
    for step in range(10):
        assert writer.append_step(encoder.encode(step, 1, [1.0]), use)
    synced = writer.offset
    stream.sync_to_disk()
    for step in range(10, 20):
        assert writer.append_step(encoder.encode(step, 1, [1.0]), use)
    disk.power_loss(folder)
    left = sum(path.stat().st_size for path in folder.glob("*.seg"))
    assert left == (synced if net == "with the net" else 0)
