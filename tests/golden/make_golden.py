"""Writes the frozen bytes of this release's wire: one file for each kind of record, and what it says as JSON; and the
contract itself, `contract.binpb`, with which every later one is compared.

    python tests/golden/make_golden.py

Frozen means frozen: a file that is there is never overwritten. A new kind of record adds files; a new release may add a
folder of its own; what an old release wrote has to be readable for ever.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from runtide.spool.layout import Position, StreamInfo, segment_name
from runtide.v1 import ingest_pb2 as ingest
from runtide.v1 import records_pb2 as v1
from runtide.wire.framing import StepEncoder, seal

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "v0.1"
TIME = 1_790_000_000_123_456
LATER = frozenset(["environment", "source_file", "fingerprint", "metric_defined"])
"""Kinds that were added when push.bin was frozen already."""

RECORDS: dict[str, v1.Record] = {
    "stream_opened": v1.Record(
        stream_opened=v1.StreamOpened(
            time_us=TIME,
            role=v1.ROLE_RANK,
            project="vision",
            run_id="run-1",
            experiment="digits",
            name="größer",
            group="g",
            job_type="train",
            tags=["a", "b"],
            notes="n",
            user="trainer",
            host="node-1",
            pid=4242,
            rank=3,
            local_rank=1,
            world_size=8,
            launcher="torchrun",
            launch_id="launch-1",
            attempt=2,
            resume_step=0,
            sdk_version="0.1.0",
            python_version="3.11.7",
            git_commit="0123abc",
            git_remote="git@example.org:a/b.git",
            git_branch="main",
            command=["train.py", "--lr", "0.1"],
            working_dir="/work",
            resumed_from="run-0",
        )
    ),
    "key_set": v1.Record(key_set=v1.KeySet(id=1, names=["loss", "acc/top1", "größe"])),
    "sample": v1.Record(
        sample=v1.Sample(
            time_us=TIME,
            rank=-1,
            readings=[
                v1.Reading(name="cpu_percent", value=12.5),
                v1.Reading(device="gpu0", name="power_watts", value=float("nan")),
            ],
        )
    ),
    "log_line": v1.Record(log_line=v1.LogLine(time_us=TIME, console=v1.CONSOLE_STDERR, line="epoch 1 ✓")),
    "config_set": v1.Record(
        config_set=v1.ConfigSet(time_us=TIME, entries=[v1.Entry(key="model.depth", json="12")], removed=["old"])
    ),
    "figure": v1.Record(
        figure=v1.Figure(
            time_us=TIME,
            name="cm",
            kind="confusion_matrix",
            step=-7,
            json='{"classes":["0","1"]}',
            content=b"\x00\xff",
            content_type="image/png",
        )
    ),
    "artifact_ref": v1.Record(
        artifact_ref=v1.ArtifactRef(
            time_us=TIME,
            name="model",
            kind="model",
            digest="sha256:00",
            size=2**40,
            uri="s3://b/k",
            json="{}",
            used=True,
        )
    ),
    "dataset_use": v1.Record(
        dataset_use=v1.DatasetUse(
            time_us=TIME, name="digits", version="1", role="test", digest="d", rows=1797, size=9, uri="u", json="{}"
        )
    ),
    "mark": v1.Record(mark=v1.Mark(time_us=TIME, text="warm-up", step=0, duration_us=1_500_000)),
    "alert": v1.Record(alert=v1.Alert(time_us=TIME, title="t", text="loss is NaN", level="error", step=41)),
    "kpi": v1.Record(kpi=v1.Kpi(time_us=TIME, subject="model:3", name="revenue", value=-1.25, unit="EUR", json="{}")),
    "change": v1.Record(
        change=v1.Change(
            time_us=TIME, actor="trainer", subject="run-1", kind="tag", reason="r", before="[]", after='["x"]'
        )
    ),
    "heartbeat": v1.Record(heartbeat=v1.Heartbeat(time_us=TIME, streams=["s1", "s2"])),
    "gap": v1.Record(
        gap=v1.Gap(time_us=TIME, reason="spool_full", records=3, points=30, length=512, detail="disk budget")
    ),
    "stream_closed": v1.Record(
        stream_closed=v1.StreamClosed(
            time_us=TIME, exit_code=-15, reason="signal", signal="SIGTERM", records=10, points=100, preempted=True
        )
    ),
    "stream_ended": v1.Record(
        stream_ended=v1.StreamEnded(time_us=TIME, stream="s1", offset=2**33, exit_code=0, signal="SIGKILL", closed=True)
    ),
    "environment": v1.Record(environment=v1.Environment(time_us=TIME, json='{"python":"3.11.7"}')),
    "source_file": v1.Record(
        source_file=v1.SourceFile(
            time_us=TIME,
            path="src/größe.py",
            kind="entry",
            digest="00ff",
            size=300_000,
            content=b"print(1)\n\xff",
            truncated=True,
            note="cut",
            part=1,
            parts=2,
        )
    ),
    "fingerprint": v1.Record(
        fingerprint=v1.Fingerprint(time_us=TIME, code="c0", config="c1", data="d0", environment="e0")
    ),
    "metric_defined": v1.Record(
        metric_defined=v1.MetricDefined(time_us=TIME, name="val/größe", goal="max", x="epoch", summary="best")
    ),
    "summary_set": v1.Record(summary_set=v1.SummarySet(time_us=TIME, entries=[v1.Entry(key="best", json="0.99")])),
}


def elements() -> dict[str, tuple[bytes, Message]]:
    """Name to the bytes of one element and the record that they hold."""
    made = {name: seal(record.SerializeToString(deterministic=True)) for name, record in RECORDS.items()}
    made["step"] = StepEncoder(1, 3).encode(-9, TIME, [0.1, float("inf"), -0.0])
    return {name: (raw, v1.Batch.FromString(raw).records[0]) for name, raw in sorted(made.items())}


def envelopes() -> dict[str, Message]:
    """Name to a message that is not a record: what is pushed, and what stands on the bus."""
    made = elements()
    body = made["key_set"][0] + made["step"][0]
    who = {"stream": "s1", "run_id": "run-1", "rank": 3, "attempt": 2, "host": "node-1", "project": "vision"}
    key_set = v1.KeySet(id=1, names=["loss"])
    return {
        "push": push(),
        "range": ingest.Range(offset=77, role=v1.ROLE_RANK, key_sets=[key_set], body=body, **who),
        "range_gap": ingest.Range(offset=77, gap=v1.Gap(reason="refused", records=1, length=9), **who),
    }


def push() -> ingest.PushRequest:
    """What an agent hands over: a stream with all kinds but LATER, cut in two, and a child's that lost its end."""
    who = {"run_id": "frozen", "rank": 3, "attempt": 1, "host": "node-1", "project": "default"}
    made = {name: raw for name, (raw, _) in elements().items() if name not in {"stream_closed", *LATER}}
    opened, key_set = made.pop("stream_opened"), made.pop("key_set")
    made["gap"] = sealed(gap=v1.Gap(time_us=TIME, reason="spool_full", records=3, points=30, detail="disk budget"))
    made["stream_ended"] = sealed(stream_ended=v1.StreamEnded(time_us=TIME, stream="a2", offset=len(opened) + 9))
    closed = v1.StreamClosed(time_us=TIME, reason="finish", records=2 + len(made), points=3)
    body = b"".join([*made.values(), sealed(stream_closed=closed)])
    names = v1.KeySet(id=1, names=["loss", "acc/top1", "größe"])
    lost = v1.Gap(time_us=TIME, reason="refused", records=1, length=9)
    whole, child = {"stream": "a1", "role": v1.ROLE_RANK, **who}, {"stream": "a2", "role": v1.ROLE_CHILD, **who}
    return ingest.PushRequest(
        agent="node-1",
        ranges=[
            ingest.Range(offset=0, body=opened + key_set, **whole),
            ingest.Range(offset=len(opened + key_set), body=body, key_sets=[names], **whole),
            ingest.Range(offset=0, body=opened, **child),
            ingest.Range(offset=len(opened), gap=lost, **child),
        ],
    )


