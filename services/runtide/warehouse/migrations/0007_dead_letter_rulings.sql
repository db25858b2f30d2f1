-- Who said what becomes of dead letters, and why, so that it can be asked for.

ALTER TABLE runtide.dead_letter_fates
    ADD COLUMN IF NOT EXISTS why   String COMMENT 'What the one who asked for it gave as the reason',
    ADD COLUMN IF NOT EXISTS token String COMMENT 'Id, role and name of the token that it came with, as the gateway knows it; empty where there were no tokens';

CREATE OR REPLACE VIEW runtide.dead_letter_rulings
(
    project  String               COMMENT 'Tenant, from the token',
    run_id   String               COMMENT 'The run; empty where not even that could be read',
    stream   String               COMMENT 'The stream that said the letter',
    offset   UInt64               COMMENT 'Of the letter''s first byte in its stream',
    revision UInt32               COMMENT 'Counts what became of one letter; the greatest holds',
    fate     String               COMMENT 'taken (being stored), replayed, refused (still a dead letter), discarded',
    at       DateTime64(6, 'UTC') COMMENT 'When the sink carried it out',
    by       String               COMMENT 'Who asked for it, as they said',
    token    String               COMMENT 'Id, role and name of the token that it came with, as the gateway knows it; empty where there were no tokens',
    why      String               COMMENT 'Why, as they said',
    refusal  String               COMMENT 'Why it stays a dead letter, where it was refused again'
)
COMMENT 'What became of dead letters, by whose word and why: a row for each step, nothing is ever taken away'
AS SELECT
    project, run_id, stream, offset, revision, fate, at, by, token, if(why = '' AND fate = 'discarded', reason, why) AS why,
    if(fate = 'refused', reason, '') AS refusal
FROM runtide.dead_letter_fates FINAL;
