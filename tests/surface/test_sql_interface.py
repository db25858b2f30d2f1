"""The public interface for SQL: names, types and order of columns are a promise; columns may be added at the end."""

from __future__ import annotations

import pytest
from runtide.warehouse.client import Client

INTERFACE = """
[audit]
project String
seq UInt64
time DateTime64(6, 'UTC')
actor String
subject String
kind String
reason String
before String
after String
stream String
offset UInt64
previous String
hash String

[run_changes]
project String
run_id String
name Nullable(String)
notes Nullable(String)
added Array(String)
removed Array(String)
favourite Bool
deleted Bool
changed_seq UInt64

[deleted_runs]
project String
run_id String
name String
experiment String
started_at DateTime64(6, 'UTC')
deleted_at DateTime64(6, 'UTC')
actor String
reason String

[comments]
project String
subject String
seq UInt64
time DateTime64(6, 'UTC')
actor String
text String

[claims]
project String
subject String
actor String
since DateTime64(6, 'UTC')
text String

[saved_views]
project String
name String
actor String
saved_at DateTime64(6, 'UTC')
json String

[experiment_runs]
project String
experiment String
run_id String
name String
state String
started_at DateTime64(6, 'UTC')
ended_at Nullable(DateTime64(6, 'UTC'))
value Nullable(Float64)
best_so_far Nullable(Float64)
hours Float64
cost Nullable(Float64)
budget_used Nullable(Float64)
budget_left Nullable(Float64)

[experiments]
project String
experiment String
hypothesis String
owner String
metric String
goal String
target Nullable(Float64)
deadline Nullable(Date)
planned_from Nullable(Date)
planned_to Nullable(Date)
started_at Nullable(DateTime64(6, 'UTC'))
ended_at Nullable(DateTime64(6, 'UTC'))
runs UInt64
runs_finished UInt64
runs_going UInt64
best Nullable(Float64)
best_run String
to_go Nullable(Float64)
met Bool
budget Nullable(Float64)
budget_unit String
budget_used Nullable(Float64)
budget_used_share Nullable(Float64)
budget_alert String
decision String
depends Array(String)
created_at Nullable(DateTime64(6, 'UTC'))
hours Float64
runs_not_priced UInt64

[experiment_dependencies]
project String
experiment String
run_id String
depends_on String
needs String
why String
state String

[attempts]
project String
run_id String
attempt UInt16
launch_id String
opened_at DateTime64(6, 'UTC')
resume_step Nullable(Int64)
world_size UInt32

[environments]
project String
run_id String
attempt UInt16
time DateTime64(6, 'UTC')
host String
python String
os String
cpu String
cpus UInt32
memory_bytes UInt64
gpus Array(String)
driver String
cuda String
image String
scheduler String
job_id String
command Array(String)
working_dir String
git_commit String
git_branch String
git_remote String
git_dirty Bool
packages Map(String, String)
variables Map(String, String)
notes Array(String)
json String

[files]
project String
run_id String
attempt UInt16
kind String
path String
time DateTime64(6, 'UTC')
digest String
size UInt64
content String
truncated Bool
note String

[artifact_words]
project String
run_id String
name String
used Bool
which String
time DateTime64(6, 'UTC')
kind String
digest String
size UInt64
uri String
aliases Array(String)
step Nullable(Int64)
metric String
value Nullable(Float64)
goal String
count UInt32
metadata String
files Array(Tuple(path String, digest String, size UInt64))
content String
place Tuple(DateTime64(3, 'UTC'), DateTime64(6, 'UTC'), String, UInt64)

[artifacts]
project String
name String
version UInt32
aliases Array(String)
kind String
run_id String
time DateTime64(6, 'UTC')
digest String
size UInt64
files UInt32
uri String
step Nullable(Int64)
metric String
value Nullable(Float64)
metadata String

[artifact_files]
project String
name String
version UInt32
path String
digest String
size UInt64
run_id String

[artifact_uses]
project String
name String
version UInt32
run_id String
used Bool
time DateTime64(6, 'UTC')
which String
digest String

[fingerprints]
project String
run_id String
attempt UInt16
code String
config String
data String
environment String

[confusion_matrices]
project String
run_id String
name String
step Int64
rank Int32
time DateTime64(6, 'UTC')
actual String
predicted String
count UInt64
actual_index UInt32
predicted_index UInt32

[curves]
project String
run_id String
name String
kind String
step Int64
rank Int32
time DateTime64(6, 'UTC')
class String
place UInt32
x Float64
y Float64
threshold Float64

[curve_areas]
project String
run_id String
name String
kind String
step Int64
rank Int32
time DateTime64(6, 'UTC')
class String
area Float64
average_precision Float64
positives UInt64
negatives UInt64
points UInt64
thinned Bool

[histograms]
project String
run_id String
name String
step Int64
rank Int32
time DateTime64(6, 'UTC')
place UInt32
low Float64
high Float64
count UInt64

[images]
project String
run_id String
name String
kind String
step Int64
rank Int32
time DateTime64(6, 'UTC')
caption String
content_type String
size UInt64
content String

[metric_definitions]
project String
run_id String
metric String
goal String
x String
summary String

[run_metrics]
project String
run_id String
metric String
value Float64
goal String
best Nullable(Float64)
best_step Nullable(Int64)
last Float64
last_step Int64
min Float64
max Float64
mean Float64
count UInt64
non_finite UInt64
x String
summary String

[duplicates]
project String
experiment String
first_run String
first_at DateTime64(6, 'UTC')
runs UInt64
run_ids Array(String)
seconds Float64
finished UInt64
code String
config String
data String

[completeness]
project String
run_id String
score Float64
met Array(String)
missing Array(String)

[explored]
project String
experiment String
key String
value String
runs UInt64
finished UInt64
under_way UInt64
last_at DateTime64(6, 'UTC')

[dataset_uses]
project String
run_id String
name String
version String
role String
digest String
rows Nullable(UInt64)
size UInt64
uri String
schema String
time DateTime64(6, 'UTC')
kind String
note String
attempt UInt16

[datasets]
project String
name String
version String
digest String
digests UInt64
rows Nullable(UInt64)
size UInt64
uri String
first_used DateTime64(6, 'UTC')
last_used DateTime64(6, 'UTC')
runs UInt64
roles Array(String)

[kpis]
project String
subject String
run_id String
model String
version String
name String
time DateTime64(6, 'UTC')
value Float64
unit String
goal String
said_at DateTime64(6, 'UTC')
actor String

[calibrations]
project String
run_id String
name String
step Int64
rank Int32
time DateTime64(6, 'UTC')
class String
place UInt32
low Float64
high Float64
mean_predicted Float64
fraction_positive Float64
count UInt64

[costs]
project String
run_id String
experiment String
user String
host String
device String
model String
time DateTime('UTC')
hours Float64
watched_hours Float64
idle_hours Float64
energy_kwh Float64
measured_kwh Float64
rate Float64
cost Float64
currency String
carbon_g Float64
sampled Bool
priced Bool

[run_costs]
project String
run_id String
experiment String
user String
hours Float64
host_hours Float64
gpu_hours Float64
gpu_watched_hours Float64
gpu_idle_hours Float64
gpu_idle_share Nullable(Float64)
cpu_core_hours Float64
energy_kwh Float64
measured_kwh Float64
energy_source String
cost Float64
currency String
carbon_g Float64
carbon_g_per_kwh Float64
carbon_source String
sampled Bool
priced Bool

[dead_letter_rulings]
project String
run_id String
stream String
offset UInt64
revision UInt32
fate String
at DateTime64(6, 'UTC')
by String
token String
why String
refusal String

[logs]
project String
run_id String
rank Int32
time DateTime64(6, 'UTC')
stream String
line String
attempt UInt16

[metric_summary]
project String
run_id String
metric String
rank Int32
last Float64
last_step Int64
min Float64
min_step Int64
max Float64
max_step Int64
mean Float64
count UInt64
non_finite UInt64

[metrics]
project String
run_id String
metric String
rank Int32
step Int64
time DateTime64(6, 'UTC')
value Float64
attempt UInt16

[resources]
project String
run_id String
host String
device String
name String
time DateTime64(6, 'UTC')
value Float64
rank Int32

[runs]
project String
run_id String
experiment String
name String
state String
user String
host String
world_size UInt32
attempt UInt16
started_at DateTime64(6, 'UTC')
finished_at Nullable(DateTime64(6, 'UTC'))
heartbeat_at DateTime64(6, 'UTC')
duration_s Float64
exit_code Nullable(Int32)
config String
tags Array(String)
notes String
git_commit String
summary String
group String
job_type String
last_step Nullable(Int64)
reason String
favourite Bool

[step_stats]
project String
run_id String
metric String
step Int64
ranks UInt64
mean Float64
min Float64
max Float64
std Float64
min_rank Int32
max_rank Int32
non_finite UInt64

[streams]
project String
run_id String
stream String
rank Int32
host String
attempt UInt16
stored_offset UInt64
holes Array(Tuple(UInt64, UInt64))
records UInt64
points UInt64
gaps UInt64
opened_at Nullable(DateTime64(6, 'UTC'))
closed_at Nullable(DateTime64(6, 'UTC'))
role String
dead UInt64
last_step Nullable(Int64)
received_at DateTime64(3, 'UTC')
clock_ahead_s Nullable(Float64)
clock_ahead_min_s Nullable(Float64)
clock_ahead_max_s Nullable(Float64)

[dead_letters]
project LowCardinality(String)
run_id String
stream String
offset UInt64
length UInt64
kind LowCardinality(String)
reason String
bytes String
rank Int32
host LowCardinality(String)
attempt UInt16
received_at DateTime64(3, 'UTC')
"""


