-- What was run more than once, and what has been tried so far.

CREATE OR REPLACE VIEW runtide.duplicates
(
    project     String               COMMENT 'Tenant, from the token',
    experiment  String               COMMENT 'Experiment of the first run',
    first_run   String               COMMENT 'The run that was started first',
    first_at    DateTime64(6, 'UTC') COMMENT 'When',
    runs        UInt64               COMMENT 'Runs of the same, the first one included',
    run_ids     Array(String)        COMMENT 'All of them, in the order in which they were started',
    seconds     Float64              COMMENT 'Process-seconds of all but the first: what repeating cost',
    finished    UInt64               COMMENT 'How many of them finished',
    code        String               COMMENT 'Fingerprint of the code',
    config      String               COMMENT 'Fingerprint of the configuration',
    data        String               COMMENT 'Fingerprint of the datasets; empty where none were said'
)
COMMENT 'Runs with the same code, configuration and data, where there is more than one'
AS SELECT
    project, tupleElement(all_runs[1], 4) AS experiment, tupleElement(all_runs[1], 2) AS first_run,
    tupleElement(all_runs[1], 1) AS first_at, length(all_runs) AS runs, arrayMap(x -> x.2, all_runs) AS run_ids,
    arraySum(x -> x.3, arraySlice(all_runs, 2)) AS seconds,
    toUInt64(arrayCount(x -> x.5 = 'finished', all_runs)) AS finished, code, config, data
FROM
(
    SELECT
        f.project AS project, f.code AS code, f.config AS config, f.data AS data,
        arraySort(groupArray((r.started_at, r.run_id, r.duration_s * greatest(r.world_size, 1), r.experiment, r.state)))
            AS all_runs
    FROM
    (
        SELECT
            project, run_id, argMax(code, attempt) AS code, argMax(config, attempt) AS config,
            argMax(data, attempt) AS data
        FROM runtide.fingerprints GROUP BY project, run_id
    ) AS f
    INNER JOIN runtide.runs AS r ON r.project = f.project AND r.run_id = f.run_id
    WHERE f.code != '' AND f.config != ''
    GROUP BY project, code, config, data
    HAVING count() > 1
);

CREATE OR REPLACE VIEW runtide.explored
(
    project    String               COMMENT 'Tenant, from the token',
    experiment String               COMMENT 'Named group of runs; empty for those without',
    key        String               COMMENT 'Key of the configuration, joined by a dot',
    value      String               COMMENT 'Value that was tried, as JSON',
    runs       UInt64               COMMENT 'Runs with it',
    finished   UInt64               COMMENT 'Of these, finished ones',
    under_way  UInt64               COMMENT 'Of these, still going on',
    last_at    DateTime64(6, 'UTC') COMMENT 'Start of the newest one'
)
COMMENT 'The space that an experiment has explored so far: each value of each key of the configuration, and its runs'
AS SELECT
    project, experiment, tupleElement(pair, 1) AS key, tupleElement(pair, 2) AS value, count() AS runs,
    countIf(state = 'finished') AS finished, countIf(finished_at IS NULL) AS under_way, max(started_at) AS last_at
FROM
(
    SELECT project, experiment, state, finished_at, started_at, arrayJoin(JSONExtractKeysAndValuesRaw(config)) AS pair
    FROM runtide.runs
)
GROUP BY project, experiment, key, value;
