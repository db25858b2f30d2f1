"""The rows of runs on the real engine: states as time goes by, what the summary and the configuration say."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from runtide.processor.deriver import Deriver
from runtide.warehouse.client import Client
from runtide.warehouse.errors import StoreBusy

from tests.pipeline.processor_feed import LENGTH, Feed, Record, Stream, opened

SECOND = 1_000_000
AGENT = "a" * 32


class Story:
    """One run, told second by second: the clock moves, records come, the deriver ticks."""

    def __init__(self, client: Client, run_id: str, ranks: int = 1) -> None:
        self.now = time.time_ns() // 1000
        self.client, self.run_id = client, run_id
        self.feed = Feed(client, self.now)
        self.streams = {f"{rank:032x}": Stream("p", run_id, f"{rank:032x}", rank) for rank in range(ranks)}
        self.streams[AGENT] = Stream("p", run_id, AGENT, -1, role="agent")
        self.deriver = Deriver(lambda: client, lambda: self.now)

    def say(self, stream: str, *records: Record) -> None:
        """Records come and their hint."""
        of = self.streams[stream]
        first = len(of.records)
        of.records.extend(records)
        self.feed.now_us = self.now
        self.deriver.add([self.feed.store(of, first, len(of.records))])

    def open(self, rank: int, world: int = 1, **more: Any) -> None:
        self.say(f"{rank:032x}", opened(self.now, world, name="a run", **more))

    def beat(self, *ranks: int) -> None:
        named = [f"{rank:032x}" for rank in ranks]
        self.say(AGENT, Record("heartbeat", self.now, message={"time_us": str(self.now), "streams": named}))

    def ended(self, rank: int, **more: Any) -> None:
        of = self.streams[f"{rank:032x}"]
        message = {"stream": of.stream, "offset": str(len(of.records) * LENGTH), **more}
        self.say(AGENT, Record("stream_ended", self.now, message=message))

    def closed(self, rank: int, **message: Any) -> None:
        self.say(f"{rank:032x}", Record("stream_closed", self.now, message={"reason": "finish", **message}))

    def after(self, seconds: float) -> dict[str, Any]:
        """The row of the run after some seconds and a tick."""
        self.now += int(seconds * SECOND)
        self.deriver.tick()
        rows = self.client.query(f"SELECT * FROM runtide.runs WHERE run_id = '{self.run_id}'").named_results()
        return next(iter(rows))


def step(story: Story, at: int, **values: float) -> Record:
    return Record("step", story.now, at, values)


def test_killed_shows_crashed_at_once(client: Client) -> None:
    story = Story(client, "killed")
    story.open(0)
    story.say("0" * 32, step(story, 0, loss=1.0))
    assert story.after(1)["state"] == "running"
    story.ended(0, signal="SIGKILL")
    row = story.after(1)
    assert (row["state"], row["reason"]) == ("crashed", "killed by SIGKILL")
    assert row["finished_at"] is not None


def test_silence_shows_crashed_and_a_word_brings_it_back(client: Client) -> None:
    story = Story(client, "silent")
    story.open(0)
    assert story.after(1)["state"] == "running"
    for _ in range(4):  # heartbeats alone keep it alive
        story.beat(0)
        assert story.after(15)["state"] == "running"
    assert story.after(20)["state"] == "crashed"
    story.say("0" * 32, step(story, 1, loss=1.0))
    row = story.after(1)
    assert (row["state"], row["finished_at"], row["last_step"]) == ("running", None, 1)


def test_one_of_two_is_lost_then_the_other_ends(client: Client) -> None:
    story = Story(client, "two", ranks=2)
    for rank in range(2):
        story.open(rank, world=2)
    assert story.after(1)["state"] == "running"
    story.ended(1)
    assert story.after(1)["state"] == "degraded"
    story.closed(0)
    assert story.after(1)["state"] == "crashed"


def test_the_next_attempt_brings_a_failed_run_back(client: Client) -> None:
    story = Story(client, "again")
    story.open(0)
    story.closed(0, exit_code=3, reason="exception")
    row = story.after(1)
    assert (row["state"], row["exit_code"]) == ("failed", 3)
    story.streams["b" * 32] = Stream("p", "again", "b" * 32, 0, attempt=2)
    story.say("b" * 32, opened(story.now, 1, "l2", resume_step="10"))
    row = story.after(1)
    assert (row["state"], row["attempt"], row["exit_code"]) == ("running", 2, None)
    attempts = client.query(
        "SELECT attempt, launch_id, resume_step FROM runtide.attempts WHERE run_id = 'again' ORDER BY attempt"
    )
    assert attempts.result_rows == [(1, "l1", None), (2, "l2", 10)]


def test_a_new_processor_finds_what_changed_while_none_ran(client: Client) -> None:
    story = Story(client, "unwatched")
    story.open(0)
    assert story.after(1)["state"] == "running"
    story.closed(0)
    story.deriver = Deriver(lambda: client, lambda: story.now)  # the hint is lost with the old one
    row = story.after(1)
    assert (row["state"], row["exit_code"]) == ("finished", 0)


def test_a_processor_that_hears_no_more_of_a_run_does_not_take_its_end_back(client: Client) -> None:
    """Its partition went to another processor, or the run's ranks are spread over both."""
    story = Story(client, "shared")
    story.open(0)
    assert story.after(1)["state"] == "running"
    first, story.deriver = story.deriver, Deriver(lambda: client, lambda: story.now)
    story.closed(0)
    assert story.after(1)["state"] == "finished"
    story.deriver = first
    for seconds in (5, 20, 20, 20):
        row = story.after(seconds)
        assert (row["state"], row["exit_code"]) == ("finished", 0)


