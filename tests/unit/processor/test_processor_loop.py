"""The loop goes on whatever the store says, ends where it can never work, and ticks once more at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from runtide.processor.deriver import Deriver
from runtide.processor.loop import ProcessorLoop
from runtide.warehouse.client import Client
from runtide.warehouse.errors import StoreBusy, StoreMisconfigured


def refusing(answers: Sequence[Exception], told: Callable[[], None]) -> Callable[[], Client]:
    """A client factory that says these errors one after the other, the last for ever."""
    left = list(answers)

    def connect() -> Client:
        told()
        raise left.pop(0) if len(left) > 1 else left[0]

    return connect


@pytest.mark.parametrize("trouble", [StoreBusy("away"), RuntimeError("a fault of ours")], ids=["busy", "fault"])
def test_trouble_is_waited_out(trouble: Exception) -> None:
    async def scene() -> int:
        calls = 0
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def count() -> None:
            nonlocal calls
            calls += 1
            if calls == 3:
                loop.call_soon_threadsafe(done.set)

        processor = ProcessorLoop(Deriver(refusing([trouble], count)), tick_s=0.001)
        task = asyncio.create_task(processor.run())
        await asyncio.wait_for(done.wait(), 10)
        processor.stop()
        await asyncio.wait_for(task, 10)
        return calls

    assert asyncio.run(scene()) >= 4  # three, and one more at the end


def test_a_store_that_can_never_work_ends_the_loop() -> None:
    errors = [StoreBusy("away"), StoreMisconfigured("no such table", 60)]
    processor = ProcessorLoop(Deriver(refusing(errors, lambda: None)), tick_s=0.001)
    with pytest.raises(StoreMisconfigured, match="no such table"):
        asyncio.run(asyncio.wait_for(processor.run(), 10))
