-- Which data a run was given, and how the business judged what came out of it, read from events as it was said. Rows that
-- came twice make no difference: they are grouped. Lineage goes both ways over dataset_uses.

CREATE OR REPLACE VIEW runtide.dataset_uses
(
    project String               COMMENT 'Tenant, from the token',
    run_id  String               COMMENT 'The run that used it',
    name    String               COMMENT 'Name of the dataset',
    version String               COMMENT 'As it was told, else the beginning of the digest; empty where neither is known',
    role    String               COMMENT 'train, validation or test',
    digest  String               COMMENT 'SHA-256 of its content, in hex; of what was not read that of address and version, or empty',
    rows    Nullable(UInt64)     COMMENT 'Rows; NULL where they were not counted, as those of files',
    size    UInt64               COMMENT 'Bytes: of files as they lie on the disk, else in memory',
    uri     String               COMMENT 'Path or address; empty for data in memory',
    schema  String               COMMENT 'JSON object: column to its type, as the library names it',
    time    DateTime64(6, 'UTC') COMMENT 'When the run first said that it uses it',
    kind    String               COMMENT 'file, folder, array, pandas, polars, arrow, huggingface, values, reference',
    note    String               COMMENT 'How the digest was made, where it is not of the content',
    attempt UInt16               COMMENT 'Start of the run that first said it'
)
COMMENT 'Datasets that runs used: once for each run, dataset, version and role'
AS SELECT
    project, run_id, one.name AS name, one.version AS version, one.role AS role, one.digest AS digest,
    if(first.3.rows_known, first.3.row_count, NULL) AS rows, first.3.size AS size, first.3.uri AS uri,
    first.3.schema AS schema, first.1 AS time, first.3.kind AS kind, first.3.note AS note, first.2 AS attempt
FROM
(
    SELECT
        project, run_id, one,
        argMin((time, attempt, more), (attempt, time, stream, offset))
            ::Tuple(DateTime64(6, 'UTC'), UInt16, Tuple(row_count UInt64, size UInt64, uri String, rows_known Bool, schema String, kind String, note String)) AS first
    FROM
    (
        SELECT
            project, run_id, time, attempt, stream, offset,
            JSONExtract(json, 'Tuple(name String, version String, role String, digest String)') AS one,
            JSONExtractString(json, 'json') AS said,
            (
                JSONExtractUInt(json, 'rows'), JSONExtractUInt(json, 'size'), JSONExtractString(json, 'uri'),
                JSONExtractBool(said, 'rows_known'), JSONExtractRaw(said, 'schema'), JSONExtractString(said, 'kind'),
                JSONExtractString(said, 'note')
            ) AS more,
            if(one.digest = '', more.3, '') AS place
        FROM runtide.events
        WHERE kind = 'dataset_use'
    )
    GROUP BY project, run_id, one, place
);

CREATE OR REPLACE VIEW runtide.datasets
(
    project    String               COMMENT 'Tenant, from the token',
    name       String               COMMENT 'Name of the dataset',
    version    String               COMMENT 'Version',
    digest     String               COMMENT 'SHA-256, in hex; of several under one version the one last used',
    digests    UInt64               COMMENT 'Different contents under this version: more than 1 says that it is no version',
    rows       Nullable(UInt64)     COMMENT 'Rows, where they were counted',
    size       UInt64               COMMENT 'Bytes',
    uri        String               COMMENT 'Where it was last read; empty for data in memory',
    first_used DateTime64(6, 'UTC') COMMENT 'By the first run',
    last_used  DateTime64(6, 'UTC') COMMENT 'By the last run',
    runs       UInt64               COMMENT 'Runs that used it',
    roles      Array(String)        COMMENT 'train, validation, test'
)
COMMENT 'One row for each version of a dataset'
AS SELECT
    project, name, version, argMax(dataset_uses.digest, at) AS digest, uniqExact(dataset_uses.digest) AS digests,
    argMax(tuple(dataset_uses.rows), at).1 AS rows, argMax(dataset_uses.size, at) AS size, argMax(dataset_uses.uri, at) AS uri,
    min(time) AS first_used, max(time) AS last_used, uniqExact(run_id) AS runs, arraySort(groupUniqArray(role)) AS roles
FROM (SELECT *, (time, run_id) AS at FROM runtide.dataset_uses) AS dataset_uses
GROUP BY project, name, version;

-- As in 0008, but for a dataset without a digest: then it is not known whether the data were the same.
CREATE OR REPLACE VIEW runtide.fingerprints
(
    project     String COMMENT 'Tenant, from the token',
    run_id      String COMMENT 'The run',
    attempt     UInt16 COMMENT 'Start of the run',
    code        String COMMENT 'Of commit, uncommitted changes, entry and untracked Python files; empty where none is known',
    config      String COMMENT 'Of the configuration, as it was at the end; empty where there is none',
    data        String COMMENT 'Of roles and digests of the datasets; empty where there is none, or one has no digest',
    environment String COMMENT 'Of interpreter, packages and device models'
)
COMMENT 'SHA-256 in hex of what has to be equal for two runs to be the same'
AS SELECT
    project, run_id, attempt,
    argMaxIf(one.code, (time, offset), one.code != '') AS code,
    argMaxIf(one.config, (time, offset), one.config != '') AS config,
    multiIf(
        countIf(one.data != '') > 0, argMaxIf(one.data, (time, offset), one.data != ''),
        countIf(kind = 'dataset_use') = 0 OR countIf(kind = 'dataset_use' AND one.digest = '') > 0, '',
        lower(hex(SHA256(arrayStringConcat(arraySort(
            groupUniqArrayIf(concat(one.role, ' ', one.digest), kind = 'dataset_use')
        ), '\n'))))
    ) AS data,
    argMaxIf(one.environment, (time, offset), one.environment != '') AS environment