def test_what_only_another_processor_was_told_of_stands_in_the_row_within_seconds(client: Client) -> None:
    story = Story(client, "told-to-two")
    story.open(0)
    story.after(1)
    first, story.deriver = story.deriver, Deriver(lambda: client, lambda: story.now)
    entry = {"key": "lr", "json": "0.1"}
    story.say("0" * 32, Record("config_set", story.now, message={"entries": [entry]}))
    assert json.loads(story.after(1)["config"]) == {"lr": 0.1}
    story.deriver = first
    for at in range(12):
        story.say("0" * 32, step(story, at, loss=1.0))
        row = story.after(1)
    assert (json.loads(row["config"]), row["last_step"]) == ({"lr": 0.1}, 11)


def test_summary_and_configuration(client: Client) -> None:
    story = Story(client, "said", ranks=2)

    def entry(key: str, value: str) -> dict[str, str]:
        return {"key": key, "json": value}

    story.open(0, world=2, tags=["x", "y"], notes="n", user="u", host="h")
    story.open(1, world=2)
    first, second = "0" * 32, f"{1:032x}"
    story.say(first, Record("config_set", story.now, message={"entries": [entry("lr", "0.1"), entry("gone", "1")]}))
    story.say(
        first, Record("config_set", story.now + 1, message={"entries": [entry("lr", "NaN")], "removed": ["gone"]})
    )
    story.say(first, Record("summary_set", story.now, message={"entries": [entry("best", '"mine"')]}))
    story.say(first, step(story, 0, loss=1.0, best=2.0), step(story, 1, loss=2.0, bad=math.nan))
    story.say(second, step(story, 1, loss=4.0))
    row = story.after(1)
    assert json.loads(row["config"]) == {"lr": "NaN"}
    assert json.loads(row["summary"]) == {"loss": 3.0, "bad": "NaN", "best": "mine"}
    assert (row["name"], row["tags"], row["notes"], row["user"], row["world_size"]) == (
        "a run",
        ["x", "y"],
        "n",
        "u",
        2,
    )
    assert row["last_step"] == 1


