"""The spool under a model: a job that writes, agents that ship, machines and disks that fail, in any order.

The real writer, the real reader with the agent's acknowledge path, the gateway's real check, the sink's real decoder
and interval arithmetic; only the bus and the rows are left out. RUNTIDE_MODEL_EXAMPLES makes it run longer.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from runtide.agent.ends import measure_end
from runtide.agent.streams import Piece, TailedStream
from runtide.gateway.checks import check_range, end_of
from runtide.gateway.limits import Limits
from runtide.sink.streams import Extent
from runtide.spool.layout import POSITION_FILE, Position, StreamInfo, segments
from runtide.spool.writer import KeySetUse, SpoolWriter, Worth, encode
from runtide.v1.ingest_pb2 import Refusal
from runtide.v1.records_pb2 import LogLine, Record, StreamClosed
from runtide.wire import framing
from runtide.wire.decode import Decoded, decode

pytestmark = pytest.mark.fault(1)

EXAMPLES = int(os.environ.get("RUNTIDE_MODEL_EXAMPLES", "250"))
SEGMENT, BUDGET = 700, 6000
LIMITS = Limits()
NAMES = {1: ("loss", "acc"), 2: ("lr",), 3: tuple(f"m{number}" for number in range(20))}
GATEWAY = {"crc", "framing", "record_too_large"}
"""What a gateway may say of bytes that a spool has damaged."""


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Files may not grow beyond a size, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@dataclass
class Truth:
    """What was written, as it was when it was written."""

    records: dict[int, bytes] = field(default_factory=dict)
    """Offset to element."""
    damaged: set[int] = field(default_factory=set)
    """Offsets of elements that a disk has changed since."""
    hit: set[int] = field(default_factory=set)
    """Offsets of the bytes that it has changed."""
    lost_from: int | None = None
    """The machine died, and took what lies from here on with it."""
    synced: int = 0

    def owed(self) -> dict[int, bytes]:
        """What has to come through."""
        end = self.lost_from if self.lost_from is not None else 1 << 62
        return {at: raw for at, raw in self.records.items() if at + len(raw) <= end and at not in self.damaged}


@dataclass
class Stored:
    """What came through, by the sink's own arithmetic."""

    extent: Extent = field(default_factory=Extent)
    records: dict[int, bytes] = field(default_factory=dict)
    gaps: list[tuple[int, int]] = field(default_factory=list)


