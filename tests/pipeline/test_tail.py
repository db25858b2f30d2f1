"""`runtide tail` shows every line once, however many come at once and in whatever order they become visible."""

from __future__ import annotations

from collections.abc import Callable

from runtide.cli.store import RunKey
from runtide.cli.tail import follow
from runtide.processor.deriver import Deriver
from runtide.sink.arrived import read
from runtide.sink.store import Store
from runtide.testing.streams import NOW_US, MadeStream
from runtide.v1 import records_pb2 as v1
from runtide.warehouse.client import Client
from runtide.warehouse.writer import Writer

LINES = 60


def lines(stream: str, rank: int) -> MadeStream:
    """A stream whose job's clock runs backwards, so that receipt and time differ."""
    made = MadeStream(stream, run_id="tailed", rank=rank).open()
    for place in range(LINES):
        made.add(log_line=v1.LogLine(time_us=NOW_US - place * 1_000_000, line=f"{stream} {place}"))
    return made.close()


def test_every_line_is_shown_once(client: Client) -> None:
    store = Store(client, Writer(client))
    early, late = lines("b", 0), lines("a", 1)
    middle = late.edges[30]
    store.flush([read(early.message(early.range())), read(late.message(late.range(0, middle), NOW_US + 5_000_000))])
    # What was received before, or in the same millisecond, becomes visible later.
    coming: list[Callable[[], object]] = [
        lambda: store.flush([read(late.message(late.range(middle), NOW_US + 5_000_000))]),
        lambda: store.flush([read((slow := lines("0", 2)).message(slow.range(), NOW_US - 5_000_000))]),
        lambda: Deriver(lambda: client).settle(),
    ]

    def pause(_: float) -> None:
        if coming:
            coming.pop(0)()

    said: list[str] = []
    state = follow(client, RunKey("p", "tailed"), said.append, pause=pause, most=7)
    assert state == "finished"
    shown = [text.split("] ")[1] for text in said]
    assert sorted(shown) == sorted(f"{stream} {place}" for stream in "0ab" for place in range(LINES))
