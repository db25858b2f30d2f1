-- Raw rows: what was said, once by (stream, offset). `length` is the record's length in the stream and `of` the number of
-- rows that it makes in its table, so that what is stored can be laid end to end and compared with what was declared.

CREATE TABLE IF NOT EXISTS runtide.points
(
    project     LowCardinality(String) COMMENT 'Tenant, from the token',
    run_id      LowCardinality(String) COMMENT 'The run, unique within its project',
    metric      LowCardinality(String) COMMENT 'Metric name; the part before / is its section',
    step        Int64                  COMMENT 'The job''s own counter' CODEC(Delta, ZSTD(1)),
    rank        Int32                  COMMENT 'Rank of the process' CODEC(Delta, ZSTD(1)),
    value       Float64                COMMENT 'As logged; NaN and Inf too' CODEC(ZSTD(1)),
    time        DateTime64(6, 'UTC')   COMMENT 'Clock of the process' CODEC(Delta, ZSTD(1)),
    attempt     UInt16                 COMMENT 'Start of the run, from 1' CODEC(ZSTD(1)),
    stream      LowCardinality(String) COMMENT 'One process''s one opening of the run',
    offset      UInt64                 COMMENT 'Of the record''s first byte in its stream' CODEC(Delta, ZSTD(1)),
    length      UInt32                 COMMENT 'Bytes of the record' CODEC(ZSTD(1)),
    of          UInt16                 COMMENT 'Points in the record' CODEC(ZSTD(1)),
    received_at DateTime64(3, 'UTC')   COMMENT 'Clock of the gateway' CODEC(Delta, ZSTD(1)),
    days        UInt16                 COMMENT 'Retention; 0 keeps for ever' CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (project, run_id, metric, step, rank, stream, offset)
TTL toDate(received_at) + toIntervalDay(days) DELETE WHERE days > 0
COMMENT 'Metric values as logged, every attempt, no row hidden. Prefer the view metrics';

CREATE TABLE IF NOT EXISTS runtide.samples
(
    project     LowCardinality(String),
    run_id      LowCardinality(String),
    host        LowCardinality(String) COMMENT 'Where it was measured',
    device      LowCardinality(String) COMMENT 'Empty for the host, gpu0, disk, net, process',
    name        LowCardinality(String) COMMENT 'What was measured, with its unit',
    rank        Int32                  COMMENT 'Rank of the process; -1 for host and devices',
    time        DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    value       Float64 CODEC(ZSTD(1)),
    attempt     UInt16 CODEC(ZSTD(1)),
    stream      LowCardinality(String),
    offset      UInt64 CODEC(Delta, ZSTD(1)),
    length      UInt32 CODEC(ZSTD(1)),
    of          UInt16 CODEC(ZSTD(1)),
    received_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    days        UInt16 CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (project, run_id, host, device, name, rank, time, stream, offset)
TTL toDate(received_at) + toIntervalDay(days) DELETE WHERE days > 0
COMMENT 'Resource readings as sampled. Prefer the view resources';

CREATE TABLE IF NOT EXISTS runtide.log_lines
(
    project     LowCardinality(String),
    run_id      LowCardinality(String),
    rank        Int32,
    time        DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    console     LowCardinality(String) COMMENT 'stdout or stderr',
    line        String CODEC(ZSTD(3)),
    attempt     UInt16 CODEC(ZSTD(1)),
    stream      LowCardinality(String),
    offset      UInt64 CODEC(Delta, ZSTD(1)),
    length      UInt32 CODEC(ZSTD(1)),
    of          UInt16 CODEC(ZSTD(1)),
    received_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    days        UInt16 CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (project, run_id, time, stream, offset)
TTL toDate(received_at) + toIntervalDay(days) DELETE WHERE days > 0
COMMENT 'Captured console lines. Prefer the view logs';

CREATE TABLE IF NOT EXISTS runtide.figures
(
    project      LowCardinality(String),
    run_id       LowCardinality(String),
    name         LowCardinality(String),
    kind         LowCardinality(String) COMMENT 'confusion_matrix, roc, precision_recall, histogram, table, image',
    step         Int64,
    rank         Int32,
    time         DateTime64(6, 'UTC'),
    json         String CODEC(ZSTD(3)),
    content      String CODEC(ZSTD(3)),
    content_type LowCardinality(String),
    attempt      UInt16,
    stream       LowCardinality(String),
    offset       UInt64,
    length       UInt32,
    of           UInt16,
    received_at  DateTime64(3, 'UTC'),
    days         UInt16
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (project, run_id, name, step, rank, stream, offset)
TTL toDate(received_at) + toIntervalDay(days) DELETE WHERE days > 0
COMMENT 'Confusion matrices, curves, histograms, tables and images';

CREATE TABLE IF NOT EXISTS runtide.events
(
    project     LowCardinality(String),
    run_id      LowCardinality(String),
    kind        LowCardinality(String) COMMENT 'Field of Record.said: stream_opened, config_set, mark, heartbeat, gap ...',
    time        DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    rank        Int32,
    host        LowCardinality(String),
    json        String CODEC(ZSTD(3)) COMMENT 'The record''s fields by their names in records.proto',
    attempt     UInt16,
    stream      LowCardinality(String),
    offset      UInt64 CODEC(Delta, ZSTD(1)),
    length      UInt64 CODEC(ZSTD(1)),
    of          UInt16,
    received_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    days        UInt16
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(received_at)
ORDER BY (project, run_id, kind, time, stream, offset)
TTL toDate(received_at) + toIntervalDay(days) DELETE WHERE days > 0
COMMENT 'Everything said that has no table of its own';

CREATE TABLE IF NOT EXISTS runtide.ledger
(
    project      LowCardinality(String),
    run_id       String,
    stream       String,
    role         LowCardinality(String) COMMENT 'rank, child or agent',
    rank         Int32,
    host         LowCardinality(String),
    attempt      UInt16,
    mark         UInt64                         COMMENT 'Everything below is stored, but for the holes',
    holes        Array(Tuple(UInt64, UInt64))   COMMENT 'Ranges [from, to) below the mark that have not come',
    records      UInt64                         COMMENT 'Stored, dead letters and gaps not counted',
    points       UInt64                         COMMENT 'Stored',
    gaps         UInt64                         COMMENT 'Declared losses',
    dead         UInt64                         COMMENT 'Dead letters',
    opened_at    Nullable(DateTime64(6, 'UTC')),
    closed_at    Nullable(DateTime64(6, 'UTC')) COMMENT 'Its own last word, or the agent''s finding that its process ended',
    last_step    Nullable(Int64)                COMMENT 'Of the last Step record',
    last_step_at Nullable(DateTime64(6, 'UTC')),
    received_at  DateTime64(3, 'UTC')           COMMENT 'Last range that came',
    revision     UInt64                         COMMENT 'Grows with every write of this row'
)
ENGINE = ReplacingMergeTree(revision)
ORDER BY (project, run_id, stream)
COMMENT 'What is stored of each stream: the sink''s memory. Prefer the view streams';

CREATE TABLE IF NOT EXISTS runtide.dead_letters
(
    project     LowCardinality(String) COMMENT 'Tenant, from the token',
    run_id      String                 COMMENT 'The run',
    stream      String                 COMMENT 'The stream that said it',
    offset      UInt64                 COMMENT 'Of the record''s first byte in its stream',
    length      UInt64                 COMMENT 'Bytes of the record',
    kind        LowCardinality(String) COMMENT 'Kind of the record, where it could be told',
    reason      String                 COMMENT 'Why it could not be stored',
    bytes       String                 COMMENT 'The record as it came' CODEC(ZSTD(3)),
    rank        Int32                  COMMENT 'Rank of the process',
    host        LowCardinality(String) COMMENT 'Host of the process',
    attempt     UInt16                 COMMENT 'Start of the run',
    received_at DateTime64(3, 'UTC')   COMMENT 'Clock of the gateway'
)
ENGINE = ReplacingMergeTree
ORDER BY (project, run_id, stream, offset)
COMMENT 'Records that could not be understood; each can be replayed';
