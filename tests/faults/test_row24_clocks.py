"""Row 24 of docs/reliability.md: clocks that are wrong, that are set, or that stand still; of jobs and of services.

What must hold: nothing is lost, the order is that of steps and offsets, state and duration of a run are what they were
in truth, and how far a clock is off can be seen.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import InvalidTimestampError
from runtide.bus import Message
from runtide.bus.kafka import KafkaConsumer, KafkaPublisher, KafkaSettings, ensure_topics
from runtide.bus.kafka.lag import measure
from runtide.cli.reading import clock_text, whole_run
from runtide.cli.store import RunKey
from runtide.cli.tail import merged
from runtide.processor import facts as facts_module
from runtide.processor.deriver import Deriver
from runtide.processor.facts import Event, fold
from runtide.processor.store import steady_clock
from runtide.sink.arrived import read
from runtide.sink.store import Store
from runtide.testing.clocks import YEAR_S, ManualClock, WallClock
from runtide.testing.mock_kafka import MockKafka
from runtide.testing.stack import Stack
from runtide.testing.streams import NOW_US, MadeStream
from runtide.testing.waiting import until
from runtide.v1 import records_pb2 as v1
from runtide.warehouse.client import Client
from runtide.warehouse.queries.logs import log_tail
from runtide.warehouse.verify import verify_run
from runtide.warehouse.writer import Writer
from runtide.wire.clocks import ahead, set_right

pytestmark = pytest.mark.fault(24)

SECOND = 1_000_000
YEAR_US = int(YEAR_S) * SECOND
NET = pytest.mark.parametrize("net", ["with the net", "without it"])

JOB = """
    import sys, time, runtide
    from pathlib import Path
    asked = Path(sys.argv[1])
    with runtide.init("clocks", run_id=sys.argv[2], config={"lr": 0}) as run:
        for part in range(4):
            run.config.update({"lr": part})
            for step in range(10):
                run.log({"loss": float(step)}, step=part * 10 + step)
            while not (asked / f"go{part}").exists():
                time.sleep(0.01)
