-- The public interface for SQL. Names, types and meanings are a promise; columns may be added at the end.

CREATE OR REPLACE VIEW runtide.runs
(
    project      String                        COMMENT 'Tenant, from the token',
    run_id       String                        COMMENT 'The run, unique within its project',
    experiment   String                        COMMENT 'Named group of runs',
    name         String                        COMMENT 'Name for people',
    state        String                        COMMENT 'running, degraded, stalled, preempted, crashed, failed or finished',
    user         String                        COMMENT 'Who started it',
    host         String                        COMMENT 'Host of the first process',
    world_size   UInt32                        COMMENT 'Processes of the job',
    attempt      UInt16                        COMMENT 'Starts so far',
    started_at   DateTime64(6, 'UTC')          COMMENT 'First start',
    finished_at  Nullable(DateTime64(6, 'UTC')) COMMENT 'End, where the state is an ended one',
    heartbeat_at DateTime64(6, 'UTC')          COMMENT 'Last sign of life',
    duration_s   Float64                       COMMENT 'Seconds from start to end, or to the last sign of life',
    exit_code    Nullable(Int32)               COMMENT 'Exit code, where it is known',
    config       String                        COMMENT 'Configuration as a JSON object, keys joined by a dot',
    tags         Array(String)                 COMMENT 'Tags',
    notes        String                        COMMENT 'Notes',
    git_commit   String                        COMMENT 'Commit that the code was on',
    summary      String                        COMMENT 'Last value of each metric and what run.summary holds, as a JSON object',
    group        String                        COMMENT 'Group within the experiment',
    job_type     String                        COMMENT 'Kind of job: train, eval ...',
    last_step    Nullable(Int64)               COMMENT 'Highest step logged',
    reason       String                        COMMENT 'Why the state is what it is'
)
COMMENT 'One row for each run'
AS SELECT
    project, run_id, experiment, name, state, user, host, world_size, attempt, started_at, finished_at, heartbeat_at,
    dateDiff('millisecond', started_at, coalesce(finished_at, heartbeat_at)) / 1000 AS duration_s,
    exit_code, config, tags, notes, git_commit, summary, group, job_type, last_step, reason
FROM runtide.run_rows FINAL;

CREATE OR REPLACE VIEW runtide.metrics
(
    project String               COMMENT 'Tenant, from the token',
    run_id  String               COMMENT 'The run',
    metric  String               COMMENT 'Metric name',
    rank    Int32                COMMENT 'Rank of the process',
    step    Int64                COMMENT 'The job''s own counter',
    time    DateTime64(6, 'UTC') COMMENT 'Clock of the process',
    value   Float64              COMMENT 'As logged; NaN and Inf too',
    attempt UInt16               COMMENT 'Start of the run that logged it'
)
COMMENT 'Every metric value, without those that a later attempt supersedes'
-- A union rather than one join: so a filter on any column reaches the primary key of points.
AS SELECT project, run_id, metric, rank, step, time, value, attempt
FROM runtide.points FINAL
WHERE (project, run_id, metric, attempt) NOT IN (SELECT project, run_id, metric, attempt FROM runtide.attempt_bounds)
UNION ALL
SELECT
    p.project AS project, p.run_id AS run_id, p.metric AS metric, p.rank AS rank, p.step AS step, p.time AS time,
    p.value AS value, p.attempt AS attempt
FROM
(
    SELECT * FROM runtide.points FINAL
    WHERE (project, run_id, metric) IN (SELECT project, run_id, metric FROM runtide.attempt_bounds)
) AS p
INNER JOIN (SELECT * FROM runtide.attempt_bounds FINAL) AS b
    ON b.project = p.project AND b.run_id = p.run_id AND b.metric = p.metric AND b.attempt = p.attempt
WHERE p.step < b.hidden_from;

