-- Clocks of hosts may be wrong. By how much is known when something is sent: kept beside what was said, which is left as
-- it was said.

ALTER TABLE runtide.events
    ADD COLUMN IF NOT EXISTS clock_ahead_us Nullable(Int64) COMMENT 'Microseconds that the host''s clock was ahead of the gateway''s when this was sent; less than 0: behind';

ALTER TABLE runtide.ledger
    ADD COLUMN IF NOT EXISTS clock_ahead_us Nullable(Int64) COMMENT 'Microseconds that the host''s clock was ahead of the gateway''s when the last range was sent',
    ADD COLUMN IF NOT EXISTS clock_least_us Nullable(Int64) COMMENT 'The least that it ever was',
    ADD COLUMN IF NOT EXISTS clock_most_us Nullable(Int64) COMMENT 'The most that it ever was',
    ADD COLUMN IF NOT EXISTS stepped_received_at Nullable(DateTime64(3, 'UTC')) COMMENT 'When the last Step record came, by the gateway''s clock';

CREATE OR REPLACE VIEW runtide.streams
(
    project           String                         COMMENT 'Tenant, from the token',
    run_id            String                         COMMENT 'The run',
    stream            String                         COMMENT 'One process''s one opening of the run',
    rank              Int32                          COMMENT 'Rank of the process',
    host              String                         COMMENT 'Host of the process',
    attempt           UInt16                         COMMENT 'Start of the run',
    stored_offset     UInt64                         COMMENT 'Everything below is stored, but for the holes',
    holes             Array(Tuple(UInt64, UInt64))   COMMENT 'Ranges [from, to) that have not come',
    records           UInt64                         COMMENT 'Records stored',
    points            UInt64                         COMMENT 'Points stored',
    gaps              UInt64                         COMMENT 'Declared losses',
    opened_at         Nullable(DateTime64(6, 'UTC')) COMMENT 'First record, by the process''s clock',
    closed_at         Nullable(DateTime64(6, 'UTC')) COMMENT 'End, where it is known, by the host''s clock',
    role              String                         COMMENT 'rank, child or agent',
    dead              UInt64                         COMMENT 'Dead letters',
    last_step         Nullable(Int64)                COMMENT 'Step of the last log()',
    received_at       DateTime64(3, 'UTC')           COMMENT 'When the gateway last heard of it',
    clock_ahead_s     Nullable(Float64)              COMMENT 'Seconds that the host''s clock is ahead of the gateway''s, when it sent last; less than 0: behind; the way there included',
    clock_ahead_min_s Nullable(Float64)              COMMENT 'The least that it ever was',
    clock_ahead_max_s Nullable(Float64)              COMMENT 'The most that it ever was'
)
COMMENT 'What is stored of each stream'
AS SELECT
    project, run_id, stream, rank, host, attempt, mark AS stored_offset, holes, records, points, gaps, opened_at,
    closed_at, role, dead, last_step, received_at, clock_ahead_us / 1e6 AS clock_ahead_s,
    clock_least_us / 1e6 AS clock_ahead_min_s, clock_most_us / 1e6 AS clock_ahead_max_s
FROM runtide.ledger FINAL;
