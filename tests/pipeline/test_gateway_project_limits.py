"""Limits of a project and of a run at the gateway: each has its own word, counts in its own metric and stops no other.

Rates and what is under way end the whole Push with RESOURCE_EXHAUSTED and a delay; what concerns one run is said in the
Acks of its own ranges.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import pytest
from runtide.gateway import GatewaySettings, Limits
from runtide.gateway import runs as gateway_runs
from runtide.testing.gateway import Served, serving
from runtide.v1 import ingest_pb2 as pb
from runtide.v1 import records_pb2 as rec
from runtide.wire import framing

from tests.pipeline.gateway_calls import STEP, delay_ms, held_push, refused, sound


def limited(served: Served, limit: str) -> float:
    found = served.gateway.metrics.registry.get_sample_value("runtide_gateway_limited_total", {"limit": limit})
    assert found is not None, f"{limit} is no label"
    return found


def settings(**changes: int) -> GatewaySettings:
    return GatewaySettings(limits=replace(Limits(), **changes))


def named(key_set: int, *names: str) -> bytes:
    return framing.seal(rec.Record(key_set=rec.KeySet(id=key_set, names=names)).SerializeToString())


def says_what_to_do(text: str, limit: str, most: int, project: str) -> None:
    for word in (f"{limit}:", f"project '{project}'", f"limit {most}", "nothing is lost", "RUNTIDE_GATEWAY_LIMITS"):
        assert word in text


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"project_bytes_per_s": len(STEP) * 2}, "project_bytes_per_s"),
        ({"project_pushes_per_s": 1}, "project_pushes_per_s"),
        ({"project_points_per_s": 4}, "project_points_per_s"),
    ],
)
def test_a_rate_has_its_word_and_its_metric_and_others_pass(limits: dict[str, int], name: str) -> None:
    async def main() -> None:
        async with serving(settings(**limits, burst_s=1)) as served:
            await served.push(sound(project="a", body=STEP * 2))
            error = await refused(served.push(sound(project="a", offset=2 * len(STEP))))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            says_what_to_do(str(error.details()), name, limits[name], "a")
            assert 0 < delay_ms(error) <= 1000
            assert limited(served, name) == 1
            await served.push(sound(project="b", stream="s2"))
            await asyncio.sleep(delay_ms(error) / 1000)
            await served.push(sound(project="a", offset=2 * len(STEP)))
            assert [range_.project for range_ in served.ranges()] == ["a", "b", "a"]

    asyncio.run(main())


def test_one_project_cannot_take_all_room_under_way() -> None:
    async def main() -> None:
        async with serving(settings(project_in_flight_bytes=2 * len(STEP))) as served:
            first = await held_push(served, sound(project="a", body=STEP * 2))
            error = await refused(served.push(sound(project="a", offset=2 * len(STEP))))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            says_what_to_do(str(error.details()), "project_in_flight_bytes", 2 * len(STEP), "a")
            assert limited(served, "project_in_flight_bytes") == 1
            other = asyncio.create_task(served.push(sound(project="b", stream="s2")))
            served.may_store.set()
            await asyncio.gather(first, other)
            await served.push(sound(project="a", offset=2 * len(STEP)))

    asyncio.run(main())


def test_one_run_too_many_waits_and_the_open_ones_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_runs, "OPEN_S", 0.5)

    async def main() -> None:
        async with serving(settings(project_open_runs=2)) as served:
            await served.push(sound(run_id="one"), sound(run_id="two", stream="s2"))
            reply = await served.push(
                sound(run_id="three", stream="s3"),
                sound(run_id="three", stream="s3", offset=len(STEP)),
                sound(run_id="one", offset=len(STEP)),
                sound(run_id="three", stream="s4", project="other"),
            )
            put_off, next_of_it, passed, other = reply.acks
            assert put_off.later.limit == next_of_it.later.limit == "project_open_runs"
            says_what_to_do(put_off.later.text, "project_open_runs", 2, "default")
            assert "'three'" in put_off.later.text
            assert (put_off.later.retry_after_ms, put_off.acknowledged) == (10_000, 0)
            assert passed.acknowledged == 2 * len(STEP)
            assert other.acknowledged == len(STEP)
            assert limited(served, "project_open_runs") == 1
            await asyncio.sleep(0.6)  # as long as makes a silent run one that is not open
            reply = await served.push(sound(run_id="three", stream="s3"))
            assert reply.acks[0].acknowledged == len(STEP)

    asyncio.run(main())


@pytest.mark.parametrize("beside", [True, False], ids=["names beside the body", "names in the body"])
def test_a_run_has_so_many_metric_names(beside: bool) -> None:
    def with_names(offset: int, key_set: int, *names: str, **changes: Any) -> pb.Range:
        steps = STEP + framing.StepEncoder(key_set, len(names)).encode(1, 2, [0.0] * len(names))
        if beside:
            key_sets = [rec.KeySet(id=key_set, names=names)]
            return sound(offset=offset, key_sets=key_sets, body=steps, **changes)
        return sound(offset=offset, body=STEP + named(key_set, *names) + steps, **changes)

    async def main() -> None:
        async with serving(settings(run_metric_names=3)) as served:
            first = with_names(0, 1, "a", "b")
            reply = await served.push(first, with_names(1000, 2, "a", "c"), with_names(2000, 3, "d"))
            assert [ack.HasField("refusal") for ack in reply.acks] == [False, False, True]
            refusal = reply.acks[2].refusal
            assert (refusal.code, refusal.field) == ("metric_names", "key_sets.names")
            assert refusal.offset == 2000 + len(STEP), "the first record under the name that is too much"
            for word in ("1 more", "3 names", "run 'r'", "project 'default'"):
                assert word in refusal.value
            assert "at most 3 (run_metric_names)" in refusal.limit
            assert "RUNTIDE_GATEWAY_LIMITS" in refusal.limit
            assert limited(served, "run_metric_names") == 1
            reply = await served.push(with_names(3000, 2, "c", "a"), with_names(0, 9, "d", run_id="r2", stream="s2"))
            assert not any(ack.HasField("refusal") for ack in reply.acks), "known names, and another run"

    asyncio.run(main())


def test_new_names_come_at_a_rate_and_what_has_known_ones_goes_on() -> None:
    def of(name: str, **changes: Any) -> pb.Range:
        return sound(body=named(1, name) + STEP, **changes)

    async def main() -> None:
        async with serving(settings(project_new_names_per_h=2)) as served:
            await served.push(of("a"), of("b", stream="s2"))
            reply = await served.push(of("c", stream="s3"), of("a", stream="s4"))
            later, passed = reply.acks
            says_what_to_do(later.later.text, "project_new_names_per_h", 2, "default")
            assert 0 < later.later.retry_after_ms <= 1_800_000
            assert passed.acknowledged > 0
            assert limited(served, "project_new_names_per_h") == 1

    asyncio.run(main())


def test_every_limit_that_is_counted_is_shown_before_it_is_met() -> None:
    async def main() -> None:
        async with serving() as served:
            for name in ("project_points_per_s", "project_open_runs", "run_metric_names", "in_flight_bytes", "bus"):
                assert limited(served, name) == 0

    asyncio.run(main())


def test_forgetting_names_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_runs, "NAMES", 3)

    async def main() -> None:
        async with serving(settings(run_metric_names=2)) as served:
            for run in ("one", "two", "three", "one"):
                reply = await served.push(sound(run_id=run, stream=run, body=named(1, f"{run}/a", f"{run}/b")))
                assert reply.acks[0].acknowledged
            assert sum(map(len, served.gateway._intake._runs._names.values())) <= 3

    asyncio.run(main())
