-- What became of dead letters. The letters themselves stay as they came.

CREATE TABLE IF NOT EXISTS runtide.dead_letter_fates
(
    project  LowCardinality(String) COMMENT 'Tenant, from the token',
    run_id   String                 COMMENT 'The run',
    stream   String                 COMMENT 'The stream that said it',
    offset   UInt64                 COMMENT 'Of the letter''s first byte in its stream',
    revision UInt32                 COMMENT 'Counts the fates of a letter; the greatest is the one that holds',
    fate     LowCardinality(String) COMMENT 'taken (being stored), replayed, refused (still a dead letter), discarded',
    reason   String                 COMMENT 'Why: of the one who discarded it, or of the refusal',
    by       String                 COMMENT 'Who asked for it',
    at       DateTime64(6, 'UTC')   COMMENT 'When the sink decided'
)
ENGINE = ReplacingMergeTree
ORDER BY (project, run_id, stream, offset, revision)
COMMENT 'What became of dead letters: replayed, refused again, discarded. No row: nothing yet';
