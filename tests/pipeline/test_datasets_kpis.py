"""What a run was given and what came of it, end to end: datasets and their lineage, business figures, latencies and
calibration, as SQL shows them.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from runtide.testing.stack import Stack
from runtide.testing.waiting import until
from sklearn.calibration import calibration_curve

PAGE = Path(__file__).parents[2] / "docs" / "kpis.md"

JOB = """
import sys, os, time, numpy as np, pandas as pd, runtide
out = sys.argv[1]
dice = np.random.default_rng(0)
run = runtide.init("shop", run_id=sys.argv[2], config={"model_version": f"ranker@{sys.argv[3]}"})
for step in range(3):
    run.log({"val/auc": 0.8 + step / 100 + int(sys.argv[3]) / 1000}, step=step)

run.use_dataset("clicks", out + "/clicks.csv")
run.use_dataset("clicks", out + "/clicks.csv")
runtide.use_dataset("clicks", out + "/clicks.csv", role="validation")
run.use_dataset("images", out + "/images", "test")
run.use_dataset("features", (np.arange(12.0).reshape(6, 2), np.arange(6)), version="v" + sys.argv[3])
run.use_dataset("users", pd.DataFrame({"age": [31, 42], "name": ["x", None]}), "validation")
if sys.argv[3] == "2":
    run.use_dataset("lake", "s3://user:secret@bucket/lake", "train")

for milliseconds in range(1, 1001):
    run.log_latency("inference", milliseconds / 1000)
with runtide.latency("block"):
    time.sleep(0.02)
truth, score = dice.random(1000) < 0.3, dice.random(1000)
np.savez(out + "/calibration.npz", truth=truth, score=score)
runtide.log_calibration(truth, score, bins=7)
run.log_calibration([0, 1, 2, 2], np.eye(4, 3), name="classes", step=1)
run.log_kpi("ROI", 1.5, time="2026-11-01", unit="%", goal=2)
runtide.log_kpi(run, "churn", 0.25, time="2026-11-01T12:00:00+01:00", goal="min")
runtide.log_kpi(run, "churn", 0.2, time="2026-11-01T11:00:00", goal="min")
child = os.fork()
if not child:
    runtide.log_kpi("run:" + run.id, "said by a child", 1)
    os._exit(0)
os.waitpid(child, 0)
assert run.refused == 0, run.refused
run.log({"last": 1})
run.finish()
run.log_kpi("retention", 0.5, time=1.7e9)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Path]]:
    """A stack to which two jobs have said everything, and the folder with their data."""
    folder = tmp_path_factory.mktemp("kpis")
    (folder / "clicks.csv").write_text("user,clicked\n1,0\n")
    (folder / "images" / "deep").mkdir(parents=True)
    (folder / "images" / "b.png").write_bytes(b"bb")
    (folder / "images" / "deep" / "a.png").write_bytes(b"a")
    stack = Stack(folder / "home")
    try:
        stack.up("--no-dashboard")
        stack.run_job(JOB, str(folder), "one", "1")
        stack.run_job(JOB, str(folder), "two", "2", RUNTIDE_MODE="offline", RUNTIDE_DIR=str(away := folder / "away"))
        (folder / "offline.txt").write_text(str(stack.sql("SELECT count() FROM kpis WHERE run_id = 'two'")))
        synced = stack.runtide("sync", str(away), "--url", f"grpc://127.0.0.1:{stack.state.ports.gateway}")
        assert synced.returncode == 0, synced.stdout + synced.stderr
        stack.wait_agent()
        yield stack, folder
    finally:
        stack.end()


def test_a_dataset_is_known_by_its_content_and_recorded_once_for_each_role(told: tuple[Stack, Path]) -> None:
    stack, folder = told
    rows = stack.sql(
        "SELECT name, version, role, digest, rows, size, uri, kind FROM dataset_uses WHERE run_id = 'one' ORDER BY 1, 3"
    )
    digest = hashlib.sha256((folder / "clicks.csv").read_bytes()).hexdigest()
    clicks = [
        ("clicks", digest[:12], role, digest, None, 17, str(folder / "clicks.csv"), "file")
        for role in ("train", "validation")
    ]
    assert rows[:2] == clicks
    features, images, users = rows[2:]
    assert features[:3] == ("features", "v1", "train")
    assert features[4:] == (6, 144, "", "array")
    parts = (("b.png", b"bb"), ("deep/a.png", b"a"))
    listed = "".join(f"{json.dumps(name)} {hashlib.sha256(content).hexdigest()}\n" for name, content in parts)
    assert images[3:] == (hashlib.sha256(listed.encode()).hexdigest(), None, 3, str(folder / "images"), "folder")
    assert users[4] == 2
    ((schema,),) = stack.sql("SELECT schema FROM dataset_uses WHERE run_id = 'one' AND name = 'users'")
    assert list(json.loads(schema)) == ["age", "name"]


def test_what_was_not_read_has_no_digest_and_says_so(told: tuple[Stack, Path]) -> None:
    stack, _ = told
    ((*found, uri, note),) = stack.sql("SELECT digest, version, rows, uri, note FROM dataset_uses WHERE name = 'lake'")
    assert found == ["", "", None]
    assert "secret" not in uri
    assert "no digest" in note


