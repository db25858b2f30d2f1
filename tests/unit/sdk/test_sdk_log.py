"""log(): what it takes, what it refuses, and that what it returned for is on the disk."""

from __future__ import annotations

import math
import signal

import pytest


def test_steps_in_any_order_and_counted_up(job):
    job.run("""
import runtide
run = runtide.init("p")
run.log({"a": 1})
run.log({"a": 2})
run.log({"a": 3}, step=-7)
run.log({"a": 4})
run.log({"a": 5}, step=100)
run.log({"a": 6}, step=5.0)
runtide.log({"a": 7})
runtide.finish()
assert runtide.run is None
""")
    assert [(step, row["a"]) for step, row in job.stream().steps()] == [
        (0, 1),
        (1, 2),
        (-7, 3),
        (-6, 4),
        (100, 5),
        (5, 6),
        (6, 7),
    ]


def test_nested_names_are_joined_and_scalars_of_numpy_are_numbers(job):
    job.run("""
import numpy as np
import runtide
run = runtide.init("p")
for _ in range(2):  # the first call makes the key set, the second one finds it
    run.log({"train": {"loss": np.float32(0.5), "acc": np.float64(0.25)}, "n": np.int64(3), "ok": True,
             "zero_d": np.array(2.0), "one": np.array([4.0]), "flag": np.bool_(True)})
    run.log({"plain": np.float32(0.5), "whole": np.int64(2)}, step=np.int64(9))
""")
    expected = {"train/loss": 0.5, "train/acc": 0.25, "n": 3, "ok": 1, "zero_d": 2, "one": 4, "flag": 1}
    steps = job.stream().steps()
    assert steps[0][1] == steps[2][1] == expected
    assert steps[1] == steps[3] == (9, {"plain": 0.5, "whole": 2})


def test_nan_and_inf_are_kept(job):
    job.run("""
import runtide
runtide.init("p").log({"nan": float("nan"), "inf": float("inf")})
""")
    ((_, row),) = job.stream().steps()
    assert math.isnan(row["nan"])
    assert row["inf"] == math.inf


def test_a_whole_number_that_no_float_holds_is_refused_by_name_and_value(job):
    done = job.run("""
import runtide
run = runtide.init("p")
run.log({"a": 1, "b": 1})
run.log({"a": 10**400, "b": 2})
run.log({"a": -(10**400)})
""")
    assert [row for _, row in job.stream().steps()] == [{"a": 1, "b": 1}, {"b": 2}]
    assert "metric 'a' is about 10**400, but metrics are floats of 64 bits, at most 1.8e+308" in done.stderr
    assert "2 values were refused" in done.stderr


def test_what_is_no_number_is_refused_once_by_name(job):
    done = job.run("""
import runtide
run = runtide.init("p")
for _ in range(3):
    run.log({"good": 1.0, "bad": "text", "worse": None, "list": [1, 2]})
run.log("nonsense")
run.log({"": 1})
run.log({3: 1})
run.log({"long" * 300: 1})
run.log({"x": 1}, step="seven")
run.log({"x": 1}, step=2**70)
assert run.refused > 0
""")
    assert [row for _, row in job.stream().steps()] == [{"good": 1.0}] * 3
    assert done.stderr.count("refused: metric 'bad'") == 1
    assert "'bad' is of type str, but metrics are numbers" in done.stderr
    assert "at most 1024 bytes" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_was_refused_is_counted_and_declared(job):
    done = job.run("""
import runtide
run = runtide.init("p")
for i in range(1000):
    run.log({"s": "x", "good": i})
run.log(None)
assert run.stats().refused == run.refused == 1001, run.stats()
run.finish()
""")
    first = "metric 's' is of type str, but metrics are numbers"
    assert done.stderr.count(f"1001 values were refused (first: {first})") == 1
    stream = job.stream()
    (gap,) = [record.gap for record in stream.said("gap")]
    assert (gap.reason, gap.points, gap.detail) == ("refused", 1001, first)
    closed = stream.records[-1].stream_closed
    assert (closed.records, closed.points) == (len(stream.records) - 1, 1000)