CREATE OR REPLACE VIEW runtide.metric_summary
(
    project    String  COMMENT 'Tenant, from the token',
    run_id     String  COMMENT 'The run',
    metric     String  COMMENT 'Metric name',
    rank       Int32   COMMENT 'Rank of the process; -1 for all ranks together',
    last       Float64 COMMENT 'Value at the last step; for rank -1 the mean over the ranks that have that step',
    last_step  Int64   COMMENT 'Highest step',
    min        Float64 COMMENT 'Least finite value',
    min_step   Int64   COMMENT 'First step with it',
    max        Float64 COMMENT 'Greatest finite value',
    max_step   Int64   COMMENT 'First step with it',
    mean       Float64 COMMENT 'Mean of the finite values',
    count      UInt64  COMMENT 'Steps with a finite value',
    non_finite UInt64  COMMENT 'Steps with NaN or Inf'
)
COMMENT 'Last, minimum, maximum and mean of each metric; of a repeated step the later value counts'
AS SELECT
    project, run_id, metric, rank, last, last_step, min, min_step, max, max_step,
    if(count = 0, nan, sum / count) AS mean, count, non_finite
FROM runtide.metric_summary_rows FINAL
WHERE count + non_finite > 0
UNION ALL
SELECT
    project, run_id, metric, toInt32(-1) AS rank,
    arrayAvg(x -> x.2, arrayFilter(x -> x.1 = top, groupArray((ls, l)))) AS last, max(ls) AS top,
    if(sum(c) = 0, nan, minIf(mn, c > 0)) AS min, argMinIf(ms, (mn, ms), c > 0) AS min_step,
    if(sum(c) = 0, nan, maxIf(mx, c > 0)) AS max, argMaxIf(xs, (mx, bitNot(xs)), c > 0) AS max_step,
    if(sum(c) = 0, nan, sum(s) / sum(c)) AS mean, sum(c) AS count, sum(n) AS non_finite
FROM
(
    SELECT
        project, run_id, metric, last AS l, last_step AS ls, min AS mn, min_step AS ms, max AS mx, max_step AS xs,
        sum AS s, count AS c, non_finite AS n
    FROM runtide.metric_summary_rows FINAL
    WHERE count + non_finite > 0
)
GROUP BY project, run_id, metric;

CREATE OR REPLACE VIEW runtide.step_stats
(
    project    String  COMMENT 'Tenant, from the token',
    run_id     String  COMMENT 'The run',
    metric     String  COMMENT 'Metric name',
    step       Int64   COMMENT 'Step',
    ranks      UInt64  COMMENT 'Ranks with a finite value at this step',
    mean       Float64 COMMENT 'Mean over ranks',
    min        Float64 COMMENT 'Least over ranks',
    max        Float64 COMMENT 'Greatest over ranks',
    std        Float64 COMMENT 'Population standard deviation over ranks',
    min_rank   Int32   COMMENT 'Lowest rank with the least value',
    max_rank   Int32   COMMENT 'Lowest rank with the greatest value',
    non_finite UInt64  COMMENT 'Ranks with NaN or Inf'
)
COMMENT 'Statistics over ranks at each step'
-- Moments of shards are merged by Chan, Golub and LeVeque (1983), which keeps the deviation exact where the mean is large.
AS SELECT
    project, run_id, metric, step, n AS ranks, mu AS mean, lo AS min, hi AS max,
    if(n = 0, nan, sqrt(greatest(0, (within + between) / n))) AS std, lo_rank AS min_rank, hi_rank AS max_rank,
    bad AS non_finite
FROM
(
    SELECT
        project, run_id, metric, step,
        sum(ranks) AS n, sum(non_finite) AS bad, if(n = 0, nan, sum(ranks * mean) / n) AS mu, sum(m2) AS within,
        arraySum((k, m) -> k * pow(m - mu, 2), groupArray(ranks), groupArray(mean)) AS between,
        if(n = 0, nan, minIf(min, ranks > 0)) AS lo, argMinIf(min_rank, (min, min_rank), ranks > 0) AS lo_rank,
        if(n = 0, nan, maxIf(max, ranks > 0)) AS hi, argMaxIf(max_rank, (max, -max_rank), ranks > 0) AS hi_rank
    FROM runtide.step_stats_shards FINAL
    WHERE ranks + non_finite > 0
    GROUP BY project, run_id, metric, step
);

