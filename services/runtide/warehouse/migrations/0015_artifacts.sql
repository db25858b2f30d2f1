-- Files and folders that runs made and used. What was said of them lies in events, and their content with the gateway, by
-- its digest. A version is a content: the same content that is logged again under its name is the same version.

CREATE OR REPLACE VIEW runtide.artifact_words
(
    project  String               COMMENT 'Tenant, from the token',
    run_id   String               COMMENT 'The run',
    name     String               COMMENT 'What the artifact is called',
    used     Bool                 COMMENT 'The run used it; else it made it',
    which    String               COMMENT 'Of one that was used: its version such as v3, or an alias',
    time     DateTime64(6, 'UTC') COMMENT 'Clock of the process',
    kind     String               COMMENT 'model, checkpoint, file ...',
    digest   String               COMMENT 'SHA-256; empty where it was not told',
    size     UInt64               COMMENT 'Bytes of all its files',
    uri      String               COMMENT 'Where it lies, if the gateway does not keep it',
    aliases  Array(String)        COMMENT 'Names that this version shall have from now on',
    step     Nullable(Int64)      COMMENT 'Step that it belongs to',
    metric   String               COMMENT 'What a checkpoint is judged by',
    value    Nullable(Float64)    COMMENT 'The value that it had then',
    goal     String               COMMENT 'min or max: which values are better',
    count    UInt32               COMMENT 'How many files it has',
    metadata String               COMMENT 'What the job said of it, as a JSON object',
    files    Array(Tuple(path String, digest String, size UInt64)) COMMENT 'Its files, unless they are too many',
    content  String               COMMENT 'What tells contents apart: the digest, else the uri; empty of one that is not uploaded yet, or was refused',
    place    Tuple(DateTime64(3, 'UTC'), DateTime64(6, 'UTC'), String, UInt64) COMMENT 'Order in which it arrived'
)
COMMENT 'All that runs said of artifacts, one row for each time'
AS SELECT
    project, run_id, one.name AS name, one.used AS used, JSONExtractString(one.json, 'which') AS which, said_at AS time,
    one.kind AS kind, one.digest AS digest, one.size AS size, one.uri AS uri, facts.aliases AS aliases, facts.step AS step,
    facts.metric AS metric, facts.value AS value, facts.goal AS goal, facts.count AS count,
    if(JSONHas(one.json, 'metadata'), JSONExtractRaw(one.json, 'metadata'), '{}') AS metadata,
    JSONExtract(one.json, 'files', 'Array(Tuple(path String, digest String, size UInt64))') AS files,
    if(one.digest != '', one.digest, one.uri) AS content, (received_at, said_at, stream, offset) AS place
FROM
(
    SELECT
        project, run_id, time AS said_at, received_at, stream, offset,
        JSONExtract(json, 'Tuple(name String, kind String, digest String, size UInt64, uri String, json String, used Bool)') AS one,
        JSONExtract(
            one.json,
            'Tuple(aliases Array(String), step Nullable(Int64), metric String, value Nullable(Float64), goal String, count UInt32)'
        ) AS facts
    FROM runtide.events
    WHERE kind = 'artifact_ref'
);

CREATE OR REPLACE VIEW runtide.artifacts
(
    project  String               COMMENT 'Tenant, from the token',
    name     String               COMMENT 'What it is called',
    version  UInt32               COMMENT 'From 1, in the order in which the contents of this name were stored first',
    aliases  Array(String)        COMMENT 'latest; of checkpoints best and last; and those that were given, which only one version has',
    kind     String               COMMENT 'model, checkpoint, file ...',
    run_id   String               COMMENT 'The run that made it first',
    time     DateTime64(6, 'UTC') COMMENT 'When it was logged first, by the clock of the process',
    digest   String               COMMENT 'SHA-256 of the file, or of the list of files of a folder; empty of one elsewhere that is not known',
    size     UInt64               COMMENT 'Bytes of all its files',
    files    UInt32               COMMENT 'How many there are; the view artifact_files has them',
    uri      String               COMMENT 'Where it lies, if the gateway does not keep it',
    step     Nullable(Int64)      COMMENT 'Step that it belongs to',
    metric   String               COMMENT 'What a checkpoint is judged by',
    value    Nullable(Float64)    COMMENT 'The value that it had then',
    metadata String               COMMENT 'What the job said of it, as a JSON object'
)
COMMENT 'Versions of artifacts'
AS SELECT
    project, name, version,
    arrayConcat(
        if(version = last_version, ['latest'], []),
        if(kind = 'checkpoint' AND version = best_version, ['best'], []),
        if(kind = 'checkpoint' AND version = final_version, ['last'], []),
        given
    ) AS aliases,
    kind, run_id, time, digest, size, files, uri, step, metric, value, metadata