def test_a_job_that_had_nothing_refused_hears_nothing_of_it(job):
    done = job.run("import runtide; run = runtide.init('p'); run.log({'a': 1}); run.finish()")
    assert "refused" not in done.stderr
    assert not job.stream().said("gap")


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("log(None)", "data is of type NoneType, but log() takes a dictionary"),
        ("log(5)", "data is of type int, but log() takes a dictionary"),
        ("log(circle)", "is nested deeper, but 32 levels are joined"),
        ("log({' ': 1})", "the name of a metric is blank"),
        ("log({'new\\nline': 1})", "is 'new\\nline', but names have no control characters"),
        ("log({'\\u2028': 1})", "the name of a metric is blank"),
        ("log({'a': 1}, timestamp=1.7e12)", "timestamp is 1700000000000.0, but it is seconds since the epoch"),
        ("log({'a': 1}, timestamp=float('nan'))", "timestamp is nan, but"),
        ("log({'a': 1}, timestamp='today')", "timestamp is 'today', but"),
        ("log({'a': 1}, step=2**63 - 1)", "step is 9223372036854775807, but"),
        ("config.update(**{' ': 1})", "the name of an entry is blank"),
    ],
)
def test_a_refusal_names_what_is_wrong_and_disturbs_nothing(job, call, expected):
    script = f"""
import runtide
run = runtide.init("p")
circle = dict()
circle["x"] = circle
run.log({{"a": 1}})
run.{call}
run.log({{"a": 2}})
assert run.refused == 1, run.refused
"""
    done = job.run(script)
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert job.stream().steps() == [(0, {"a": 1}), (1, {"a": 2})]


def test_names_in_any_script_are_taken(job):
    names = ["verlust/größe", "损失", "👩‍🔬 lab", "a b", "\u200bx"]
    job.run(f"import runtide; runtide.init('p').log({dict.fromkeys(names, 1)!r})")
    assert [set(row) for _, row in job.stream().steps()] == [set(names)]


def test_the_last_step_that_fits_is_refused_after(job):
    job.run("""
import runtide
run = runtide.init("p")
for _ in range(2):
    run.log({"a": 1}, step=2**63 - 2)
run.log({"a": 1})
assert run.refused == 1
run.log({"a": 1}, step=7)
""")
    assert [step for step, _ in job.stream().steps()] == [2**63 - 2, 2**63 - 2, 7]


def test_strict_mode_raises(job):
    job.run(
        """
import runtide
from runtide.wire.errors import BadInput
run = runtide.init("p")
try:
    run.log({"bad": "text"})
except BadInput as error:
    assert error.field == "metric 'bad'", error.field
else:
    raise SystemExit("not raised")
""",
        env={"RUNTIDE_STRICT": "1"},
    )


def test_strict_mode_raises_when_the_run_is_finished(job):
    job.run(
        """
import runtide
from runtide.wire.errors import BadInput
run = runtide.init("p")
run.log({"a": 1})
run.finish()
try:
    run.log({"a": 1})
except BadInput as error:
    assert "finished" in str(error)
else:
    raise SystemExit("not raised")
""",
        env={"RUNTIDE_STRICT": "1"},
    )


def test_gathered_values_come_as_one_step(job):
    job.run("""
import runtide
run = runtide.init("p")
run.log({"a": 1}, commit=False)
run.log({"b": 2}, commit=False)
run.log({"c": 3})
run.log({"a": 1}, step=5, commit=False)
run.log({"b": 2}, step=6)
run.log({"last": 1}, commit=False)
run.finish()
""")
    assert job.stream().steps() == [
        (0, {"a": 1, "b": 2, "c": 3}),
        (5, {"a": 1}),
        (6, {"b": 2}),
        (7, {"last": 1}),
    ]