"""
"""Four parts; after each it waits, so that the clock can be set."""


class Host:
    """A host with a clock of its own, on which a job and its agent run."""

    def __init__(self, folder: Path, off_s: float, *sets: Callable[[WallClock], None]) -> None:
        folder.mkdir()
        self.folder, self.run, self.sets = folder, folder.name, sets
        self.clock = WallClock(folder)
        self.clock.off_by(off_s)

    def start(self, stack: Stack) -> None:
        told = {**self.clock.variables, "RUNTIDE_DIR": str(self.folder / "spool")}
        stack.job(JOB, str(self.folder), self.run, **told)

    def go_on(self, stack: Stack, part: int) -> None:
        """Wait until a part is stored, set the clock, and let the job go on."""
        where = f"run_id = '{self.run}' AND step = {part * 10 + 9}"
        until(lambda: stack.sql(f"SELECT 1 FROM points WHERE {where}"), 30, f"{self.run}: part {part} is stored")
        if part < len(self.sets):
            self.sets[part](self.clock)
        (self.folder / f"go{part}").touch()


@pytest.mark.slow
def test_the_clock_of_a_jobs_host_may_be_anything(stack: Stack, tmp_path: Path) -> None:
    stack.up("--no-dashboard")
    jumps: list[Callable[[WallClock], None]] = [
        lambda clock: clock.off_by(-YEAR_S),
        lambda clock: clock.off_by(YEAR_S),
        lambda clock: clock.off_by(-3600),
    ]
    stories = {
        "ahead": Host(tmp_path / "ahead", YEAR_S),
        "behind": Host(tmp_path / "behind", -YEAR_S),
        "jumps": Host(tmp_path / "jumps", 0, *jumps),
        "frozen": Host(tmp_path / "frozen", 0, lambda clock: clock.freeze(1_700_000_000)),
    }
    for host in stories.values():
        host.start(stack)
    for part in range(4):
        for host in stories.values():
            host.go_on(stack, part)
    assert [job.wait(60) for job in stack.jobs] == [0] * 4
    for run in stories:
        stack.wait_state(run, "finished")
    verified = stack.runtide("verify", "--all")
    assert verified.returncode == 0, verified.stdout
    for run in stories:
        assert stack.sql(f"SELECT count(), uniqExact(step) FROM points WHERE run_id = '{run}'") == [(40, 40)]
        row = "duration_s, abs(dateDiff('second', started_at, now())), JSONExtractInt(config, 'lr'), last_step"
        ((duration, age, rate, last),) = stack.sql(f"SELECT {row} FROM runs WHERE run_id = '{run}'")
        assert 0 < duration < 120, run
        assert age < 300, run
        assert (rate, last) == (3, 39), f"{run}: what was said last holds"
        until(
            lambda run=run: (
                stack.sql(  # type: ignore[misc]
                    f"SELECT last, last_step FROM metric_summary WHERE run_id = '{run}' AND rank = -1"
                )
                == [(9.0, 39)]
            ),
            20,
            "the summary is that of the last step",
        )
    spans = "min(clock_ahead_min_s), max(clock_ahead_max_s)"
    rows = stack.sql(f"SELECT run_id, {spans} FROM streams WHERE role = 'rank' GROUP BY run_id")
    clocks = {run: (low, high) for run, low, high in rows}
    assert clocks["ahead"] == (pytest.approx(YEAR_S, abs=5), pytest.approx(YEAR_S, abs=5))
    assert clocks["behind"] == (pytest.approx(-YEAR_S, abs=5), pytest.approx(-YEAR_S, abs=5))
    assert clocks["jumps"] == (pytest.approx(-YEAR_S, abs=5), pytest.approx(YEAR_S, abs=5))
    assert clocks["frozen"][0] < -YEAR_S
    shown = stack.runtide("show", "jumps").stdout
    assert "3,600 s behind; it was set meanwhile, it has been between -31,536,000 s and +31,536,000 s" in shown
    assert "clock of host" in stack.runtide("status").stdout


class Told:
    """A run of one rank and its agent; services and host have a clock each, and only what is said moves them."""

    def __init__(self, client: Client, run_id: str, days: int = 0) -> None:
        self.client, self.run_id = client, run_id
        self.host, self.gateway, self.here = ManualClock(), ManualClock(), ManualClock()
        self.rank = MadeStream(f"{run_id}-rank", run_id=run_id).add(stream_opened=self._opened(v1.ROLE_RANK))
        self.agent = MadeStream(f"{run_id}-agent", run_id=run_id, rank=-1, role=v1.ROLE_AGENT)
        self.agent.add(stream_opened=self._opened(v1.ROLE_AGENT))
        self.store = Store(client, Writer(client), days)
        self.sent: dict[str, int] = {}
        self.deriver = Deriver(lambda: client, self.here.us)
        self.knows_ahead = True

    def _opened(self, role: v1.Role) -> v1.StreamOpened:
        return v1.StreamOpened(time_us=self.host.us(), role=role, run_id=self.run_id, attempt=1, world_size=1)

    def move(self, seconds: float) -> None:
        for clock in (self.host, self.gateway, self.here):
            clock.move(seconds)

    def send(self, *streams: MadeStream) -> None:
        """Ship what is new, store it, and tell the deriver."""
        for made in streams or (self.rank, self.agent):
            start = self.sent.get(made.stream, 0)
            if start == len(made.body):
                continue
            message = made.message(made.range(start), self.gateway.us())
            if self.knows_ahead:
                message = replace(message, ahead_us=ahead(self.host.us(), self.gateway.us()))
            self.deriver.add(self.store.flush([read(message, self.here.us())]))
            self.sent[made.stream] = len(made.body)

    def beat(self) -> None:
        self.agent.add(heartbeat=v1.Heartbeat(time_us=self.host.us(), streams=[self.rank.stream]))

    def step(self, number: int) -> None:
        if not self.rank.names:
            self.rank.key_set(1, "loss")
        self.rank.step(1, number, float(number))

    def close(self, elapsed_s: float = 0) -> None:
        self.rank.add(
            stream_closed=v1.StreamClosed(
                time_us=self.host.us(), reason="finish", elapsed_us=int(elapsed_s * SECOND), records=0
            )
        )

    def row(self) -> dict[str, Any]:
        self.deriver.tick()
        found = self.client.query(f"SELECT * FROM runtide.runs WHERE run_id = '{self.run_id}'")
        return next(iter(found.named_results()))

    def live(self, seconds: int) -> list[str]:
        """The states of so many seconds with heartbeats, in order."""
        states: list[str] = []
        for second in range(seconds):
            self.move(1)
            if second % 5 == 0:
                self.beat()
            self.send()
            state = self.row()["state"]
            states += [state] if states[-1:] != [state] else []
        return states


@pytest.mark.parametrize("years", [1, -1])
def test_a_run_on_a_host_with_a_wrong_clock_lasts_as_long_as_it_lasted(client: Client, years: int) -> None:
    told = Told(client, f"host {years}")
    told.host.move(years * YEAR_S)
    told.rank.body.clear()
    told.rank.add(stream_opened=told._opened(v1.ROLE_RANK))
    assert told.live(20) == ["running"]
    row = told.row()
    assert 0 <= row["duration_s"] <= 21
    told.close()
    told.send()
    told.move(2)
    row = told.row()
    assert row["state"] == "finished"
    assert 19 <= row["duration_s"] <= 21
    assert abs(row["started_at"].timestamp() - 1_790_000_000) < 2


def test_a_spool_that_is_shipped_later_keeps_its_times_and_its_length(client: Client) -> None:
    """A host without a network for a day, whose clock was right, then was set: what was measured by itself counts."""
    told = Told(client, "offline")
    told.move(100)
    told.step(1)
    told.host.move(-YEAR_S)
    told.close(elapsed_s=100)
    told.host.move(YEAR_S)
    told.move(24 * 3600)
    told.send()
    told.move(1)
    row = told.row()
    assert row["duration_s"] == pytest.approx(100, abs=0.01)
    assert row["started_at"].timestamp() == 1_790_000_000


@pytest.mark.parametrize("seconds", [YEAR_S, -YEAR_S])
def test_the_gateways_clock_is_set_and_the_run_goes_on(client: Client, seconds: float) -> None:
    told = Told(client, f"gateway {seconds:.0f}")
    assert told.live(8) == ["running"]
    told.gateway.move(seconds)
    assert told.live(45) == ["running"], "heartbeats are heard whatever they are stamped with"
    told.move(40)
    assert told.row()["state"] == "crashed", "and silence too"


def test_a_processor_whose_clock_is_elsewhere_is_not_deceived_for_long(client: Client) -> None:
    told = Told(client, "elsewhere")
    told.here.move(YEAR_S)
    assert told.live(30)[-1] == "running"
    told.deriver = Deriver(lambda: client, told.here.us)
    assert told.live(15)[-1] == "running"
    told.move(40)
    assert told.row()["state"] == "crashed"


def test_the_rows_of_a_processor_that_was_ahead_do_not_stand_for_ever(client: Client) -> None:
    """Rows are replaced by later ones: one that was written a year ahead would win for a year."""
    told = Told(client, "ahead")
    told.here.move(YEAR_S)
    assert told.live(8)[-1] == "running"
    told.here.move(-YEAR_S)
    told.deriver = Deriver(lambda: client, told.here.us)
    told.step(1)
    told.close()
    told.send()
    told.move(2)
    assert told.row()["state"] == "finished"


def test_the_processors_own_clock_cannot_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = steady_clock()
    before = clock()
    monkeypatch.setattr("time.time_ns", lambda: 0)
    assert 0 <= clock() - before < 60 * SECOND


def test_how_far_the_host_is_off_goes_over_kafka_too() -> None:
    async def main() -> list[int | None]:
        with MockKafka() as broker:
            settings = KafkaSettings(broker.bootstrap, f"t{uuid.uuid4().hex}", group=uuid.uuid4().hex)
            broker.create_topic(settings.records_topic, 1)
            publisher, consumer = KafkaPublisher(settings), KafkaConsumer(settings)
            for ahead_us in (None, 0, YEAR_US, -YEAR_US):
                await publisher.publish(Message("p", b"k", b"v", NOW_US, ahead_us))
            found: list[Message] = []

            async def came() -> int:
                found.extend(await consumer.poll(0.1))
                return len(found)

            while await came() < 4:
                pass
            await publisher.close()
            await consumer.close()
            return [message.ahead_us for message in found]

    assert asyncio.run(asyncio.wait_for(main(), 30)) == [None, 0, YEAR_US, -YEAR_US]


@pytest.mark.kafka
@NET
def test_kafka_takes_what_a_gateway_publishes_whose_clock_is_ahead(
    require: Callable[[object, str], None], net: str
) -> None:
    """Brokers refuse messages that were stamped an hour ahead; so the stamp is theirs."""
    bootstrap = os.environ.get("RUNTIDE_TEST_KAFKA", "")
    require(bootstrap, "RUNTIDE_TEST_KAFKA does not name a real Kafka")
    settings = KafkaSettings(bootstrap, f"t{uuid.uuid4().hex}", partitions=1)

    async def main() -> None:
        if net == "with the net":
            await ensure_topics(settings)
        else:
            admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
            await admin.start()
            await admin.create_topics([NewTopic(settings.records_topic, 1, 1)])
            await admin.close()
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
        await producer.start()
        stamped = producer.send_and_wait(settings.records_topic, b"v", timestamp_ms=int((time.time() + YEAR_S) * 1000))
        if net == "with the net":
            await stamped
            (lag,) = await measure(settings)
            assert lag.messages == 1
            assert lag.seconds is not None
            assert lag.seconds < 60
        else:
            with pytest.raises(InvalidTimestampError):
                await stamped
        await producer.stop()

    asyncio.run(main())


def said(kind: str, offset: int, time_s: int, received_s: int, json_: str, stream: str = "s") -> Event:
    return Event("p", "r", kind, stream, 1, 0, time_s * SECOND, json_, offset, received_s * SECOND, None)


def lr(value: int) -> str:
    return json.dumps({"entries": [{"key": "lr", "json": str(value)}]})


@NET
def test_what_was_said_last_holds_though_the_clock_went_back(monkeypatch: pytest.MonkeyPatch, net: str) -> None:
    if net == "without it":
        monkeypatch.setattr(facts_module, "in_order", lambda events: sorted(events, key=lambda each: each.time_us))
    events = [
        said("config_set", 0, 1000, 1000, lr(1)),
        said("config_set", 10, 100, 1001, lr(2)),  # the host's clock was set back
        said("config_set", 20, 101, 500, lr(3)),  # and then the gateway's
        said("config_set", 15, 100, 1002, lr(7)),  # this came late
    ]
    assert fold(reversed(events)).config == {"lr": 3 if net == "with the net" else 1}


def test_the_stream_that_was_opened_last_decides_whatever_its_clock(client: Client) -> None:
    told = Told(client, "reopened")
    told.close()
    told.send()
    told.host.move(-YEAR_S)
    told.move(10)
    again = MadeStream("reopened-again", run_id="reopened").add(stream_opened=told._opened(v1.ROLE_RANK))
    told.send(again)
    told.move(2)
    assert told.row()["state"] == "running"


def test_a_step_long_ago_by_a_wrong_clock_is_no_stall(client: Client) -> None:
    told = Told(client, "stalled")
    told.host.move(-YEAR_S)
    told.rank.key_set(1, "loss").add(step=v1.Step(key_set=1, step=1, time_us=told.host.us(), values=[1.0]))
    told.send()
    assert told.live(3)[-1] == "running"
    told.deriver = Deriver(lambda: client, told.here.us)  # which has not seen it come
    told.move(1)
    assert told.row()["state"] == "running"
    states = set()
    for _ in range(13):
        told.move(25)
        told.beat()
        told.send()
        states.add(told.row()["state"])
    assert states == {"running", "stalled"}


@NET
def test_retention_counts_from_when_rows_are_stored(client: Client, net: str) -> None:
    """A gateway that believes to be in 1970, as machines without a battery do. ClickHouse knows better, and deletes."""
    told = Told(client, f"retention {net}", days=30)
    told.gateway.now = 0.0
    told.here.now = ManualClock(1_795_500_000.0).now
    if net == "without it":
        told.here.now = 0.0
    for number in range(10):
        told.step(number)
    told.send()
    client.command("OPTIMIZE TABLE runtide.points FINAL")
    rows = client.query(f"SELECT count() FROM runtide.points WHERE run_id = '{told.run_id}'").result_rows
    assert rows == [(10 if net == "with the net" else 0,)]
    assert not verify_run(client, "p", told.run_id).missing_ranges or net == "without it"


def test_readings_beyond_what_a_minute_can_be_are_in_no_wrong_one(client: Client) -> None:
    told = Told(client, "year 2150")
    late_us = 5_680_281_600 * SECOND
    reading = v1.Reading(name="cpu_percent", value=1.5)
    told.agent.add(sample=v1.Sample(time_us=told.host.us(), rank=-1, readings=[reading]))
    told.agent.add(sample=v1.Sample(time_us=late_us, rank=-1, readings=[reading]))
    told.send()
    told.deriver.settle()
    of_run = "WHERE run_id = 'year 2150'"
    assert client.query(f"SELECT count() FROM runtide.resources {of_run}").result_rows == [(2,)]
    windows = client.query(f"SELECT toUnixTimestamp(time) FROM runtide.sample_windows {of_run}").result_rows
    assert windows == [(1_790_000_000 // 60 * 60,)]


def test_lines_are_shown_in_the_order_in_which_they_were_printed(client: Client) -> None:
    told = Told(client, "lines")
    told.send()
    for number, year in enumerate((0, -1, 1, 0)):
        told.host.now = told.gateway.now + year * YEAR_S
        told.rank.add(log_line=v1.LogLine(time_us=told.host.us(), console=v1.CONSOLE_STDOUT, line=f"line {number}"))
        told.send()
        told.move(1)
    assert [row.line for row in log_tail(client, "p", "lines")] == [f"line {number}" for number in range(4)]
    assert [row.line for row in log_tail(client, "p", "lines", limit=2)] == ["line 2", "line 3"]
    page = [{"stream": "a", "offset": at, "time": time} for at, time in ((0, 5), (1, 1), (2, 7))]
    page.append({"stream": "b", "offset": 0, "time": 6})
    assert [(row["stream"], row["offset"]) for row in merged(page)] == [("a", 0), ("a", 1), ("b", 0), ("a", 2)]


def test_how_far_a_clock_is_off_can_be_read_by_sql_and_people(client: Client) -> None:
    told = Told(client, "skew")
    told.host.move(120)
    told.send()
    rows = client.query("SELECT DISTINCT host, clock_ahead_s FROM runtide.streams WHERE run_id = 'skew'").result_rows
    assert rows == [("h", 120.0)]
    streams = whole_run(client, RunKey("p", "skew"))["streams"]
    assert {clock_text(stream) for stream in streams} == {"clock of host h is 120 s ahead"}
    right = Told(client, "no skew")
    right.host.move(4)
    right.send()
    assert {clock_text(stream) for stream in whole_run(client, RunKey("p", "no skew"))["streams"]} == {""}


def test_a_restarted_sink_knows_the_clock_again(client: Client) -> None:
    told = Told(client, "recalled")
    told.host.move(-500)
    told.step(1)
    told.send()
    told.store = Store(client, Writer(client))
    told.host.move(600)
    told.beat()
    told.step(2)
    told.send()
    columns = "clock_ahead_min_s, clock_ahead_max_s, clock_ahead_s"
    rows = client.query(f"SELECT DISTINCT {columns} FROM runtide.streams WHERE run_id = 'recalled'").result_rows
    assert rows == [(-500.0, 100.0, 100.0)]


def test_what_no_clock_can_say_is_not_believed() -> None:
    assert ahead(0, NOW_US) is None
    assert ahead(2**62, NOW_US) is None
    assert ahead(-(2**62), NOW_US) is None
    assert set_right(NOW_US + YEAR_US, None, NOW_US) == NOW_US, "nothing is said after it came"
    assert set_right(NOW_US + YEAR_US, YEAR_US, NOW_US + SECOND) == NOW_US
    assert set_right(NOW_US - SECOND, SECOND // 2, NOW_US) == NOW_US - SECOND, "clocks that are right differ a little"