def test_a_configuration_that_cannot_be_said_in_utf8_or_json_is_said_as_near_as_can_be(client: Client) -> None:
    story = Story(client, "odd")
    odd = {"path": json.dumps("data-\udcff"), "rate": "1e999", "deep": "[" * 100_000, "list": "[1e999, NaN]"}
    story.open(0)
    entries = [{"key": key, "json": value} for key, value in odd.items()]
    story.say("0" * 32, Record("config_set", story.now, message={"entries": entries}))
    story.say("0" * 32, Record("summary_set", story.now, message={"entries": entries[:1]}))
    row = story.after(1)
    assert json.loads(row["config"]) == {
        "path": "data-?",
        "rate": "1e999",
        "deep": odd["deep"],
        "list": ["1e999", "NaN"],
    }
    assert json.loads(row["summary"]) == {"path": "data-?"}


def test_a_run_whose_events_are_odd_costs_the_others_nothing(client: Client) -> None:
    story = Story(client, "sound", ranks=2)
    story.open(0)
    other = Stream("p", "unsound", "c" * 32, 0)
    other.records = [opened(story.now, name="lost"), Record("config_set", story.now, message={"entries": 5})]
    tagged = Stream("p", "tagged", "d" * 32, 0, records=[opened(story.now, name="lost", tags=5)])
    for stream in (other, tagged):
        story.deriver.add([story.feed.store(stream, 0, len(stream.records))])
    assert story.after(1)["name"] == "a run"
    states = client.query(
        "SELECT run_id, state FROM runtide.runs WHERE run_id IN ('unsound', 'tagged') ORDER BY run_id"
    )
    assert states.result_rows == [("tagged", "running"), ("unsound", "running")]


class Failing:
    """A client whose first insert into a table gets no answer."""

    def __init__(self, client: Client, table: str) -> None:
        self._client, self._table = client, table

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def insert_arrow(self, table: str, *args: Any, **more: Any) -> Any:
        if table == self._table:
            self._table = ""
            raise OSError("no answer")
        return self._client.insert_arrow(table, *args, **more)


@pytest.mark.parametrize("table", ["run_rows", "attempt_rows"])
def test_what_an_insert_failed_to_write_is_written_by_the_next_tick(client: Client, table: str) -> None:
    story = Story(client, f"failed-{table}")
    failing: Any = Failing(client, table)
    story.deriver = Deriver(lambda: failing, lambda: story.now)
    story.open(0)
    story.closed(0)
    with pytest.raises(StoreBusy):
        story.deriver.settle()
    assert not story.deriver.idle
    story.deriver.settle()
    assert client.query(f"SELECT count() FROM runtide.{table} WHERE run_id = '{story.run_id}'").result_rows == [(1,)]


def test_hidden_buckets_vanish_though_nothing_more_was_stored(client: Client) -> None:
    story = Story(client, "hidden")
    first = Stream("p", "hidden", "1" * 32, 0, records=[opened(story.now)])
    first.records += [Record("step", story.now, at, {"loss": float(at)}) for at in range(200)]
    second = Stream("p", "hidden", "2" * 32, 0, attempt=2, records=[opened(story.now, launch="l2")])
    second.records += [Record("step", story.now, at, {"loss": 1.0}) for at in range(64, 70)]
    story.deriver.tick()  # the first one sweeps
    hints = story.feed.store_many([(first, 0, 201), (second, 0, 7)])
    for hint in hints:  # the later attempt is in the ledger before its hint comes
        story.deriver.add([hint])
        story.after(2)
    told = "SELECT count, max, last_step FROM runtide.metric_summary WHERE run_id = 'hidden' AND rank = -1"
    assert client.query(told).result_rows == [(70, 63.0, 69)]
    steps = client.query("SELECT max(step), count() FROM runtide.step_stats WHERE run_id = 'hidden'").result_rows
    assert steps == [(69, 70)]
