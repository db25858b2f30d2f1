"""Configuration and summary, secrets, and what the console shows as log lines."""

from __future__ import annotations

import copy
import json

import pytest
from runtide.sdk.console import REDRAW_SECONDS, LineJoiner
from runtide.sdk.tree import Tree
from runtide.sdk.values import to_json
from runtide.v1.records_pb2 import Console


def test_configuration_by_item_attribute_and_update(job):
    job.run("""
import argparse, dataclasses, enum, pathlib, runtide
@dataclasses.dataclass
class Optimizer:
    name: str = "adam"
    lr: float = 0.1
class Kind(enum.Enum):
    BIG = "big"
run = runtide.init("p", config={"model": {"dim": 8, "layers": [1, 2]}, "opt": Optimizer()})
run.config["seed"] = 7
run.config.batch = 32
run.config.model.dim = 16
run.config.update(argparse.Namespace(path=pathlib.Path("/data"), kind=Kind.BIG), extra=None)
run.config.update({"model": {"heads": 4}})
runtide.config["bad"] = float("nan")
assert run.config.model.as_dict() == {"dim": 16, "layers": [1, 2], "heads": 4}
assert run.config["opt"]["lr"] == run.config.opt.lr == 0.1
del run.config.seed
try:
    run.config.nothing
except AttributeError:
    pass
else:
    raise SystemExit("not raised")
runtide.summary["best"] = {"acc": 0.9}
""")
    stream = job.stream()
    assert {key: json.loads(text) for key, text in stream.entries().items()} == {
        "model.dim": 16,
        "model.layers": [1, 2],
        "model.heads": 4,
        "opt.name": "adam",
        "opt.lr": 0.1,
        "seed": 7,
        "batch": 32,
        "path": "/data",
        "kind": "big",
        "extra": None,
        "bad": "nan",
    }
    assert [list(record.config_set.removed) for record in stream.said("config_set")][-2:] == [[], ["seed"]] or any(
        "seed" in record.config_set.removed for record in stream.said("config_set")
    )
    assert stream.entries("summary_set") == {"best/acc": "0.9"}


def test_large_configurations_are_several_records_and_too_large_entries_are_refused(job):
    done = job.run("""
import runtide
run = runtide.init("p", config={f"key{i}": "v" * 5000 for i in range(100)})
run.config["huge"] = "x" * 200_000
""")
    stream = job.stream()
    assert len(stream.said("config_set")) > 2
    assert len(stream.entries()) == 100
    assert "'huge'" in done.stderr
    assert "131072" in done.stderr


def test_secrets_are_masked_in_config_and_command(job):
    done = job.run("""
import sys
sys.orig_argv[:] = ["python", "train.py", "--api-key=K1", "--hf-token", "K2", "--lr", "0.1"]
import runtide
run = runtide.init("p", config={"db": {"password": "K3"}, "HF_TOKEN": "K4", "apiKey": "K5", "max_tokens": 5,
                                "tokenizer": "bert", "pad_token": "<pad>"})
assert run.config.db.password == "K3"
""")
    stream = job.stream()
    entries = stream.entries()
    assert {entries[key] for key in ("db.password", "HF_TOKEN", "apiKey")} == {'"***"'}
    assert entries["max_tokens"] == "5"
    assert entries["tokenizer"] == '"bert"'
    assert entries["pad_token"] == '"<pad>"'
    command = list(stream.opened.stream_opened.command)
    assert command == ["python", "train.py", "--api-key=***", "--hf-token", "***", "--lr", "0.1"]
    assert done.stdout == ""


def test_anything_becomes_valid_json():
    circle: dict[str, object] = {}
    circle["me"] = circle
    for value in (float("inf"), {1: 2}, {(1, 2): 3}, circle, object(), {3, 1}, b"ab", int, [float("nan")], 1 + 2j):
        json.loads(to_json(value))
    assert json.loads(to_json({1: float("nan"), "set": {2, 1}})) == {"1": "nan", "set": [1, 2]}


def test_a_tree_says_only_what_changes():
    said: list[tuple[dict[str, object], list[str]]] = []
    tree = Tree(lambda changed, removed: said.append((dict(changed), removed)))
    tree.update({"a": {"b": {"c": 1}}})
    tree.a.b.c = 2
    tree["a"]["d"] = {}
    del tree["a"]["b"]
    tree.setdefaults({"a": 1, "z": 9})
    assert said == [({"a.b.c": 1}, []), ({"a.b.c": 2}, []), ({"a.d": {}}, []), ({}, ["a.b.c"]), ({"z": 9}, [])]


def test_a_section_and_a_value_replace_each_other():
    said: list[tuple[dict[str, object], list[str]]] = []
    tree = Tree(lambda changed, removed: said.append((copy.deepcopy(dict(changed)), removed)))
    tree.update({"model": {"layers": 2, "head": {"dim": 8}}, "seed": 1})
    tree.model = "mlp"
    tree.update(model={"layers": 3})
    tree.update(model={})
    tree.model.layers = 4
    assert said[1:] == [
        ({"model": "mlp"}, ["model.layers", "model.head.dim"]),
        ({"model.layers": 3}, ["model"]),
        ({"model": {}}, ["model.layers"]),
        ({"model.layers": 4}, ["model"]),
    ]