def test_timestamps_are_taken(job):
    job.run("""
import datetime, runtide
run = runtide.init("p")
run.log({"a": 1}, timestamp=12.5)
run.log({"a": 1}, timestamp=datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc))
""")
    assert [record.step.time_us for record in job.stream().said("step")] == [12_500_000, 1_577_836_800_000_000]


def test_more_names_than_a_key_set_holds_are_several_steps_of_one(job):
    job.run("""
import runtide
run = runtide.init("p")
run.log({f"m{i}": i for i in range(2500)})
run.log({"n" * 1000 + str(i): i for i in range(600)})
run.log({"after": 1})
""")
    steps = job.stream().steps()
    assert [step for step, _ in steps] == [0, 0, 0, 1, 1, 1, 2]
    assert sum(len(row) for step, row in steps if step == 0) == 2500
    assert sum(len(row) for step, row in steps if step == 1) == 600


@pytest.mark.parametrize("count", [1, 777])
def test_after_kill_9_exactly_the_logged_steps_are_there(job, count):
    script = f"""
import os, runtide
run = runtide.init("p")
for step in range({count}):
    run.log({{"a": step, "b": step * 0.5}}, step=step)
os.kill(os.getpid(), 9)
"""
    process = job.start(script)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    stream = job.stream()
    assert stream.steps() == [(step, {"a": step, "b": step * 0.5}) for step in range(count)]
    assert not stream.said("stream_closed")


def test_the_last_word_declares_what_was_said_before(job):
    job.run("""
import runtide
with runtide.init("p", config={"lr": 0.1}) as run:
    for step in range(10):
        run.log({"a": 1, "b": 2})
    print("hello")
    run.mark("half", step=3)
    run.alert("Odd", "loss rises", "warn")
""")
    stream = job.stream()
    closed = stream.records[-1].stream_closed
    assert closed.records == len(stream.records) - 1
    assert closed.points == 20
    assert (closed.exit_code, closed.reason) == (0, "finish")
    assert stream.said("mark")[0].mark.step == 3
    assert stream.said("alert")[0].alert.level == "warn"


def test_threads_lose_nothing(job):
    job.run("""
import threading, runtide
run = runtide.init("p")
def work(n):
    for i in range(500):
        run.log({f"t{n}": i})
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
""")
    steps = job.stream().steps()
    assert sorted(step for step, _ in steps) == list(range(2000))


def test_grpc_and_numpy_are_not_loaded(job):
    job.run("""
import sys, runtide
assert "google.protobuf" not in sys.modules
run = runtide.init("p")
run.log({"a": 1})
run.finish()
loaded = {"grpc", "numpy", "pandas", "torch"} & set(sys.modules)
assert not loaded, loaded
""")


def test_phases_are_marks_with_a_duration(job):
    job.run("""
import runtide
run = runtide.init("p")
run.phase("warm-up")
with run.phase("train"):
    with run.phase("inner"):
        pass
run.phase("eval")
run.finish()
""")
    marks = [record.mark for record in job.stream().said("mark")]
    assert [mark.text for mark in marks] == ["warm-up", "inner", "train", "eval"]
    assert all(mark.HasField("duration_us") for mark in marks)


def test_disabled_leaves_no_trace_and_has_the_same_surface(job):
    job.run("""
import runtide
run = runtide.init("p", mode="disabled", config={"a": {"b": 1}})
run.log({"a": 1, "bad": "x"}); run.log({}, commit=False); run.mark("m"); run.alert("a")
with run.phase("x"):
    pass
run.config.c = 2
run.summary["best"] = 1
assert run.config.a.b == 1
assert run.wait_stored(1)
assert run.stats().written.records == 0
assert runtide.run is run
run.finish()
""")
    assert not job.root.exists()


def test_logging_without_a_run_or_after_its_end_harms_nobody(job):
    done = job.run("""
import runtide
runtide.log({"a": 1})
run = runtide.init("p")
run.finish()
run.log({"a": 1})
run.log({"a": 1})
run.finish()
""")
    assert "call runtide.init()" in done.stderr
    assert done.stderr.count("only a run that goes on") == 1
    assert job.stream().steps() == []