FROM
(
    SELECT
        project, run_id, attempt, time, offset, kind,
        JSONExtract(json, 'Tuple(code String, config String, data String, environment String, role String, digest String)') AS one
    FROM runtide.events
    WHERE kind IN ('fingerprint', 'dataset_use')
)
GROUP BY project, run_id, attempt;

CREATE OR REPLACE VIEW runtide.kpis
(
    project String               COMMENT 'Tenant, from the token',
    subject String               COMMENT 'run:ID or model:NAME@VERSION',
    run_id  String               COMMENT 'The run that it is said of; empty for a model version',
    model   String               COMMENT 'Name of the model that it is said of; empty for a run',
    version String               COMMENT 'Version of the model',
    name    String               COMMENT 'Name of the figure',
    time    DateTime64(6, 'UTC') COMMENT 'When the figure was true; said again for the same time, the later word counts',
    value   Float64              COMMENT 'The figure',
    unit    String               COMMENT 'As it was told, such as EUR or %',
    goal    String               COMMENT 'min or max: which values are better; or the value to reach',
    said_at DateTime64(6, 'UTC') COMMENT 'When it was said, by the clock of the host that said it',
    actor   String               COMMENT 'User of the process that said it, as that claims'
)
COMMENT 'Business figures of runs and model versions'
AS SELECT
    project, subject, if(startsWith(subject, 'run:'), substring(subject, 5), '') AS run_id,
    if(startsWith(subject, 'model:'), substring(subject, 7, length(subject) - length(last_part) - 7), '') AS model,
    if(startsWith(subject, 'model:'), last_part, '') AS version,
    name, at AS time, latest.1 AS value, latest.2 AS unit, latest.3 AS goal, latest.4 AS said_at,
    who[latest.5] AS actor
FROM
(
    SELECT
        project, one.subject AS subject, one.name AS name, at, splitByChar('@', subject)[-1] AS last_part,
        argMax(
            (one.value, one.unit, JSONExtractString(one.json, 'goal'), said, stream), (said, received_at, stream, offset)
        )::Tuple(Float64, String, String, DateTime64(6, 'UTC'), String) AS latest
    FROM
    (
        SELECT
            project, time AS at, received_at, stream, offset,
            JSONExtract(json, 'Tuple(subject String, name String, value Float64, unit String, json String)') AS one,
            fromUnixTimestamp64Micro(JSONExtractInt(one.json, 'said_us'), 'UTC') AS said
        FROM runtide.events
        WHERE run_id = '@kpis' AND kind = 'kpi'
    )
    GROUP BY project, subject, name, at
) AS said
LEFT JOIN
(
    SELECT project, mapFromArrays(groupArray(stream), groupArray(user)) AS who
    FROM
    (
        SELECT DISTINCT project, stream, JSONExtractString(json, 'user') AS user
        FROM runtide.events
        WHERE run_id = '@kpis' AND kind = 'stream_opened'
    )
    GROUP BY project
) AS users USING (project);

CREATE OR REPLACE VIEW runtide.calibrations
(
    project           String               COMMENT 'Tenant, from the token',
    run_id            String               COMMENT 'The run',
    name              String               COMMENT 'Name of the figure',
    step              Int64                COMMENT 'Step that it belongs to',
    rank              Int32                COMMENT 'Rank of the process',
    time              DateTime64(6, 'UTC') COMMENT 'Clock of the process',
    class             String               COMMENT 'The positive class; all others are negative',
    place             UInt32               COMMENT 'Place of the bin among all, from 0; bins without a sample have no row',
    low               Float64              COMMENT 'Lower edge of the bin, which belongs to the bin before, but for the first',
    high              Float64              COMMENT 'Upper edge, which belongs to it',
    mean_predicted    Float64              COMMENT 'Mean of the predicted probabilities',
    fraction_positive Float64              COMMENT 'Share of the samples that are of the class',
    count             UInt64               COMMENT 'Samples'
)
COMMENT 'Whether predicted probabilities come true: calibration curves, one row for each bin'
AS SELECT
    project, run_id, name, step, rank, said_at AS time, class, place, place * (1 / one.bins) AS low,
    if(place + 1 = one.bins, 1, (place + 1) * (1 / one.bins)) AS high,
    predicted / samples AS mean_predicted, hits / samples AS fraction_positive, samples AS count
FROM
(
    SELECT
        project, run_id, name, step, rank, class, max((attempt, time, stream, offset)).2 AS said_at,
        JSONExtract(
            argMax(json, (attempt, time, stream, offset)),
            'Tuple(bins UInt32, places Array(UInt32), predicted Array(Float64), positives Array(UInt64), counts Array(UInt64))'
        ) AS one
    FROM (SELECT *, JSONExtractString(json, 'class') AS class FROM runtide.figures)
    WHERE kind = 'calibration'
    GROUP BY project, run_id, name, step, rank, class
    HAVING length(one.places) = length(one.counts) AND length(one.predicted) = length(one.positives)
)
ARRAY JOIN one.places AS place, one.predicted AS predicted, one.positives AS hits, one.counts AS samples;
