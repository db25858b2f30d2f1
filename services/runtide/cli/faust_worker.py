"""`runtide processor`: a Faust worker around the deriver."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import faust

from runtide.bus.kafka import ensure_topics
from runtide.cli.parts import kafka_settings, store_of
from runtide.cli.settings import Settings
from runtide.processor.deriver import Deriver
from runtide.processor.faust_app import create_app
from runtide.warehouse.client import connect

STOP_S = 10.0
"""How long a stop may take; Faust waits for a group that is being rebalanced, whatever that takes."""


def serve(settings: Settings) -> None:
    """Derive until told to stop. Blocks; ends the process as Faust does. Raises Unavailable without Kafka."""
    kafka, store = kafka_settings(settings), store_of(settings)
    asyncio.run(ensure_topics(kafka))
    with tempfile.TemporaryDirectory(prefix="runtide-processor-") as folder:
        told = settings.processor
        deriver = Deriver(lambda: connect(store))
        app = create_app(kafka, deriver, folder=Path(folder), web_host=told.host, web_port=told.port)
        app.on_before_shutdown.connect(_limit_the_stop, weak=False)
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        faust.Worker(app, loglevel="INFO", loop=loop, redirect_stdouts=False).execute_from_commandline()


def _limit_the_stop(*_: Any, **__: Any) -> None:
    """End the process in a while: nothing that it holds is lost, since derived rows are made from what is stored."""
    watch = threading.Timer(STOP_S, os._exit, (0,))
    watch.daemon = True
    watch.start()
