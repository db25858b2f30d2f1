"""What a gateway takes in: it arrives as it was sent, and is acknowledged when it is stored."""

from __future__ import annotations

import asyncio
import time

import pytest
from runtide.bus import message_key
from runtide.testing.gateway import serving
from runtide.testing.waiting import until_async
from runtide.v1 import ingest_pb2 as pb
from runtide.v1 import records_pb2 as rec

from tests.pipeline.gateway_calls import (
    STEP,
    counted,
    held_push,
    page,
    sound,
)


def test_ranges_of_several_streams_arrive_as_they_were_sent() -> None:
    async def main() -> None:
        async with serving() as served:
            sent = [
                sound(stream="s1", offset=0, rank=3, key_sets=[rec.KeySet(id=1, names=["loss", "accuracy"])]),
                sound(stream="s2", offset=500, rank=70, body=STEP * 3),
                sound(stream="s1", offset=len(STEP)),
                sound(stream="s3", body=b"", offset=40, gap=rec.Gap(length=60, records=2, reason="refused")),
            ]
            reply = await served.push(*sent)
            assert [(ack.stream, ack.acknowledged, ack.HasField("refusal")) for ack in reply.acks] == [
                ("s1", len(STEP), False),
                ("s2", 500 + 3 * len(STEP), False),
                ("s1", 2 * len(STEP), False),
                ("s3", 100, False),
            ]
            for range_ in sent:
                range_.project = "default"
            assert served.ranges() == sent
            first, second = served.stored[:2]
            assert first.key == message_key("default", "r", 3)
            assert second.key == message_key("default", "r", 70)
            assert abs(first.received_us / 1e6 - time.time()) < 60

    asyncio.run(main())


def test_one_bad_range_among_good_ones() -> None:
    async def main() -> None:
        async with serving() as served:
            bad = STEP + STEP[:-1] + b"\x00" + STEP
            reply = await served.push(sound(stream="a"), sound(stream="b", offset=1000, body=bad), sound(stream="c"))
            assert [ack.acknowledged for ack in reply.acks] == [len(STEP), 0, len(STEP)]
            refusal = reply.acks[1].refusal
            assert (refusal.code, refusal.field, refusal.offset) == ("crc", "body", 1000 + len(STEP))
            assert [range_.stream for range_ in served.ranges()] == ["a", "c"]
            assert "runtide_gateway_refusals_total" in await page(served, "/metrics")

    asyncio.run(main())


@pytest.mark.fault(26)
def test_fields_of_later_releases_are_forwarded() -> None:
    async def main() -> None:
        async with serving() as served:
            later = pb.Range.FromString(sound().SerializeToString() + b"\xfa\x07\x03new")  # field 127
            await served.push(later)
            assert b"\xfa\x07\x03new" in served.stored[0].value

    asyncio.run(main())


def test_an_acknowledgement_comes_after_the_bus_has_it() -> None:
    async def main() -> None:
        async with serving() as served:
            push = await held_push(served, sound())
            assert not push.done()
            served.may_store.set()
            assert (await push).acks[0].acknowledged == len(STEP)

    asyncio.run(main())


def test_a_caller_that_went_away_joins_what_is_under_way() -> None:
    async def main() -> None:
        async with serving() as served:
            gone = await held_push(served, sound())
            gone.cancel()
            with pytest.raises(asyncio.CancelledError):
                await gone
            again = asyncio.create_task(served.push(sound()))
            await until_async(lambda: counted(served, "joined_total") == 1)
            served.may_store.set()
            assert (await again).acks[0].acknowledged == len(STEP)
            assert len(served.stored) == 1

    asyncio.run(main())


@pytest.mark.fault(25)
def test_two_gateways_serve_side_by_side() -> None:
    async def main() -> None:
        async with serving() as one, serving(publisher=one.bus.publisher) as two:
            await one.push(sound(offset=0))
            await two.push(sound(offset=len(STEP)))
            assert [range_.offset for range_ in one.ranges()] == [0, len(STEP)]

    asyncio.run(main())