def test_two_runs_in_one_process_do_not_mix(job):
    job.run("""
import runtide
one = runtide.init("p")
two = runtide.init("p")
assert one.id != two.id
assert runtide.run is two
one.log({"a": 1}); two.log({"a": 2})
two.finish()
assert runtide.run is one
runtide.log({"a": 3})
""")
    rows = {stream.info.run_id: [row["a"] for _, row in stream.steps()] for stream in job.streams()}
    assert sorted(rows.values()) == [[1, 3], [2]]


def test_silent_is_silent(job):
    done = job.run(
        'import runtide; run = runtide.init("p"); run.log({"a": "x"}); run.finish()', env={"RUNTIDE_SILENT": "1"}
    )
    assert done.stderr == ""


def test_a_spool_that_cannot_be_written_to_does_not_stop_the_job(job, tmp_path):
    (tmp_path / "file").write_text("")
    done = job.run(
        """
import runtide
run = runtide.init("p")
run.log({"a": 1}); run.config["x"] = 1; run.finish()
print("done")
""",
        env={"RUNTIDE_DIR": str(tmp_path / "file" / "spool")},
    )
    assert done.stdout == "done\n"
    assert "cannot be written to" in done.stderr
    assert "the run is finished" not in done.stderr
    assert "of project p" not in done.stderr, "it is not told where the run goes to"


def test_a_spent_budget_is_said_once_and_declared(job):
    done = job.run(
        """
import runtide
run = runtide.init("p")
for step in range(3000):
    run.log({"a": step, "b": 1})
    print("line", step)
found = run.stats()
assert found.dropped.points > 0 and found.written.points + found.dropped.points == 6000, found
run.finish()
""",
        env={"RUNTIDE_SPOOL_MB": "0.1"},
    )
    assert done.stderr.count("records are dropped: the spool's disk budget is spent") == 1
    stream = job.stream()
    closed = stream.records[-1].stream_closed
    gaps = [record.gap for record in stream.said("gap")]
    assert closed.records == len(stream.records) - 1
    assert closed.points + sum(gap.points for gap in gaps) == 6000
    lines = len(stream.lines()) + sum(gap.records for gap in gaps) - (6000 - closed.points) // 2
    assert lines == 3000, "every line is there or declared"


def test_the_spool_is_its_owners_only(job):
    job.run('import runtide; runtide.init("p", token="abc").log({"a": 1})')
    (host,) = job.root.iterdir()
    (stream,) = (path for path in host.iterdir() if path.is_dir())
    assert stream.stat().st_mode & 0o77 == 0
    assert all(path.stat().st_mode & 0o77 == 0 for path in stream.iterdir())


def test_an_interrupt_in_the_middle_of_log_leaves_counts_right(job):
    job.run("""
import signal, runtide
run = runtide.init("p")
def interrupt(number, frame):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
step = 0
for _ in range(200):
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001)  # once
        while True:
            run.log({"a": step, "b": 1})
            step += 1
    except KeyboardInterrupt:
        pass
run.finish()
""")
    stream = job.stream()
    closed = stream.records[-1].stream_closed
    assert closed.records == len(stream.records) - 1
    assert closed.points == 2 * len(stream.said("step"))


def test_names_beyond_the_limit_of_a_run_are_refused_and_their_neighbours_kept(job):
    said = job.run("""
import runtide
from runtide.wire import limits
limits.RUN_METRIC_NAMES = 5
run = runtide.init("p")
for step in range(10):
    run.log({"loss": step, f"made/up/{step}": 1.0}, step=step)
run.finish()
""")
    steps = job.stream().steps()
    assert [row["loss"] for _, row in steps] == list(range(10))
    assert len({name for _, row in steps for name in row}) == 5
    assert said.stderr.count("at most 5 metric names (run_metric_names)") == 2, "when it happens, and at the end"
    assert "6 values were refused" in said.stderr
