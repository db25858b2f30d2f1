-- Whether a run says all that is needed to run it again.

CREATE OR REPLACE VIEW runtide.completeness
(
    project String        COMMENT 'Tenant, from the token',
    run_id  String        COMMENT 'The run',
    score   Float64       COMMENT 'Part of all checks that are met, in percent',
    met     Array(String) COMMENT 'Checks that are met',
    missing Array(String) COMMENT 'What is missing to run it again, in words'
)
COMMENT 'What is known of each run to run it again, and what is not'
AS SELECT
    project, run_id, 100 * length(met) / length(checks) AS score,
    arrayMap(x -> x.1, arrayFilter(x -> x.2, checks)) AS met,
    arrayMap(x -> x.3, arrayFilter(x -> NOT x.2, checks)) AS missing
FROM
(
    SELECT
        project, run_id,
        [
            ('code', entries > 0 AND entries_cut = 0, if(entries = 0, 'the script or notebook was not kept', 'the script or notebook was not kept whole')),
            ('changes', changes_cut = 0, 'uncommitted changes or untracked files were not kept whole'),
            ('command', notEmpty(command), 'the command line is not known'),
            ('interpreter', python != '', 'the version of Python is not known'),
            ('packages', packages > 0, 'the installed packages are not known'),
            ('configuration', config NOT IN ('', '{}'), 'no configuration was given to init()'),
            ('data', datasets > 0 AND datasets_unknown = 0, if(datasets = 0, 'no dataset was named by use_dataset()', 'the content of a dataset is not known by a digest')),
            ('results', metrics > 0, 'no metric was logged to compare')
        ] AS checks
    FROM
    (
        SELECT
            project, run_id, any(run_config) AS config, sum(entry) AS entries, sum(entry_cut) AS entries_cut,
            sum(change_cut) AS changes_cut, max(line) AS command, max(interpreter) AS python,
            max(installed) AS packages, sum(dataset) AS datasets, sum(dataset_unknown) AS datasets_unknown,
            sum(metric) AS metrics
        FROM
        (
            SELECT
                project, run_id, config AS run_config, 0 AS entry, 0 AS entry_cut, 0 AS change_cut,
                emptyArrayString() AS line, '' AS interpreter, 0 AS installed, 0 AS dataset, 0 AS dataset_unknown,
                toUInt64(summary NOT IN ('', '{}')) AS metric
            FROM runtide.runs
            UNION ALL
            SELECT
                project, run_id, '', toUInt64(kind IN ('entry', 'notebook')),
                toUInt64(kind IN ('entry', 'notebook') AND truncated), toUInt64(kind IN ('patch', 'untracked') AND truncated),
                emptyArrayString(), '', 0, 0, 0, 0
            FROM runtide.files
            UNION ALL
            SELECT project, run_id, '', 0, 0, 0, command, python, length(packages), 0, 0, 0
            FROM runtide.environments
            UNION ALL
            SELECT
                project, run_id, '', 0, 0, 0, emptyArrayString(), '', 0, 1,
                toUInt64(JSONExtractString(json, 'digest') = ''), 0
            FROM runtide.events WHERE kind = 'dataset_use'
        )
        GROUP BY project, run_id
        HAVING config != '' OR metrics > 0
    )
);