FROM
(
    SELECT
        *, max(version) OVER (PARTITION BY project, name) AS last_version,
        argMax(version, (coalesce(step, 0), version)) OVER (PARTITION BY project, name) AS final_version,
        argMinIf(version, (if(goal = 'max', -1, 1) * coalesce(value, 0), version), value IS NOT NULL)
            OVER (PARTITION BY project, name) AS best_version
    FROM
    (
        SELECT
            project, name, row_number() OVER (PARTITION BY project, name ORDER BY said_first) AS version, given,
            kind, run_id, time, digest, size, files, uri, step, metric, value, goal, if(told = '', '{}', told) AS metadata
        FROM
        (
            SELECT
                project, name, content, min(place) AS said_first, argMin(said.run_id, place) AS run_id,
                argMin(said.time, place) AS time, argMin(said.kind, place) AS kind, any(said.digest) AS digest,
                max(said.size) AS size, argMax(said.uri, place) AS uri, argMax(said.count, place) AS files,
                argMax((said.step,), place).1 AS step, argMax(said.metric, place) AS metric,
                argMax((said.value,), place).1 AS value, argMax(said.goal, place) AS goal,
                argMaxIf(said.metadata, place, said.metadata != '{}') AS told
            FROM runtide.artifact_words AS said
            WHERE NOT said.used AND said.content != ''
            GROUP BY project, name, content
        ) AS versions
        LEFT JOIN
        (
            SELECT project, name, content, arraySort(groupArray(alias)) AS given
            FROM
            (
                SELECT project, name, alias, argMax(said.content, place) AS content
                FROM runtide.artifact_words AS said
                ARRAY JOIN said.aliases AS alias
                WHERE NOT said.used AND said.content != ''
                GROUP BY project, name, alias
            )
            GROUP BY project, name, content
        ) AS named
        USING (project, name, content)
    )
);

CREATE OR REPLACE VIEW runtide.artifact_files
(
    project String COMMENT 'Tenant, from the token',
    name    String COMMENT 'What the artifact is called',
    version UInt32 COMMENT 'Version of the artifact',
    path    String COMMENT 'Of a folder below it, with "/" between its parts; else the name of the file',
    digest  String COMMENT 'SHA-256 of the file',
    size    UInt64 COMMENT 'Bytes of the file',
    run_id  String COMMENT 'The run that made the version first'
)
COMMENT 'Files of artifacts; of a folder of very many files only its manifest has them'
AS SELECT project, name, version, file.1 AS path, file.2 AS digest, file.3 AS size, run_id
FROM runtide.artifacts AS artifact
INNER JOIN
(
    SELECT project, name, digest, argMax(files, place) AS listed
    FROM runtide.artifact_words
    WHERE NOT used
    GROUP BY project, name, digest
) AS words
USING (project, name, digest)
ARRAY JOIN listed AS file
WHERE digest != '';

CREATE OR REPLACE VIEW runtide.artifact_uses
(
    project String               COMMENT 'Tenant, from the token',
    name    String               COMMENT 'What the artifact is called',
    version UInt32               COMMENT 'Version; 0 where the store does not know it',
    run_id  String               COMMENT 'The run',
    used    Bool                 COMMENT 'The run used it; else it made it, be it that another run had made the same',
    time    DateTime64(6, 'UTC') COMMENT 'When it was said first, by the clock of the process',
    which   String               COMMENT 'Of one that was used: what was asked for, a version or an alias',
    digest  String               COMMENT 'SHA-256 of the content'
)
COMMENT 'Lineage: which runs made and which used a version. An alias means what it meant last when the run asked for it; of best, last and given ones it is not known then, and it means what it means now'
AS SELECT
    project, name, if(found.1 = 0, 0, found.1) AS version, run_id, used, first_said AS time, asked AS which, found.2 AS digest
FROM
(
    SELECT
        project, name, run_id, used, first_said, asked,
        arrayFirst(
            one -> multiIf(
                content != '', one.3 = content,
                asked = 'latest', one.5 <= first_said,
                match(asked, '^v?[0-9]+$'), one.1 = toUInt32OrZero(replaceRegexpOne(asked, '^v', '')),
                has(one.4, asked)
            ),
            versions
        ) AS found
    FROM
    (
        SELECT project, name, run_id, used, which AS asked, content, min(time) AS first_said
        FROM runtide.artifact_words
        WHERE used OR content != ''
        GROUP BY project, name, run_id, used, which, content
    ) AS words
    LEFT JOIN
    (
        SELECT
            project, name,
            arrayReverseSort(groupArray((version, digest, if(digest != '', digest, uri), aliases, time))) AS versions
        FROM runtide.artifacts
        GROUP BY project, name
    ) AS all_versions
    USING (project, name)
);
