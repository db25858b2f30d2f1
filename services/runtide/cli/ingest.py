"""The ingest part of `runtide up`: gateway, bus, sink and processor in one process.

A Push is acknowledged when its rows are in ClickHouse, since the bus in process keeps nothing across a death. A part
that ends by itself ends the process, and the supervisor starts it anew: the ledger says what is stored.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from runtide.bus.local import LocalBus
from runtide.cli.parts import (
    control_of,
    follow_tokens,
    gateway_settings,
    sink_settings,
    start_logging,
    stop_on_signals,
    until_told,
    wait_for_store,
)
from runtide.cli.settings import Settings, read_settings
from runtide.embedded.secret import read_or_create_secret
from runtide.gateway import Gateway
from runtide.processor.deriver import Deriver
from runtide.processor.loop import ProcessorLoop
from runtide.processor.metrics import ProcessorCollector
from runtide.sink.metrics import SinkCollector
from runtide.sink.sink import Sink
from runtide.warehouse.client import ClickHouseSettings, connect
from runtide.warehouse.ledger import LedgerReader
from runtide.warehouse.migrate import migrate

GATEWAY_GRACE_S = 2.5
"""How long Pushes on their way may take when told to stop; `supervisor.STOP_S` allows the whole part twice that."""

log = logging.getLogger("runtide.ingest")


async def serve(settings: Settings, store: ClickHouseSettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises whatever ended a part."""
    stop = stop_on_signals()
    client = await wait_for_store(store, stop)
    if client is None:
        return
    await asyncio.to_thread(migrate, client)

    tokens, following = await follow_tokens(control_of(settings, here=True))
    bus = LocalBus(settings.bus_bytes)
    deriver = Deriver(lambda: connect(store))
    processor = ProcessorLoop(deriver)
    sink = Sink(bus.consumer, store, sink_settings(settings), processor.hint)
    gateway = Gateway(
        gateway_settings(settings), bus.publisher, LedgerReader(client), tokens, trouble=lambda: sink.trouble
    )
    gateway.metrics.registry.register(SinkCollector(sink))
    gateway.metrics.registry.register(ProcessorCollector(deriver))
    tasks = [asyncio.create_task(sink.run(), name="sink"), asyncio.create_task(processor.run(), name="processor")]
    await gateway.start()
    log.info("ingest serves port=%d metrics_port=%d", gateway.port, gateway.metrics_port)
    try:
        await until_told(stop, following, *tasks)
    finally:
        # The sink goes on while the gateway waits for the Pushes that it has taken in.
        await gateway.stop(GATEWAY_GRACE_S)
        sink.stop()
        processor.stop()
        following.cancel()
        await asyncio.wait(tasks, timeout=GATEWAY_GRACE_S)


def main(argv: list[str]) -> int:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m runtide.cli.ingest", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    for name in ("--gateway-port", "--metrics-port", "--clickhouse-port"):
        parser.add_argument(name, type=int, required=True)
    told = parser.parse_args(argv)
    start_logging()
    settings = read_settings(told.home)
    ports = {"port": told.gateway_port, "metrics_port": told.metrics_port}
    settings = settings.model_copy(update={"gateway": settings.gateway.model_copy(update=ports)})
    password = read_or_create_secret(told.home)
    store = ClickHouseSettings(host="127.0.0.1", port=told.clickhouse_port, username="writer", password=password)
    asyncio.run(serve(settings, store))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