def test_lineage_goes_both_ways(told: tuple[Stack, Path]) -> None:
    stack, _ = told
    rows = stack.sql("SELECT runs, roles, digests FROM datasets WHERE name = 'clicks'")
    assert rows == [(2, ["train", "validation"], 1)]
    trained = stack.sql(
        "SELECT run_id FROM dataset_uses WHERE role = 'train' AND digest IN"
        " (SELECT digest FROM dataset_uses WHERE run_id = 'one' AND name = 'features') ORDER BY run_id"
    )
    assert trained == [("one",), ("two",)], "equal content under two versions"


def test_the_fingerprint_of_data_needs_every_digest(told: tuple[Stack, Path]) -> None:
    stack, _ = told
    rows = dict(stack.sql("SELECT run_id, data FROM fingerprints ORDER BY run_id"))
    assert re.fullmatch("[0-9a-f]{64}", rows["one"])
    assert rows["two"] == ""


def test_a_kpi_of_a_run_counts_as_it_was_last_said(told: tuple[Stack, Path]) -> None:
    stack, _ = told
    rows = stack.sql(
        "SELECT name, value, unit, goal, toString(time), actor != '' FROM kpis WHERE run_id = 'one'"
        " AND name != 'said by a child' ORDER BY name"
    )
    assert rows == [
        ("ROI", 1.5, "%", "2", "2026-11-01 00:00:00.000000", True),
        ("churn", 0.2, "", "min", "2026-11-01 11:00:00.000000", True),
        ("retention", 0.5, "", "", "2023-11-14 22:13:20.000000", True),
    ]
    assert stack.sql("SELECT count() FROM kpis WHERE name = 'said by a child'") == [(2,)]


def test_a_kpi_said_offline_arrives_with_sync(told: tuple[Stack, Path]) -> None:
    stack, folder = told
    assert (folder / "offline.txt").read_text() == "[(0,)]"
    assert stack.sql("SELECT count() FROM kpis WHERE run_id = 'two'") == [(4,)]


def test_books_are_no_runs_and_are_verified_as_all_else(told: tuple[Stack, Path]) -> None:
    stack, _ = told
    stack.wait_state("two", "finished")
    shown = json.loads(stack.runtide("runs", "--json").stdout)
    assert {row["run_id"] for row in shown} == {"one", "two"}
    found = stack.runtide("verify", "--all", "--json")
    assert found.returncode == 0, found.stdout
    books = [each for each in json.loads(found.stdout) if each["run_id"] == "@kpis"]
    assert [each["clean"] for each in books] == [True]
    assert {stream["role"] for stream in books[0]["streams"]} == {"user"}
    assert stack.sql(
        "SELECT count() FROM events WHERE run_id = '@kpis' AND kind != 'kpi' AND kind NOT LIKE 'stream_%'"
    ) == [(0,)]
    rebuilt = stack.runtide("rebuild")
    assert "made the derived rows of 2 runs again" in rebuilt.stdout, rebuilt.stderr
    assert stack.sql("SELECT run_id FROM run_rows WHERE startsWith(run_id, '@')") == []


def test_figures_of_a_killed_process_arrive_once(told: tuple[Stack, Path]) -> None:
    stack, _ = told
    script = """
        import os, runtide
        for at in range(300):
            runtide.log_kpi("run:killed", str(at), at, project="shop")
        os.kill(os.getpid(), 9)
    """
    assert stack.job(script).wait(60) == -9
    counted = "SELECT count(), uniqExact(name), sum(value) FROM kpis WHERE run_id = 'killed'"
    until(lambda: stack.sql(counted) == [(300, 300, 44850)], 30, "all of it is stored")
    raw = "SELECT count() FROM events WHERE kind = 'kpi' AND json LIKE '%run:killed%'"
    assert stack.sql(raw) == [(300,)], "and no row twice"
    stack.wait_agent()
    assert stack.verify("shop/@kpis")[0] == 0


def test_show_has_datasets_and_figures_of_the_run(told: tuple[Stack, Path]) -> None:
    stack, _ = told
    found = json.loads(stack.runtide("show", "one", "--json").stdout)
    assert {row["name"] for row in found["datasets"]} == {"clicks", "features", "images", "users"}
    assert {row["name"] for row in found["kpis"]} >= {"ROI", "churn", "retention"}
    assert "retention" in stack.runtide("show", "one").stdout


def test_latencies_are_percentiles_beside_the_metrics(told: tuple[Stack, Path]) -> None:
    stack, _ = told
    rows = until(
        lambda: dict(
            stack.sql("SELECT metric, last FROM run_metrics WHERE run_id = 'one' AND metric LIKE 'inference/%'")
        ),
        30,
        "summaries are derived",
    )
    assert rows["inference/count"] == 1000
    for name, expected in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        assert rows[f"inference/{name}"] == pytest.approx(expected, rel=0.01)
    assert stack.sql("SELECT max(step) FROM metrics WHERE run_id = 'one' AND metric = 'last'") == [(3,)]
    ((p50,),) = stack.sql("SELECT value FROM metrics WHERE run_id = 'one' AND metric = 'block/p50'")
    assert 0.0198 <= p50 < 2
    until(
        lambda: (
            stack.sql("SELECT JSONExtractUInt(summary, 'inference/count') FROM runs WHERE run_id = 'one'") == [(1000,)]
        ),
        30,
        "the summary has all times",
    )