def promised() -> dict[str, list[tuple[str, str]]]:
    """View to its columns and their types."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in INTERFACE.split("\n"):
        if line.startswith("["):
            columns = found.setdefault(line.strip("[]"), [])
        elif line:
            name, _, kind = line.partition(" ")
            columns.append((name, kind))
    return found


@pytest.mark.parametrize("view", promised())
def test_columns_are_as_promised(client: Client, view: str) -> None:
    rows = client.query(
        "SELECT name, type FROM system.columns WHERE database = 'runtide' AND table = {view:String} ORDER BY position",
        parameters={"view": view},
    ).result_rows
    assert [tuple(row) for row in rows] == promised()[view]


@pytest.mark.parametrize("view", promised())
def test_every_view_can_be_read_and_gives_what_it_says(client: Client, view: str) -> None:
    found = client.query(f"SELECT * FROM runtide.{view} LIMIT 0")
    assert list(found.column_names) == [name for name, _ in promised()[view]]
    assert client.query(f"SELECT count() FROM runtide.{view}").result_rows == [(0,)]


SHAPES = [
    "SELECT upper(run_id) AS x, length(run_id) AS y, project FROM {view} ORDER BY x",
    "SELECT upper(run_id) AS x, length(run_id) AS y FROM {view} WHERE run_id = 'x' ORDER BY y DESC, x LIMIT 5",
    "SELECT run_id, count() AS n FROM {view} WHERE run_id IN (SELECT run_id FROM runs) GROUP BY run_id ORDER BY n",
    "SELECT * FROM {view} WHERE run_id IN (SELECT run_id FROM runs WHERE state = 'running') ORDER BY project LIMIT 9",
    "SELECT v.run_id, r.name FROM {view} AS v INNER JOIN runs AS r USING (project, run_id) ORDER BY r.name, v.run_id",
    "SELECT v.run_id FROM {view} AS v LEFT JOIN runs AS r ON r.run_id = v.run_id WHERE r.state = 'x' OR r.name = 'a'",
    "WITH w AS (SELECT DISTINCT run_id FROM {view}) SELECT upper(run_id) AS x, lower(run_id) AS y FROM w ORDER BY x, y",
    "SELECT run_id, row_number() OVER (PARTITION BY project ORDER BY run_id) AS n FROM {view} ORDER BY n LIMIT 3",
    "SELECT run_id FROM {view} UNION ALL SELECT run_id FROM runs ORDER BY run_id",
]


OF_RUNS = [view for view, columns in promised().items() if ("run_id", "String") in columns]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("view", OF_RUNS)
def test_the_planner_copes_with_usual_questions(client: Client, view: str, shape: str) -> None:
    assert client.query(shape.format(view=view)).result_rows == []


def test_every_view_is_promised(client: Client) -> None:
    rows = client.query("SELECT name FROM system.tables WHERE database = 'runtide' AND engine = 'View'").result_rows
    assert {row[0] for row in rows} == set(promised()) - {"dead_letters"}


def test_every_table_and_every_public_column_has_a_comment(client: Client) -> None:
    tables = client.query("SELECT name FROM system.tables WHERE database = 'runtide' AND comment = ''").result_rows
    assert tables == []
    columns = client.query(
        "SELECT table, name FROM system.columns "
        "WHERE database = 'runtide' AND comment = '' AND table IN {views:Array(String)}",
        parameters={"views": list(promised())},
    ).result_rows
    assert columns == []


def test_the_summary_says_what_counts_of_a_step_that_was_logged_again(client: Client) -> None:
    rows = client.query(
        "SELECT name FROM system.columns WHERE database = 'runtide' AND table = 'metric_summary'"
        " AND comment LIKE '%logged more than once%' ORDER BY position"
    ).result_rows
    assert [row[0] for row in rows] == ["last", "min", "max", "mean", "count", "non_finite"]


def test_raw_tables_keep_their_names(client: Client) -> None:
    rows = client.query("SELECT name FROM system.tables WHERE database = 'runtide'").result_rows
    assert {"points", "samples", "log_lines", "figures", "events", "ledger", "dead_letters"} <= {row[0] for row in rows}
