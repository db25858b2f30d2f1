-- The ledger outlives the raw rows that it tells of, so it says how long they are kept: what has expired is not missing.

ALTER TABLE runtide.ledger
    ADD COLUMN IF NOT EXISTS days UInt16 COMMENT 'Days that the raw rows are kept; 0 for ever, or not known';

-- A step that is logged again counts once, which the columns did not say.

ALTER TABLE runtide.metric_summary
    COMMENT COLUMN last 'Value at the last step, the later where it was logged more than once; for rank -1 the mean over the ranks that have that step',
    COMMENT COLUMN min 'Least finite value; of a step that was logged more than once the later value counts',
    COMMENT COLUMN max 'Greatest finite value; of a step that was logged more than once the later value counts',
    COMMENT COLUMN mean 'Mean of the finite values; of a step that was logged more than once the later value counts',
    COMMENT COLUMN count 'Steps with a finite value; a step that was logged more than once counts once',
    COMMENT COLUMN non_finite 'Steps with NaN or Inf; of a step that was logged more than once the later value counts';