def sealed(**said: Message) -> bytes:
    """The bytes of one element."""
    return seal(v1.Record(**said).SerializeToString(deterministic=True))


def freeze_spool(folder: Path) -> None:
    """Write what a job leaves on its disk that no agent has served: two segments of one stream."""
    info = StreamInfo("0191d3f8b0000000", "default", "left", 3, 1, "node-1", v1.ROLE_RANK, 4242, 1_790_000_000.5, "")
    made = {name: raw for name, (raw, _) in elements().items()}
    encoder = StepEncoder(1, 3)
    steps = [encoder.encode(step, TIME + step, [float(step), 0.5, float("nan")]) for step in range(10)]
    closed = sealed(stream_closed=v1.StreamClosed(time_us=TIME, reason="finish", records=13, points=30))
    first = b"".join([made["stream_opened"], made["key_set"], *steps[:5]])
    second = b"".join([made["key_set"], *steps[5:], closed])  # a segment says its names again
    stream = folder / "node-1-00000000-1" / info.stream
    stream.mkdir(parents=True)
    info.write(stream)
    Position(error="gateway at grpc://node-0:7171 unreachable").write(stream)
    (stream / segment_name(0)).write_bytes(first)
    (stream / segment_name(len(first))).write_bytes(second)


def freeze_contract(path: Path) -> None:
    """Write what proto/ says now as a FileDescriptorSet."""
    command = [Path(sys.executable).with_name("buf"), "build", "proto", "--as-file-descriptor-set"]
    subprocess.run([*command, "--exclude-source-info", "--output", path], cwd=ROOT, check=True)


def as_json(message: Message) -> str:
    """What is compared."""
    return MessageToJson(message, preserving_proto_field_name=True, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> int:
    """Write what is not there; say what differs from what is."""
    wanted = elements() | {name: (each.SerializeToString(), each) for name, each in envelopes().items()}
    FOLDER.mkdir(exist_ok=True)
    if not (contract := FOLDER / "contract.binpb").exists():
        freeze_contract(contract)
    if not (spool := FOLDER / "spool").exists():
        freeze_spool(spool)
    differing = []
    for name, (raw, message) in wanted.items():
        binary, text = FOLDER / f"{name}.bin", FOLDER / f"{name}.json"
        if not binary.exists():
            binary.write_bytes(raw)
            text.write_text(as_json(message))
        elif binary.read_bytes() != raw:
            differing.append(name)
    for name in differing:
        sys.stderr.write(f"{name}: frozen, and now written differently; the frozen file is left as it is\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
