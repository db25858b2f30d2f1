"""All kept ranges, stored in one flush: no range is the end of a sink, of `verify` or of the processor."""

from __future__ import annotations

from runtide.bus import Message
from runtide.processor.rebuild import rebuild
from runtide.sink.arrived import read
from runtide.sink.flood import Flood
from runtide.sink.store import Store
from runtide.testing.streams import NOW_US, MadeStream
from runtide.warehouse.client import Client
from runtide.warehouse.verify import verify_run
from runtide.warehouse.writer import Writer

from tests.fuzz.kept import CORPUS, failing


def test_every_kept_range_can_be_stored_and_its_neighbour_is(client: Client) -> None:
    good = MadeStream("good", project="good").open().key_set(1, "loss").steps(1, range(20)).close()
    paths = sorted((CORPUS / "decoder").glob("*.bin"))
    arrived = [read(good.message(good.range(0, good.edges[9])))]
    for path in paths:
        with failing("decoder", path.read_bytes()):
            arrived.append(read(Message(path.stem, b"k", path.read_bytes(), NOW_US)))
    arrived.append(read(good.message(good.range(good.edges[9]))))
    store = Store(client, Writer(client), flood=Flood(0))
    store.flush(arrived)
    assert store.counters.retries == 0
    found = verify_run(client, "good", good.run_id)
    assert (found.problems, found.stored_points) == ([], 20)
    rows = client.query("SELECT project, run_id FROM runtide.ledger GROUP BY project, run_id").result_rows
    assert len(rows) > 40
    for project, run in rows:
        verify_run(client, project, run)  # it may find something, and must not fail
    rebuild(client, force=True)
    summary = "SELECT count, max FROM runtide.metric_summary WHERE project = 'good' AND rank = 0"
    assert client.query(summary).result_rows == [(20, 19.0)]
