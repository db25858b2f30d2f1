-- Derived rows: all of it can be thrown away and made again from raw (`runtide rebuild`). Rows are replaced whole;
-- `version` is the sum of the ledger's marks of the run's streams when the rows were made, so later knowledge wins.

CREATE TABLE IF NOT EXISTS runtide.coverage
(
    project    LowCardinality(String),
    run_id     String,
    stream     String,
    mark       UInt64 COMMENT 'The ledger''s mark up to which derived rows are made',
    hole_bytes UInt64 COMMENT 'Bytes of the ledger''s holes then; fewer now means that late data came',
    revision   UInt64 COMMENT 'Of the ledger row'
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (project, run_id, stream)
COMMENT 'Up to where derived rows cover each stream';

CREATE TABLE IF NOT EXISTS runtide.attempt_rows
(
    project     LowCardinality(String),
    run_id      String,
    attempt     UInt16,
    launch_id   String,
    opened_at   DateTime64(6, 'UTC'),
    resume_step Nullable(Int64),
    world_size  UInt32,
    version     UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (project, run_id, attempt)
COMMENT 'Starts of each run. Prefer the view attempts';

-- The least bound counts, whoever writes it and in whatever order: a later attempt can only hide more.
CREATE TABLE IF NOT EXISTS runtide.attempt_bounds
(
    project     LowCardinality(String),
    run_id      LowCardinality(String),
    metric      LowCardinality(String),
    attempt     UInt16,
    hidden_from SimpleAggregateFunction(min, Int64) COMMENT 'Points of this attempt and metric from this step on are superseded by a later attempt'
)
ENGINE = AggregatingMergeTree
ORDER BY (project, run_id, metric, attempt)
COMMENT 'Which points of earlier attempts are hidden; runs with one attempt have no rows';

CREATE TABLE IF NOT EXISTS runtide.series_tiers
(
    project    LowCardinality(String),
    run_id     LowCardinality(String),
    metric     LowCardinality(String),
    width      UInt32  COMMENT 'Steps of a bucket: 64, 4096 or 262144',
    rank       Int32,
    bucket     Int64   COMMENT 'floor(step / width)' CODEC(Delta, ZSTD(1)),
    count      UInt64  COMMENT 'Steps with a finite value; repeated steps count once, the later value' CODEC(ZSTD(1)),
    non_finite UInt64  COMMENT 'Steps with NaN or Inf' CODEC(ZSTD(1)),
    sum        Float64 COMMENT 'Of finite values' CODEC(ZSTD(1)),
    min        Float64 CODEC(ZSTD(1)),
    min_step   Int64 CODEC(ZSTD(1)),
    max        Float64 CODEC(ZSTD(1)),
    max_step   Int64 CODEC(ZSTD(1)),
    last       Float64 COMMENT 'Value at last_step, finite or not' CODEC(ZSTD(1)),
    last_step  Int64 CODEC(ZSTD(1)),
    last_time  DateTime64(6, 'UTC') CODEC(ZSTD(1)),
    version    UInt64 CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (project, run_id, metric, width, rank, bucket)
COMMENT 'Long series in buckets that keep minimum and maximum. count + non_finite = 0 means none any more';

CREATE TABLE IF NOT EXISTS runtide.metric_summary_rows
(
    project    LowCardinality(String),
    run_id     LowCardinality(String),
    metric     LowCardinality(String),
    rank       Int32,
    count      UInt64,
    non_finite UInt64,
    sum        Float64,
    min        Float64,
    min_step   Int64,
    max        Float64,
    max_step   Int64,
    last       Float64,
    last_step  Int64,
    last_time  DateTime64(6, 'UTC'),
    version    UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (project, run_id, metric, rank)
COMMENT 'Summary of each series. Prefer the view metric_summary';

CREATE TABLE IF NOT EXISTS runtide.step_stats_shards
(
    project    LowCardinality(String),
    run_id     LowCardinality(String),
    metric     LowCardinality(String),
    step       Int64,
    shard      Int32   COMMENT 'floor(rank / 64)',
    ranks      UInt32  COMMENT 'Ranks with a finite value at this step',
    non_finite UInt32,
    mean       Float64 COMMENT '0 where no rank has a finite value',
    m2         Float64 COMMENT 'Sum of squared distances from the mean',
    min        Float64,
    min_rank   Int32,
    max        Float64,
    max_rank   Int32,
    version    UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (project, run_id, metric, step, shard)
COMMENT 'Mergeable moments over ranks. Prefer the view step_stats';

CREATE TABLE IF NOT EXISTS runtide.sample_windows
(
    project LowCardinality(String),
    run_id  LowCardinality(String),
    host    LowCardinality(String),
    device  LowCardinality(String),
    name    LowCardinality(String),
    rank    Int32,
    time    DateTime('UTC') COMMENT 'Start of the minute',
    count   UInt32,
    min     Float64,
    max     Float64,
    sum     Float64,
    last    Float64,
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (project, run_id, host, device, name, rank, time)
COMMENT 'Resource readings by the minute';

CREATE TABLE IF NOT EXISTS runtide.run_rows
(
    project      LowCardinality(String),
    run_id       String,
    experiment   String,
    name         String,
    group        String,
    job_type     String,
    state        LowCardinality(String),
    reason       String COMMENT 'Why the state is what it is',
    user         String,
    host         String,
    world_size   UInt32,
    attempt      UInt16,
    started_at   DateTime64(6, 'UTC'),
    finished_at  Nullable(DateTime64(6, 'UTC')),
    heartbeat_at DateTime64(6, 'UTC'),
    exit_code    Nullable(Int32),
    config       String CODEC(ZSTD(3)),
    tags         Array(String),
    notes        String,
    git_commit   String,
    summary      String CODEC(ZSTD(3)),
    last_step    Nullable(Int64),
    version      UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (project, run_id)
COMMENT 'One row for each run. Prefer the view runs';