def test_calibration_is_that_of_scikit_learn(told: tuple[Stack, Path]) -> None:
    stack, folder = told
    data = np.load(folder / "calibration.npz")
    fraction, mean = calibration_curve(data["truth"], data["score"], n_bins=7)
    rows = stack.sql(
        "SELECT fraction_positive, mean_predicted, count, low, high FROM calibrations"
        " WHERE run_id = 'one' AND name = 'calibration' ORDER BY place"
    )
    assert [row[0] for row in rows] == pytest.approx(fraction.tolist(), abs=1e-12)
    assert [row[1] for row in rows] == pytest.approx(mean.tolist(), abs=1e-12)
    assert sum(row[2] for row in rows) == 1000
    assert all(row[3] <= row[1] <= row[4] for row in rows)
    many = stack.sql(
        "SELECT class, sum(count) FROM calibrations WHERE run_id = 'one' AND name = 'classes' GROUP BY class"
    )
    assert sorted(many) == [("0", 4), ("1", 4), ("2", 4)]


def test_figures_that_come_later_stand_beside_the_metrics_of_their_model(
    told: tuple[Stack, Path], tmp_path: Path
) -> None:
    stack, _ = told
    file = tmp_path / "week.csv"
    week = datetime.date(2026, 12, 1)
    file.write_text(
        "model,kpi,amount,day,unit,goal\n"
        + "".join(
            f"model:ranker@{version},{name},{value + version / 100},{week.isoformat()},{unit},{goal}\n"
            for version in (1, 2)
            for name, value, unit, goal in (
                ("click-through rate", 0.04, "", "max"),
                ("cost per order", 3, "EUR", "min"),
            )
        )
    )
    columns = ("--subject-column", "model", "--name-column", "kpi", "--value-column", "amount", "--time-column", "day")
    for _ in range(2):
        done = stack.runtide("kpi", "import", str(file), *columns, "--project", "shop")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("4 KPIs sent to grpc://"), done.stdout
    one = stack.runtide("kpi", "log", "model:ranker@2", "ROI", "3", "--time", "2026-12-01", "--project", "shop")
    assert one.returncode == 0, one.stderr
    until(lambda: stack.sql("SELECT 1 FROM kpis WHERE model = 'ranker' AND name = 'ROI'"), 30, "the last one is stored")
    assert stack.sql("SELECT count() FROM kpis WHERE model = 'ranker'") == [(5,)], "imported twice, there once"

    query, *others = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
    rows = until(lambda: [rows for rows in (stack.sql(query),) if len(rows) == 2], 30, "summaries are derived")[0]
    week_start = datetime.datetime(2026, 12, 1)
    assert rows == [
        ("ranker", "1", "one", pytest.approx(0.821), pytest.approx(0.05), week_start),
        ("ranker", "2", "two", pytest.approx(0.822), pytest.approx(0.06), week_start),
    ]

    assert [len(stack.sql(other)) for other in others] == [0, 0, 2], "the page's other questions can be asked"

    listed = json.loads(stack.runtide("kpi", "list", "--subject", "model:ranker@1", "--json").stdout)
    assert [(row["name"], row["value"], row["unit"]) for row in listed] == [
        ("click-through rate", 0.05, ""),
        ("cost per order", 3.01, "EUR"),
    ]


def test_of_a_file_with_bad_lines_nothing_is_imported(told: tuple[Stack, Path], tmp_path: Path) -> None:
    stack, _ = told
    file = tmp_path / "bad.csv"
    file.write_text(
        "subject,name,value,time\n"
        "run:one,bad,1,2026-12-01\n"
        "ranker,bad,2,2026-12-01\n"
        "run:one,bad,many,2026-12-02\n"
        "run:one,bad,4,yesterday\n"
        "run:one,bad,5,2026-12-01\n"
    )
    done = stack.runtide("kpi", "import", str(file), "--project", "shop")
    assert done.returncode == 1
    for line, value, rule in (
        (3, "'ranker'", "run:ID or model:NAME@VERSION"),
        (4, "'many'", "a number"),
        (5, "'yesterday'", "ISO 8601"),
        (6, "those of another line", "line 2"),
    ):
        assert re.search(rf"line {line}: .*{re.escape(value)}.*{rule}", done.stderr), done.stderr
    marker = stack.runtide("kpi", "log", "run:one", "after bad", "1", "--project", "shop")
    assert marker.returncode == 0
    until(lambda: stack.sql("SELECT 1 FROM kpis WHERE name = 'after bad'"), 30, "a later figure is stored")
    assert stack.sql("SELECT count() FROM kpis WHERE name = 'bad'") == [(0,)]
