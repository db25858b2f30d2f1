"""Business figures as they are said: what is refused and how, and that they lie in a stream of their own."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from runtide.cli.kpis import COLUMNS, BadLines, read
from runtide.sdk.kpis import Figure
from runtide.v1.records_pb2 import ROLE_USER
from runtide.wire.errors import BadInput

from tests.offline_job import Job

NAMES = dict(zip(COLUMNS, COLUMNS, strict=True))


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("2026-11-01", 1793491200),
        ("2026-11-01T12:00:00+02:00", 1793527200),
        ("2026-11-01 10:00", 1793527200),
        ("1793527200.5", 1793527200.5),
        (datetime.date(2026, 11, 1), 1793491200),
        (datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC), 1793491200),
        (0, 0),
    ],
)
def test_times(given: Any, seconds: float) -> None:
    assert Figure.of("run:x", "ROI", 1, given).time_us == seconds * 1e6


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (("x", "ROI", 1), "subject is 'x', but it is run:ID or model:NAME@VERSION"),
        (("run:", "ROI", 1), "subject is 'run:'"),
        (("run:@kpis", "ROI", 1), "subject is 'run:@kpis'"),
        (("model:a", "ROI", 1), "subject is 'model:a'"),
        (("model:@1", "ROI", 1), "subject is 'model:@1'"),
        ((7, "ROI", 1), "subject is 7"),
        (("run:x", "", 1), "the name of a KPI is empty"),
        (("run:x", "ROI", "many"), "value is 'many', but it is a number"),
        (("run:x", "ROI", None), "value is None, but it is a number"),
        (("run:x", "ROI", float("nan")), "value is nan, but it is a finite number"),
        (("run:x", "ROI", 1, "soon"), "time is 'soon', but it is a date or time of ISO 8601"),
        (("run:x", "ROI", 1, float("inf")), "time is inf"),
        (("run:x", "ROI", 1, 1e12), "in the years 1900 to 2299"),
        (("run:x", "ROI", 1, 0, "x" * 101), "at most 100 printable characters"),
        (("run:x", "ROI", 1, 0, "", "more"), "goal is 'more', but it is min, max, or the value to reach"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[Any, ...], wrong: str) -> None:
    with pytest.raises(BadInput) as refused:
        Figure.of(*arguments)
    assert wrong in str(refused.value)


def test_a_goal_is_a_direction_or_a_value() -> None:
    assert [Figure.of("run:x", "ROI", 1, 0, None, goal).goal for goal in (None, "max", 0.05, "12")] == [
        "",
        "max",
        "0.05",
        "12",
    ]


SCRIPT = """
import os, runtide
runtide.log_kpi("model:m@1", "ROI", 2, time=1, project="shop")
run = runtide.init("shop", mode="offline")
run.log_kpi("ROI", 3, time=2)
runtide.log_kpi(run, "ROI", 4, time=3)
runtide.log_kpi("nobody", "ROI", 5)
child = os.fork()
if not child:
    runtide.log_kpi("run:c", "ROI", 6)
    os._exit(0)
os.waitpid(child, 0)
run.finish()
run.log_kpi("ROI", 7, time=4)
"""


def test_a_process_has_one_book_and_a_child_its_own(job: Job) -> None:
    done = job.run(SCRIPT, {"RUNTIDE_MODE": "offline"})
    assert "log_kpi: refused: subject is 'nobody'" in done.stderr
    books = [stream for stream in job.streams() if stream.info.run_id == "@kpis"]
    values = [[record.kpi.value for record in book.said("kpi")] for book in books]
    assert values == [[2, 3, 4, 7], [6]]
    assert all(book.info.role == ROLE_USER and book.info.project == "shop" for book in books)
    assert [len(book.said("stream_closed")) for book in books] == [1, 0]
    (run,) = [stream for stream in job.streams() if stream.info.run_id != "@kpis"]
    assert run.said("kpi") == []


def test_strict_mode_raises(job: Job) -> None:
    done = job.run(
        'import runtide; runtide.log_kpi("x", "ROI", 1)', {"RUNTIDE_MODE": "offline", "RUNTIDE_STRICT": "1"}, code=1
    )
    assert "BadInput" in done.stderr


def test_disabled_says_nothing(job: Job) -> None:
    job.run('import runtide; runtide.log_kpi("run:x", "ROI", 1)', {"RUNTIDE_MODE": "disabled"})
    assert job.streams() == []


def test_a_file_is_read_whole_with_its_own_names(tmp_path: Path) -> None:
    file = tmp_path / "f.csv"
    file.write_text('\ufeffwho;name;value;unit\nrun:a;"cost; all";1.5;EUR\nrun:b;ROI;-2;\n', encoding="utf-8")
    found = read(file, {**NAMES, "subject": "who"}, "2026-11-01", ";")
    assert [(each.subject, each.name, each.value, each.unit) for each in found] == [
        ("run:a", "cost; all", 1.5, "EUR"),
        ("run:b", "ROI", -2.0, ""),
    ]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("subject,name\n", "columns is without value, time"),
        ("subject,name,value,time\nrun:a,ROI,1,\n", "line 2: time is empty"),
        ("subject,name,value,time\nrun:a,ROI,1,0,x\n", "line 2: line is 1 cells longer"),
        ('subject,name,value,time\n"run:a,ROI,1,0\n', "it is a CSV file in UTF-8"),
        ("subject,name,value,time\nrun:a,ROI,1,0\nrun:a,ROI,2,0\n", "line 2 has said it"),
    ],
)
def test_bad_files_say_where(tmp_path: Path, text: str, wrong: str) -> None:
    file = tmp_path / "f.csv"
    file.write_text(text)
    with pytest.raises((BadInput, BadLines)) as refused:
        read(file, NAMES, None, ",")
    assert wrong in str(refused.value)


def test_many_bad_lines_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "f.csv"
    file.write_text("subject,name,value,time\n" + "run:a,ROI,x,0\n" * 50)
    with pytest.raises(BadLines, match=r"\.\.\. and 30 more"):
        read(file, NAMES, None, ",")
