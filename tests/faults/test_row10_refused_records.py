"""What a gateway will never take is parked and declared as a gap; neighbours pass, and nothing is sent for ever."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from runtide.spool.layout import Position
from runtide.testing.waiting import until

from tests.pipeline.agent_scripted import (
    Scripted,
    agent,
    fails,
    living,
    refuses,
    serving,
    take,
    unsound,
    write_stream,
)

pytestmark = pytest.mark.fault(10)


@pytest.fixture
def gateway() -> Iterator[Scripted]:
    with serving(Scripted()) as served:
        yield served


@pytest.mark.parametrize("hint", [True, False])
def test_a_refused_record_is_parked_and_declared_and_its_neighbours_arrive(
    tmp_path: Path, gateway: Scripted, hint: bool
) -> None:
    with living() as process:
        job = write_stream(tmp_path, process, gateway.url)
        job.log(300)
        job.close()
        written = job.elements
        poison = list(written)[150]
        gateway.always = refuses(lambda element: element == written[poison], hint)
        with agent(tmp_path):
            until(lambda: Position.read(job.writer.folder).acknowledged == job.writer.offset)
    bad = written.pop(poison)
    assert gateway.records(job.info.stream) == written
    assert gateway.gaps(job.info.stream) == [(poison, len(bad), "refused")]
    assert (job.writer.folder / "rejected" / f"{poison:020d}.bin").read_bytes() == bad
    assert Position.read(job.writer.folder).gap_records == 1
    assert len(gateway.pushes) < 40


def test_a_push_that_breaks_a_limit_is_halved_down_to_the_record(tmp_path: Path, gateway: Scripted) -> None:
    with living() as process:
        jobs = [write_stream(tmp_path, process, gateway.url, rank) for rank in range(4)]
        for job in jobs:
            job.log(20)
        written = [job.elements for job in jobs]
        poison, bad = list(written[2].items())[10]
        invalid = fails(grpc.StatusCode.INVALID_ARGUMENT)

        def judge(request, context):  # type: ignore[no-untyped-def]
            hit = any(bad in range_.body for range_ in request.ranges if range_.rank == 2)
            return (invalid if hit else take)(request, context)

        gateway.always = judge
        with agent(tmp_path):
            for job in jobs:
                until(lambda job=job: Position.read(job.writer.folder).acknowledged == job.writer.offset)
    del written[2][poison]
    assert [gateway.records(job.info.stream) for job in jobs] == written
    assert gateway.gaps(jobs[2].info.stream) == [(poison, len(bad), "refused")]


def test_damaged_bytes_are_declared_and_what_follows_arrives(tmp_path: Path, gateway: Scripted) -> None:
    gateway.always = refuses(unsound, hint=True)
    with living() as process:
        job = write_stream(tmp_path, process, gateway.url)
        job.log(200)
        written = job.elements
        offsets = list(written)
        path = next(job.writer.folder.glob("*.seg"))
        body = bytearray(path.read_bytes())
        body[offsets[50] + 30] ^= 8  # in a value: only the crc tells
        body[offsets[120] + 1] ^= 8  # in a length: the frame is lost
        path.write_bytes(body)
        with agent(tmp_path):
            until(lambda: Position.read(job.writer.folder).acknowledged == job.writer.offset)
    lost = {offsets[50]: written.pop(offsets[50]), offsets[120]: written.pop(offsets[120])}
    assert gateway.records(job.info.stream) == written
    assert gateway.gaps(job.info.stream) == [(at, len(lost[at]), "damaged") for at in sorted(lost)]
