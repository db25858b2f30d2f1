"""What the canary's rows say, counted on the real engine."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from clickhouse_connect.driver.client import Client
from runtide.warehouse.queries import Canary, beat_stored, canary
from runtide.wire import canary as words

POINTS = len(words.METRICS)


@pytest.fixture(autouse=True)
def _empty(client: Client) -> Iterator[None]:
    yield
    for table in ("points", "ledger", "dead_letters", "events"):
        client.command(f"TRUNCATE TABLE runtide.{table}")


def say(client: Client, stream: str, first: int, last: int, ago_s: int = 60, delay: float = 0.5) -> None:
    """Records `first` to `last` of a stream, one a second, the last of them `ago_s` ago."""
    rows = []
    for number in range(first, last + 1):
        values = (number, POINTS * number, delay if number % 2 else math.nan, 1.0, 60.0)
        at = f"now64(6) - {ago_s + last - number}"
        rows += [
            f"('{words.PROJECT}', 'c', '{metric}', {number}, 0, {value}, {at}, 1, '{stream}', {100 * number}, 100, "
            f"{POINTS}, toDateTime64({at}, 3), 7)"
            for metric, value in zip(words.METRICS, values, strict=True)
        ]
    client.command(f"INSERT INTO runtide.points VALUES {', '.join(rows)}")


def opened(client: Client, stream: str, ago_s: int) -> None:
    client.command(
        "INSERT INTO runtide.ledger (project, run_id, stream, opened_at, revision) "
        f"VALUES ('{words.PROJECT}', 'c', '{stream}', now64(6) - {ago_s}, 1)"
    )


def seen(client: Client) -> Canary:
    found = canary(client)
    assert found is not None
    return found


def test_nobody_is_heard_where_nobody_has_said_anything(client: Client) -> None:
    assert canary(client) is None
    say(client, "s", 1, 3, ago_s=90_000)
    assert canary(client) is None


def test_all_that_was_logged_is_there(client: Client) -> None:
    opened(client, "s", 70)
    say(client, "s", 1, 4)
    say(client, "t", 1, 2, ago_s=30, delay=2.5)
    found = seen(client)
    assert (found.logged, found.stored, found.lost, found.duplicates) == (6 * POINTS, 6 * POINTS, 0, 0)
    assert found.agrees
    assert not found.late
    assert found.trouble == ""
    assert 30 <= found.age_s < 40
    assert (found.delay_s, found.delay_hour_s, found.delays) == (2.5, 0.5, 3)


@pytest.mark.parametrize("gone", ["offset = 200", "offset = 100", f"offset = 300 AND metric = '{words.DELAY}'"])
def test_what_is_gone_is_counted(client: Client, gone: str) -> None:
    opened(client, "s", 70)
    say(client, "s", 1, 4)
    client.command(f"DELETE FROM runtide.points WHERE {gone}")
    found = seen(client)
    assert found.lost == (1 if "metric" in gone else POINTS)
    assert not found.agrees
    assert f"{found.lost} of its 20 points are neither stored nor declared" in found.trouble


def test_what_is_there_twice_is_no_agreement(client: Client) -> None:
    say(client, "s", 1, 4)
    client.command("INSERT INTO runtide.points SELECT * REPLACE (value + 1 AS value) FROM runtide.points LIMIT 1")
    found = seen(client)
    assert (found.duplicates, found.agrees) == (1, False)


def test_what_is_declared_as_lost_agrees(client: Client) -> None:
    opened(client, "s", 70)
    say(client, "s", 2, 2, ago_s=63)
    say(client, "s", 5, 5)
    assert seen(client).lost == 3 * POINTS
    client.command(
        "INSERT INTO runtide.dead_letters (project, run_id, stream, offset, length) VALUES "
        f"('{words.PROJECT}', 'c', 's', 100, 100), ('other', 'c', 's', 120, 100)"
    )
    client.command(
        "INSERT INTO runtide.events (project, run_id, kind, stream, offset, length, json) VALUES "
        f"('{words.PROJECT}', 'c', 'gap', 's', 300, 200, '{{\"records\": 2}}')"
    )
    found = seen(client)
    assert (found.dead, found.gaps, found.lost, found.agrees) == (1, 2, 0, True)


def test_of_a_long_stream_the_last_day_is_judged(client: Client) -> None:
    opened(client, "s", 10 * 86_400)
    say(client, "s", 500_001, 500_004)
    found = seen(client)
    assert (found.logged, found.agrees) == (4 * POINTS, True)


def test_silence_has_a_limit_below_two_minutes(client: Client) -> None:
    assert words.oldest_s(60) < 120
    say(client, "s", 1, 4, ago_s=115)
    found = seen(client)
    assert found.late
    assert "s old, and one is due every 60 s" in found.trouble


def test_a_beat_is_known_by_stream_step_and_number(client: Client) -> None:
    say(client, "s", 1, 4)
    assert beat_stored(client, "c", "s", 3, 3)
    for other in (("d", "s", 3, 3), ("c", "t", 3, 3), ("c", "s", 4, 3), ("c", "s", 3, 4)):
        assert not beat_stored(client, *other)