class Spool(RuleBasedStateMachine):
    """One stream of one job."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="spool-model-"))
        info = StreamInfo("s", "p", "r", 0, 1, "h", 1, 1, 1.0, "")
        info.write(self.folder)
        self.info = info
        self.clock = 0.0
        self.writer: SpoolWriter | None = SpoolWriter(
            self.folder, segment_bytes=SEGMENT, budget_bytes=BUDGET, clock=lambda: self.clock
        )
        self.uses = {number: KeySetUse.of(number, names) for number, names in NAMES.items()}
        self.encoders = {number: framing.StepEncoder(number, len(names)) for number, names in NAMES.items()}
        self.steps: dict[int, tuple[tuple[str, ...], int]] = {}
        """Offset of each step to its names and number."""
        self.truth, self.stored = Truth(), Stored()
        self.number = 0
        self.agents = [TailedStream(self.folder, info)]

    def teardown(self) -> None:
        """All that was synced and not lost comes through in the end."""
        self.end_job()
        self.agents = [TailedStream(self.folder, self.info)]
        for _ in range(10_000):
            if not self._ship(self.agents[0], 1 << 20, 100, "stored"):
                break
        else:
            raise AssertionError("it does not come to an end")
        owed, found = self.truth.owed(), self.stored.records
        assert [at for at in owed if at not in found] == []
        last_sound = max((at + len(raw) for at, raw in owed.items()), default=0)
        for at in self.truth.damaged:  # at the very end it cannot be told from a record that was never finished
            if at < last_sound and at not in found:
                assert any(start <= at < end for start, end in self.stored.gaps), f"damage at {at} is not declared"
        end, _ = measure_end(self.folder, 0 if segments(self.folder) == [] else segments(self.folder)[0][0])
        assert end >= last_sound or not segments(self.folder)
        shutil.rmtree(self.folder)

    # The job.

    def _append(self, write: Callable[[], bool]) -> None:
        assert self.writer is not None
        before = self.writer.offset
        self.clock += 0.3
        taken = write()
        added = self._read_back(before)
        assert bool(taken) <= bool(added), "what was taken is in the file"

    def _read_back(self, start: int) -> int:
        """Learn what the writer has put into the files from `start` on; whole elements, and no other bytes."""
        assert self.writer is not None
        added = 0
        for first, path in segments(self.folder):
            body = path.read_bytes()
            if first + len(body) <= start:
                continue
            skip = max(0, start - first)
            for element in framing.elements(body[skip:]):
                raw = body[skip + element.start : skip + element.end]
                assert framing.sound(body[skip:], element)
                self.truth.records[first + skip + element.start] = raw
                said = Record.FromString(body[skip + element.record : skip + element.end])
                if said.HasField("step"):
                    self.steps[first + skip + element.start] = NAMES[said.step.key_set], said.step.step
                added += 1
        assert sum(map(len, self.truth.records.values())) == self.writer.offset
        return added

    @precondition(lambda self: self.writer is not None)
    @rule(number=st.sampled_from(list(NAMES)), count=st.integers(1, 6))
    def log_steps(self, number: int, count: int) -> None:
        for _ in range(count):
            self.number += 1
            values = [float(self.number + place) for place in range(len(NAMES[number]))]
            element = self.encoders[number].encode(self.number, self.number, values)
            self._append(lambda element=element: self.writer.append_step(element, self.uses[number]))

    @precondition(lambda self: self.writer is not None)
    @rule(size=st.sampled_from([0, 1, 100, 140, 600, 3000]), worth=st.sampled_from([Worth.LINE, Worth.DATA]))
    def log_line(self, size: int, worth: Worth) -> None:
        self._append(lambda: self.writer.append(encode(Record(log_line=LogLine(line="x" * size))), 0, worth))

    @precondition(lambda self: self.writer is not None)
    @rule(room=st.integers(0, 200))
    def log_on_a_full_disk(self, room: int) -> None:
        """The file may grow by so many bytes and not more: a short write, then an error."""
        size = segments(self.folder)[-1][1].stat().st_size if segments(self.folder) else 0
        element = encode(Record(log_line=LogLine(line="y" * 80)))
        with file_size_limit(size + room):
            self._append(lambda: self.writer.append(element))

    @precondition(lambda self: self.writer is not None)
    @rule()
    def fork(self) -> None:
        """The child has the parent's writer: it writes nothing there, and the parent goes on."""
        assert self.writer is not None
        before = self.writer.offset
        child = os.fork()
        if child == 0:
            try:
                self.writer.forget()
                taken = self.writer.append(encode(Record(log_line=LogLine(line="child"))))
                os._exit(int(taken))
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert self._read_back(before) == 0

    @precondition(lambda self: self.writer is not None)
    @rule()
    def close(self) -> None:
        assert self.writer is not None
        before = self.writer.offset
        self.writer.settle()
        said = StreamClosed(time_us=1, records=self.writer.records, points=self.writer.points)
        self.writer.append_record(Record(stream_closed=said), Worth.LAST)
        self._read_back(before)
        self.end_job()

    @rule()
    def kill_job(self) -> None:
        self.end_job()

    @precondition(lambda self: self.writer is not None)
    @rule(kept=st.floats(0, 0.99))
    def kill_job_within_a_write(self, kept: float) -> None:
        """The page cache has the beginning of a record."""
        assert self.writer is not None
        element = encode(Record(log_line=LogLine(line="z" * 90)))
        with segments(self.folder)[-1][1].open("ab") as file:
            file.write(element[: int(kept * len(element))])
        os.close(self.writer._fd)
        self.writer = None
        self.end_job()

    def end_job(self) -> None:
        if self.writer is not None:
            os.close(self.writer._fd)  # as a kill does: nothing more is said
            self.writer = None
        for agent in self.agents:
            agent.dead = True

    # The machine.

    @precondition(lambda self: self.truth.lost_from is None)
    @rule(kept=st.floats(0, 1), position=st.sampled_from(["kept", "empty", "gone"]))
    def kill_machine(self, kept: float, position: str) -> None:
        """What was not synced may be gone, from any byte on; so may what the agent noted."""
        self.end_job()
        found = segments(self.folder)
        end = found[-1][0] + found[-1][1].stat().st_size if found else 0
        synced = min(max(self.truth.synced, found[0][0] if found else 0), end)
        cut = synced + int(kept * (end - synced))
        for first, path in found:
            if first > cut or (first == cut and first > 0 and first != found[0][0]):
                path.unlink()
            elif first + path.stat().st_size > cut:
                os.truncate(path, cut - first)
        self.truth.lost_from = cut
        file = self.folder / POSITION_FILE
        if position == "empty" and file.exists():
            file.write_bytes(b"")
        elif position == "gone":
            file.unlink(missing_ok=True)
        self.agents = [TailedStream(self.folder, self.info)]
        self.end_job()

    @precondition(lambda self: bool(segments(self.folder)))
    @rule(where=st.floats(0, 0.999), bit=st.integers(0, 7))
    def flip(self, where: float, bit: int) -> None:
        """A disk changes one bit of what no gateway has acknowledged yet."""
        if self.writer is not None and len(self.truth.damaged) > 3:
            return
        places = [(first, path, path.stat().st_size) for first, path in segments(self.folder)]
        end = places[-1][0] + places[-1][2]
        start = max(places[0][0], Position.read(self.folder).acknowledged)
        if start >= end:
            return
        at = start + int(where * (end - start))
        first, path, size = max((place for place in places if place[0] <= at), key=lambda place: place[0])
        if at - first >= size or at in self.truth.hit:
            return  # no disk turns a bit back after somebody has read it
        self.truth.hit.add(at)
        body = bytearray(path.read_bytes())
        body[at - first] ^= 1 << bit
        path.write_bytes(bytes(body)) if self.writer is None else self._overwrite(path, at - first, body[at - first])
        for offset in [offset for offset, raw in self.truth.records.items() if offset <= at < offset + len(raw)]:
            raw = self.truth.records[offset]
            now = bytes(body[offset - first : offset - first + len(raw)])
            if now != raw:
                self.truth.damaged.add(offset)

    @staticmethod
    def _overwrite(path: Path, at: int, byte: int) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([byte]))

    # The agents.

    @rule(which=st.integers(0, 1))
    def sync(self, which: int) -> None:
        self.agents[which % len(self.agents)].sync_to_disk()
        if found := segments(self.folder):
            self.truth.synced = found[-1][0] + found[-1][1].stat().st_size

    @rule(
        which=st.integers(0, 1),
        limit=st.sampled_from([1, 60, 300, 2000, 1 << 20]),
        count=st.integers(1, 5),
        answer=st.sampled_from(["stored", "stored", "unanswered", "lost"]),
    )
    def ship(self, which: int, limit: int, count: int, answer: str) -> None:
        """A Push of some ranges: answered, stored without an answer, or lost on the way."""
        self._ship(self.agents[which % len(self.agents)], limit, count, answer)

    def _ship(self, agent: TailedStream, limit: int, count: int, answer: str) -> bool:
        pieces: list[Piece] = []
        for _ in range(count):
            if (piece := agent.take(limit)) is None:
                break
            agent.in_flight = True
            pieces.append(piece)
        for piece in pieces if answer != "lost" else ():
            refusal = self._push(agent, piece)
            if answer == "unanswered":
                continue
            if refusal is not None:
                agent.refuse(piece, refusal, 0.0)
            else:
                agent.acknowledge(piece, piece.end, 0.0)
        agent.settle()
        if answer == "stored":
            agent.save(0.0, 0.0)
            agent._delete_segments()
        return bool(pieces) or not agent.exhausted

    def _push(self, agent: TailedStream, piece: Piece) -> Refusal | None:
        """The gateway's word, and the sink's work."""
        range_ = agent.message(piece)
        verdict = check_range(range_, LIMITS)
        if isinstance(verdict, Refusal):
            assert verdict.code in GATEWAY, verdict
            return verdict
        stored = self.stored
        missing = stored.extent.missing(range_.offset, end_of(range_))
        for start, end in missing:
            stored.extent.add(start, end)
        if range_.HasField("gap"):
            for start, end in missing:
                stored.gaps.append((start, end))
                wrong = [at for at, raw in self.truth.owed().items() if at < end and start < at + len(raw)]
                assert wrong == [], f"sound records are declared lost: {range_.gap.detail}"
            return None
        for element in framing.elements(range_.body):
            at = range_.offset + element.start
            raw = range_.body[element.start : element.end]
            assert raw == self.truth.records.get(at), "bytes are what was said there"
            if any(start <= at < end for start, end in missing):
                assert at not in stored.records, "once"
                stored.records[at] = raw
        self._check_values(decode(range_, range_.body))
        return None

    def _check_values(self, said: Decoded) -> None:
        """A step comes out under the names that it was logged with, or not at all where its names were damaged."""
        for offset, names, number in zip(said.steps.offset, said.steps.names, said.steps.step, strict=True):
            assert (names, number) == self.steps[offset]
        key_sets = {at for at in self.truth.damaged if b"\x12" in self.truth.records[at][:4]}
        assert not said.dead or key_sets, "a step whose names are sound is understood"

    @rule()
    def reopen_agent(self) -> None:
        """The agent dies, and another one begins where position.json says."""
        self.agents[0] = TailedStream(self.folder, self.info)
        self.agents[0].dead = self.writer is None

    @precondition(lambda self: len(self.agents) == 1)
    @rule()
    def second_agent(self) -> None:
        """As when `runtide sync` is run beside an agent that it does not see."""
        self.agents.append(TailedStream(self.folder, self.info))
        self.agents[1].dead = self.writer is None

    @invariant()
    def position_is_never_past_what_is_stored(self) -> None:
        acknowledged = Position.read(self.folder).acknowledged
        assert acknowledged <= self.stored.extent.mark


TestSpool = Spool.TestCase
TestSpool.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