def test_a_configuration_that_is_none_is_refused_by_what_it_is(job):
    done = job.run("import runtide; runtide.init('p', config=5)")
    assert "what is to be set is of type int, but config and summary take a dictionary" in done.stderr


def test_what_holds_itself_is_refused_by_name_and_costs_nothing_else(job):
    done = job.run("""
import runtide
circle = {"lr": 0.1, "model": {"dim": 8}}
circle["model"]["whole"] = circle
row = [1]
row.append(row)
run = runtide.init("p", config=circle)
run.config["row"] = row
run.config.model["dim"] = 16
twice = {"dim": 1}
run.config["shared"] = {"a": twice, "b": twice}
""")
    said = {key: json.loads(text) for key, text in job.stream().entries().items()}
    assert said == {"lr": 0.1, "model.dim": 16, "shared.a.dim": 1, "shared.b.dim": 1}
    assert "refused: entry 'model.whole' is part of itself" in done.stderr
    assert "refused: entry 'row' is part of itself" in done.stderr
    assert "recursion" not in done.stderr


def test_a_summary_refuses_what_has_no_form_but_its_repr(job):
    done = job.run("""
import pathlib, runtide
import numpy as np
run = runtide.init("p")
run.summary["x"] = object()
run.summary["rows"] = {"a": [1, len], "b": 2}
run.summary.update(path=pathlib.Path("/data"), best=np.float32(0.5), each=np.arange(2), none=None, names={"a"})
""")
    said = {key: json.loads(text) for key, text in job.stream().entries("summary_set").items()}
    assert said == {"rows/b": 2, "path": "/data", "best": 0.5, "each": [0, 1], "none": None, "names": ["a"]}
    assert "refused: entry 'x' is of type object, but a summary takes" in done.stderr
    assert "refused: entry 'rows/a' is of type builtin_function_or_method" in done.stderr


def test_text_that_is_no_valid_unicode_is_made_so(job):
    """A path from the command line or a folder listing may hold any bytes."""
    job.run(
        "import runtide; runtide.init('p', config={'path': 'data-\\udcff', 'fine': '😀'}).summary['s'] = ['\\udcff']"
    )
    assert {key: json.loads(text) for key, text in job.stream().entries().items()} == {"path": "data-?", "fine": "😀"}
    assert json.loads(job.stream().entries("summary_set")["s"]) == ["?"]


def test_printed_lines_are_kept_and_still_printed(job):
    done = job.run("""
import logging, sys
handler = logging.StreamHandler(sys.stderr)  # holds the stream before init
import runtide
run = runtide.init("p")
print("one", "two", sep=" ")
print("par", end=""); print("tial")
sys.stdout.write("a\\nb\\n")
print("to stderr", file=sys.stderr)
logging.getLogger("x").addHandler(handler)
logging.getLogger("x").warning("logged")
print("x" * 100_000)
print("\\ud800 odd".encode("utf-8", "replace").decode())
print("no end", end="")
run.finish()
print("after")
""")
    stream = job.stream()
    out = [r.log_line.line for r in stream.said("log_line") if r.log_line.console == Console.CONSOLE_STDOUT]
    err = [r.log_line.line for r in stream.said("log_line") if r.log_line.console == Console.CONSOLE_STDERR]
    assert out[:4] == ["one two", "partial", "a", "b"]
    assert "more bytes cut" in out[4]
    assert len(out[4].encode()) <= 32 * 1024
    assert out[-1] == "no end"
    assert err == ["to stderr", "logged"]
    assert done.stdout.startswith("one two\npartial\n")
    assert done.stdout.endswith("no endafter\n")
    assert stream.records[-1].HasField("stream_closed")


@pytest.mark.parametrize(("argument", "env"), [("capture_console=False", {}), ("", {"RUNTIDE_CONSOLE": "0"})])
def test_the_console_can_be_left_alone(job, argument, env):
    job.run(f"import runtide; runtide.init('p', {argument}); print('hello')", env=env)
    assert job.stream().lines() == []


def test_progress_bars_leave_their_last_state():
    now = [0.0]
    joiner = LineJoiner(lambda: now[0])
    shown = []
    for percent in range(100):
        shown += joiner.feed(f"\r{percent}%|###")
    assert shown == []
    now[0] = REDRAW_SECONDS + 1
    assert joiner.feed("\r99%") == ["99%"]
    assert joiner.feed("\r100%\n") == ["100%"]
    assert joiner.feed("windows\r\nline") == ["windows"]
    assert joiner.rest() == ["line"]


def test_a_long_text_without_an_end_of_line_is_not_kept_for_ever():
    joiner = LineJoiner()
    shown = []
    for _ in range(100):
        shown += joiner.feed("x" * 1000)
    assert shown
    assert sum(map(len, shown)) + len("".join(joiner.rest())) == 100_000
