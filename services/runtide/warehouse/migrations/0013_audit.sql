-- The audit trail: what people and programs changed afterwards, chained by hashes, one chain for each project; and what
-- is so because of it. No retention: the rows stay, of deleted runs too.

CREATE TABLE IF NOT EXISTS runtide.audit_rows
(
    project  LowCardinality(String) COMMENT 'Tenant, from the token',
    seq      UInt64                 COMMENT 'Place in the chain of the project, from 1, without holes' CODEC(Delta, ZSTD(1)),
    time     DateTime64(6, 'UTC')   COMMENT 'When the gateway took it, by its clock' CODEC(Delta, ZSTD(1)),
    actor    String                 COMMENT 'Id, role and name of the token; local: and a claim where there were no tokens',
    subject  String                 COMMENT 'run:ID, experiment:NAME, model:NAME@VERSION ...',
    kind     LowCardinality(String) COMMENT 'tag_add, notes, delete ...',
    reason   String                 COMMENT 'Why, as they said',
    before   String                 COMMENT 'What was there, as JSON',
    after    String                 COMMENT 'What they said, as JSON',
    stream   String                 COMMENT 'The command that said it',
    offset   UInt64                 COMMENT 'Place in the command',
    previous String                 COMMENT 'Hash of the row before it; 64 zeros of the first',
    hash     String                 COMMENT 'SHA-256, in hex, of the previous hash and of the other columns as JSON',
    INDEX subjects subject TYPE bloom_filter GRANULARITY 1
)
ENGINE = MergeTree
ORDER BY (project, seq)
COMMENT 'The audit trail as it is chained. Prefer the view audit';

CREATE OR REPLACE VIEW runtide.audit
(
    project  String               COMMENT 'Tenant, from the token',
    seq      UInt64               COMMENT 'Place in the chain of the project, from 1, without holes',
    time     DateTime64(6, 'UTC') COMMENT 'When the gateway took it, by its clock',
    actor    String               COMMENT 'Id, role and name of the token; local: and a claim where there were no tokens',
    subject  String               COMMENT 'run:ID, experiment:NAME, config:FINGERPRINT, model:NAME@VERSION, artifact:NAME@VERSION, dataset:NAME@VERSION, view:NAME, project:',
    kind     String               COMMENT 'tag_add, tag_remove, rename, notes, comment, claim, release, favourite, delete, restore ...',
    reason   String               COMMENT 'Why, as they said',
    before   String               COMMENT 'What was there, as JSON: what the chain knows, else what they saw; null for nothing. Of tags the set',
    after    String               COMMENT 'What they said, as JSON. Of tags those that were added or removed',
    stream   String               COMMENT 'The command that said it',
    offset   UInt64               COMMENT 'Place in the command',
    previous String               COMMENT 'Hash of the row before it; 64 zeros of the first',
    hash     String               COMMENT 'SHA-256, in hex, of the previous hash and of the other columns as JSON'
)
COMMENT 'Every change with who, when, why, before and after; `runtide audit verify` recomputes the chain'
AS SELECT project, seq, time, actor, subject, kind, reason, before, after, stream, offset, previous, hash
FROM runtide.audit_rows;

CREATE OR REPLACE VIEW runtide.run_changes
(
    project String                 COMMENT 'Tenant, from the token',
    run_id  String                 COMMENT 'The run',
    name    Nullable(String)       COMMENT 'The name that it was given; NULL where it keeps its own',
    notes   Nullable(String)       COMMENT 'The notes that it was given; NULL where it keeps its own',
    added   Array(String)          COMMENT 'Tags that were added, and not removed since',
    removed Array(String)          COMMENT 'Tags that were removed, and not added since',
    favourite Bool                COMMENT 'Marked as a favourite',
    deleted Bool                   COMMENT 'Hidden: the view deleted_runs has it',
    changed_seq UInt64             COMMENT 'Place of the last of its changes in the audit trail'
)
COMMENT 'What was changed of runs afterwards, as it is now'
AS SELECT
    project, substring(subject, 5) AS run_id,
    if(countIf(what = 'rename') = 0, NULL, JSONExtractString(anyIf(last.3, what = 'rename'))) AS name,
    if(countIf(what = 'notes') = 0, NULL, JSONExtractString(anyIf(last.3, what = 'notes'))) AS notes,
    arraySort(groupArrayIf(tag, what = 'tags' AND last.2 = 'tag_add')) AS added,
    arraySort(groupArrayIf(tag, what = 'tags' AND last.2 = 'tag_remove')) AS removed,
    anyIf(last.3, what = 'favourite') = 'true' AS favourite,
    anyIf(last.3, what = 'deleted') = 'true' AS deleted,
    max(last.1) AS changed_seq
FROM
(
    SELECT project, subject, what, tag, max((seq, kind, after)) AS last
    FROM
    (
        SELECT
            project, subject, seq, kind, after,
            multiIf(kind IN ('tag_add', 'tag_remove'), 'tags', kind IN ('delete', 'restore'), 'deleted', kind) AS what,
            arrayJoin(if(what = 'tags', JSONExtract(after, 'Array(String)'), [''])) AS tag
        FROM runtide.audit_rows
        WHERE startsWith(subject, 'run:')
            AND kind IN ('rename', 'notes', 'tag_add', 'tag_remove', 'favourite', 'delete', 'restore')
    )
    GROUP BY project, subject, what, tag
)
GROUP BY project, subject;