CREATE OR REPLACE VIEW runtide.resources
(
    project String               COMMENT 'Tenant, from the token',
    run_id  String               COMMENT 'The run',
    host    String               COMMENT 'Where it was measured',
    device  String               COMMENT 'Empty for the host itself, gpu0, disk, net, process',
    name    String               COMMENT 'What was measured, with its unit',
    time    DateTime64(6, 'UTC') COMMENT 'Instant on the sampling grid',
    value   Float64              COMMENT 'Reading',
    rank    Int32                COMMENT 'Rank of the process; -1 for host and devices'
)
COMMENT 'Resource readings of hosts, devices and processes'
AS SELECT project, run_id, host, device, name, time, value, rank FROM runtide.samples FINAL;

CREATE OR REPLACE VIEW runtide.logs
(
    project String               COMMENT 'Tenant, from the token',
    run_id  String               COMMENT 'The run',
    rank    Int32                COMMENT 'Rank of the process',
    time    DateTime64(6, 'UTC') COMMENT 'Clock of the process',
    stream  String               COMMENT 'stdout or stderr',
    line    String               COMMENT 'One line',
    attempt UInt16               COMMENT 'Start of the run'
)
COMMENT 'Captured console lines'
AS SELECT project, run_id, rank, time, console AS stream, line, attempt FROM runtide.log_lines FINAL;

CREATE OR REPLACE VIEW runtide.streams
(
    project       String                         COMMENT 'Tenant, from the token',
    run_id        String                         COMMENT 'The run',
    stream        String                         COMMENT 'One process''s one opening of the run',
    rank          Int32                          COMMENT 'Rank of the process',
    host          String                         COMMENT 'Host of the process',
    attempt       UInt16                         COMMENT 'Start of the run',
    stored_offset UInt64                         COMMENT 'Everything below is stored, but for the holes',
    holes         Array(Tuple(UInt64, UInt64))   COMMENT 'Ranges [from, to) that have not come',
    records       UInt64                         COMMENT 'Records stored',
    points        UInt64                         COMMENT 'Points stored',
    gaps          UInt64                         COMMENT 'Declared losses',
    opened_at     Nullable(DateTime64(6, 'UTC')) COMMENT 'First record',
    closed_at     Nullable(DateTime64(6, 'UTC')) COMMENT 'End, where it is known',
    role          String                         COMMENT 'rank, child or agent',
    dead          UInt64                         COMMENT 'Dead letters',
    last_step     Nullable(Int64)                COMMENT 'Step of the last log()',
    received_at   DateTime64(3, 'UTC')           COMMENT 'When the gateway last heard of it'
)
COMMENT 'What is stored of each stream'
AS SELECT
    project, run_id, stream, rank, host, attempt, mark AS stored_offset, holes, records, points, gaps, opened_at,
    closed_at, role, dead, last_step, received_at
FROM runtide.ledger FINAL;

CREATE OR REPLACE VIEW runtide.attempts
(
    project     String               COMMENT 'Tenant, from the token',
    run_id      String               COMMENT 'The run',
    attempt     UInt16               COMMENT 'From 1',
    launch_id   String               COMMENT 'The same for all processes of one start',
    opened_at   DateTime64(6, 'UTC') COMMENT 'First record of its first process',
    resume_step Nullable(Int64)      COMMENT 'Last step of earlier attempts that stays visible, where it was given',
    world_size  UInt32               COMMENT 'Processes of the job'
)
COMMENT 'Starts of each run'
AS SELECT project, run_id, attempt, launch_id, opened_at, resume_step, world_size FROM runtide.attempt_rows FINAL;
