"""A real gRPC server that does as it is told, real agents and real jobs: what the agent's tests are made of."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
from runtide.spool.layout import StreamInfo, host_folder
from runtide.spool.writer import KeySetUse, SpoolWriter, new_stream_id
from runtide.v1 import ingest_pb2 as pb
from runtide.v1.ingest_pb2_grpc import IngestServicer, add_IngestServicer_to_server
from runtide.v1.records_pb2 import ROLE_AGENT, ROLE_RANK, Record, StreamClosed, StreamOpened
from runtide.wire import framing

Said = Callable[[pb.PushRequest, grpc.ServicerContext], pb.PushResponse]
NAMES = ("loss", "accuracy")
STEPS = framing.StepEncoder(1, len(NAMES))


def take(request: pb.PushRequest, context: grpc.ServicerContext) -> pb.PushResponse:
    """Acknowledge everything."""
    return pb.PushResponse(acks=[acknowledged(range_) for range_ in request.ranges])


def acknowledged(range_: pb.Range) -> pb.Ack:
    return pb.Ack(stream=range_.stream, acknowledged=range_.offset + (range_.gap.length or len(range_.body)))


def fails(code: grpc.StatusCode, *metadata: tuple[str, str | bytes]) -> Said:
    """Answer with a status."""

    def said(request: pb.PushRequest, context: grpc.ServicerContext) -> pb.PushResponse:
        context.set_trailing_metadata(metadata)
        context.abort(code, "as scripted")
        raise AssertionError

    return said


def refuses(bad: Callable[[bytes], bool], hint: bool = False) -> Said:
    """Refuse ranges that hold a bad record, with or without naming it."""

    def said(request: pb.PushRequest, context: grpc.ServicerContext) -> pb.PushResponse:
        return pb.PushResponse(acks=[judged(range_, bad, hint) for range_ in request.ranges])

    return said


def judged(range_: pb.Range, bad: Callable[[bytes], bool], hint: bool) -> pb.Ack:
    for element in framing.elements(range_.body):
        if bad(range_.body[element.start : element.end]):
            offset = range_.offset + element.start if hint else 0
            refusal = pb.Refusal(code="crc" if hint else "odd", field="body", offset=offset)
            return pb.Ack(stream=range_.stream, refusal=refusal)
    return acknowledged(range_)


def unsound(element: bytes) -> bool:
    """What the real gateway looks at."""
    try:
        framing.check(element)
    except framing.FramingError:
        return True
    return False


@dataclass
class Scripted(IngestServicer):
    """The server: answers from `script`, then with `always`; remembers what it acknowledged."""

    script: deque[Said] = field(default_factory=deque)
    always: Said = take
    pushes: list[tuple[float, pb.PushRequest]] = field(default_factory=list)
    ranges: list[pb.Range] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    url: str = ""

    def Push(self, request: pb.PushRequest, context: grpc.ServicerContext) -> pb.PushResponse:  # noqa: N802
        self.pushes.append((time.monotonic(), request))
        self.tokens.append(dict(context.invocation_metadata()).get("authorization", ""))
        answer = self.script.popleft() if self.script else self.always
        response = answer(request, context)
        taken = zip(request.ranges, response.acks, strict=True)
        self.ranges += [range_ for range_, ack in taken if not ack.HasField("refusal")]
        return response

    def Preflight(self, request: pb.PreflightRequest, context: object) -> pb.PreflightResponse:  # noqa: N802
        return pb.PreflightResponse(project="theirs", run_exists=True, run_state="running", attempt=3)

    def Status(self, request: pb.StatusRequest, context: object) -> pb.StatusResponse:  # noqa: N802
        ends = {range_.stream: acknowledged(range_).acknowledged for range_ in self.ranges}
        return pb.StatusResponse(
            streams=[pb.StreamStatus(stream=each, stored=ends.get(each, 0)) for each in request.streams]
        )

    def records(self, stream: str) -> dict[int, bytes]:
        """Distinct elements of a stream by offset."""
        found: dict[int, bytes] = {}
        for range_ in self.ranges:
            if range_.stream == stream:
                for element in framing.elements(range_.body):
                    found[range_.offset + element.start] = range_.body[element.start : element.end]
        return dict(sorted(found.items()))

    def gaps(self, stream: str) -> list[tuple[int, int, str]]:
        return [(r.offset, r.gap.length, r.gap.reason) for r in self.ranges if r.stream == stream and r.HasField("gap")]

    def said_by_agents(self, kind: str) -> list[Record]:
        """Records of one kind in agents' own streams."""
        streams = {range_.stream for range_ in list(self.ranges) if range_.role == ROLE_AGENT}
        elements = [element for stream in streams for element in self.records(stream).values()]
        found = [Record.FromString(element[next(framing.elements(element)).record :]) for element in elements]
        return [record for record in found if record.WhichOneof("said") == kind]


@contextmanager
def serving(servicer: Scripted, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> Iterator[Scripted]:
    """Serve on a port, which is chosen where none is given."""
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    add_IngestServicer_to_server(servicer, server)
    if credentials is None:
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
    else:
        bound = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    server.start()
    servicer.url = f"{'grpcs' if credentials else 'grpc'}://127.0.0.1:{bound}"
    try:
        yield servicer
    finally:
        server.stop(0).wait()


@dataclass
class Job:
    """A process that lives, and a stream written in its name."""

    process: subprocess.Popen[bytes]
    info: StreamInfo
    writer: SpoolWriter
    names: KeySetUse
    written: int = 0

    def log(self, count: int) -> None:
        for step in range(self.written, self.written + count):
            assert self.writer.append_step(STEPS.encode(step, step, [0.5, step]), self.names)
        self.written += count

    def close(self) -> None:
        closed = StreamClosed(reason="finish", records=self.writer.records, points=self.writer.points)
        self.writer.append_record(Record(stream_closed=closed))
        self.writer.close()

    def end(self) -> None:
        """Kill the process without a last word."""
        self.process.kill()

    @property
    def elements(self) -> dict[int, bytes]:
        """All that was written, by offset."""
        found: dict[int, bytes] = {}
        for path in sorted(self.writer.folder.glob("*.seg")):
            body = path.read_bytes()
            for element in framing.elements(body):
                found[int(path.stem) + element.start] = body[element.start : element.end]
        return found


@contextmanager
def living(**named: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits to be killed."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def write_stream(
    root: Path, process: subprocess.Popen[bytes], url: str, rank: int = 0, segment_bytes: int = 1 << 24, token: str = ""
) -> Job:
    """Open a stream as if `process` had."""
    started = psutil.Process(process.pid).create_time()
    info = StreamInfo(
        new_stream_id(), "demo", "run-1", rank, 1, "host", ROLE_RANK, process.pid, started, url, token=token
    )
    writer = SpoolWriter.create(host_folder(root), info, segment_bytes=segment_bytes)
    writer.append_record(Record(stream_opened=StreamOpened(run_id="run-1", rank=rank)))
    return Job(process, info, writer, KeySetUse.of(1, NAMES))


@contextmanager
def agent(root: Path, limits: str = "true", **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real agent process; `limits` is a shell command that runs before it."""
    told = {"RUNTIDE_SAMPLE_SECONDS": "0", "RUNTIDE_AGENT_LINGER_S": "0.3"} | env
    host_folder(root).mkdir(parents=True, exist_ok=True)
    with (host_folder(root) / "agent.log").open("ab") as log:
        served = [sys.executable, "-m", "runtide.agent", "--root", str(root)]
        command = ["/bin/sh", "-c", f'{limits}; exec "$@"', "sh", *served]
        process = subprocess.Popen(command, env=os.environ | told, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