CREATE OR REPLACE VIEW runtide.runs
(
    project      String                        COMMENT 'Tenant, from the token',
    run_id       String                        COMMENT 'The run, unique within its project',
    experiment   String                        COMMENT 'Named group of runs',
    name         String                        COMMENT 'Name for people; the one that it was given last',
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
    tags         Array(String)                 COMMENT 'Tags: its own and those that were added, without those that were removed',
    notes        String                        COMMENT 'Notes; those that it was given last',
    git_commit   String                        COMMENT 'Commit that the code was on',
    summary      String                        COMMENT 'Last value of each metric and what run.summary holds, as a JSON object',
    group        String                        COMMENT 'Group within the experiment',
    job_type     String                        COMMENT 'Kind of job: train, eval ...',
    last_step    Nullable(Int64)               COMMENT 'Highest step logged',
    reason       String                        COMMENT 'Why the state is what it is',
    favourite    Bool                          COMMENT 'Marked as a favourite'
)
COMMENT 'One row for each run that is not deleted, as it was changed afterwards'
AS SELECT
    r.project AS project, r.run_id AS run_id, experiment, if(isNull(c.name), r.name, assumeNotNull(c.name)) AS name, state,
    user, host, world_size, attempt, started_at, finished_at, heartbeat_at,
    dateDiff('millisecond', started_at, coalesce(finished_at, heartbeat_at)) / 1000 AS duration_s, exit_code, config,
    if(empty(c.added) AND empty(c.removed), r.tags, arrayConcat(arrayFilter(t -> NOT has(c.added, t) AND NOT has(c.removed, t), r.tags), c.added)) AS tags,
    if(isNull(c.notes), r.notes, assumeNotNull(c.notes)) AS notes,
    git_commit, summary, group, job_type, last_step, reason, c.favourite AS favourite
FROM (SELECT * FROM runtide.run_rows FINAL) AS r
LEFT JOIN runtide.run_changes AS c ON r.project = c.project AND r.run_id = c.run_id
WHERE NOT c.deleted;

CREATE OR REPLACE VIEW runtide.deleted_runs
(
    project    String               COMMENT 'Tenant, from the token',
    run_id     String               COMMENT 'The run; `runtide restore` brings it back',
    name       String               COMMENT 'Name that it began with',
    experiment String               COMMENT 'Named group of runs',
    started_at DateTime64(6, 'UTC') COMMENT 'First start',
    deleted_at DateTime64(6, 'UTC') COMMENT 'When it was deleted',
    actor      String               COMMENT 'Who deleted it',
    reason     String               COMMENT 'Why'
)
COMMENT 'Runs that are deleted: hidden from the view runs, their data still there'
AS SELECT d.project AS project, d.run_id AS run_id, r.name AS name, r.experiment AS experiment, r.started_at AS started_at, deleted_at, actor, d.reason AS reason
FROM
(
    SELECT project, substring(subject, 5) AS run_id, last.1 AS deleted_at, last.2 AS actor, last.3 AS reason
    FROM
    (
        SELECT project, subject, argMax((time, actor, reason, kind), seq) AS last
        FROM runtide.audit_rows
        WHERE kind IN ('delete', 'restore') AND startsWith(subject, 'run:')
        GROUP BY project, subject
    )
    WHERE last.4 = 'delete'
) AS d
LEFT JOIN (SELECT * FROM runtide.run_rows FINAL) AS r ON r.project = d.project AND r.run_id = d.run_id;

CREATE OR REPLACE VIEW runtide.comments
(
    project String               COMMENT 'Tenant, from the token',
    subject String               COMMENT 'What it is about, run:ID and so on',
    seq     UInt64               COMMENT 'Place in the audit trail',
    time    DateTime64(6, 'UTC') COMMENT 'When it was said',
    actor   String               COMMENT 'Who said it',
    text    String               COMMENT 'What was said'
)
COMMENT 'Comments, each one as it was said'
AS SELECT project, subject, seq, time, actor, JSONExtractString(after) AS text FROM runtide.audit_rows WHERE kind = 'comment';

CREATE OR REPLACE VIEW runtide.claims
(
    project String               COMMENT 'Tenant, from the token',
    subject String               COMMENT 'What is claimed, config:FINGERPRINT, run:ID and so on',
    actor   String               COMMENT 'Who claims it',
    since   DateTime64(6, 'UTC') COMMENT 'When it was claimed',
    text    String               COMMENT 'What for'
)
COMMENT 'What somebody works on now: claimed and not released'
AS SELECT project, subject, last.1 AS actor, last.2 AS since, JSONExtractString(last.3) AS text
FROM
(
    SELECT project, subject, argMax((actor, time, after, kind), seq) AS last
    FROM runtide.audit_rows
    WHERE kind IN ('claim', 'release')
    GROUP BY project, subject
)
WHERE last.4 = 'claim';

CREATE OR REPLACE VIEW runtide.saved_views
(
    project  String               COMMENT 'Tenant, from the token',
    name     String               COMMENT 'Name of the view',
    actor    String               COMMENT 'Who saved it last',
    saved_at DateTime64(6, 'UTC') COMMENT 'When',
    json     String               COMMENT 'What it shows, as a JSON object'
)
COMMENT 'Views of the pages that were saved and not deleted'
AS SELECT project, substring(subject, 6) AS name, last.1 AS actor, last.2 AS saved_at, last.3 AS json
FROM
(
    SELECT project, subject, argMax((actor, time, after, kind), seq) AS last
    FROM runtide.audit_rows
    WHERE kind IN ('view_save', 'view_delete')
    GROUP BY project, subject
)
WHERE last.4 = 'view_save';
