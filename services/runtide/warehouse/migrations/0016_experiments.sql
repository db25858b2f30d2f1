-- Experiments: named groups of runs with an objective, a plan, a budget and what they depend on. What was said of them lies
-- in the audit trail; everything else follows from it and from their runs.

CREATE OR REPLACE VIEW runtide.experiment_runs
(
    project     String                         COMMENT 'Tenant, from the token',
    experiment  String                         COMMENT 'Named group of runs',
    run_id      String                         COMMENT 'The run; deleted ones are not here',
    name        String                         COMMENT 'Name for people',
    state       String                         COMMENT 'running, degraded, stalled, preempted, crashed, failed or finished',
    started_at  DateTime64(6, 'UTC')           COMMENT 'First start',
    ended_at    Nullable(DateTime64(6, 'UTC')) COMMENT 'End, where the state is an ended one',
    value       Nullable(Float64)              COMMENT 'Its best finite value of the metric of the objective',
    best_so_far Nullable(Float64)              COMMENT 'Best of this run and of those that started before',
    hours       Float64                        COMMENT 'Duration times processes',
    cost        Nullable(Float64)              COMMENT 'What it has cost in the unit of the budget; NULL where that is not known',
    budget_used Nullable(Float64)              COMMENT 'What this run and those that started before have cost, without those of which that is not known',
    budget_left Nullable(Float64)              COMMENT 'What that leaves of the budget; below 0 where it is over'
)
COMMENT 'Runs of each experiment in the order of their start: progress towards the objective, and the budget burning down'
AS WITH
    said AS
    (
        SELECT
            project, substring(subject, 12) AS experiment,
            argMaxIf(after, seq, kind = 'objective') AS objective, argMaxIf(after, seq, kind = 'budget') AS money,
            JSONExtractString(objective, 'metric') AS metric, JSONExtractString(objective, 'goal') AS goal,
            JSONExtract(money, 'amount', 'Nullable(Float64)') AS budget, JSONExtractString(money, 'unit') AS unit
        FROM runtide.audit_rows
        WHERE startsWith(subject, 'experiment:') AND kind IN ('objective', 'budget')
        GROUP BY project, subject
    ),
    -- What each run has cost so far. An amount of money that is not all of it counts as not known.
    spent AS
    (
        SELECT project, run_id, gpu_hours, if(priced, map(currency, cost), CAST(map(), 'Map(String, Float64)')) AS costs
        FROM runtide.run_costs
    )
SELECT
    r.project AS project, r.experiment AS experiment, r.run_id AS run_id, r.name AS name, r.state AS state,
    r.started_at AS started_at, r.finished_at AS ended_at, if(s.goal = 'min', m.low, m.high) AS value,
    if(s.goal = 'min', min(value) OVER earlier, max(value) OVER earlier) AS best_so_far,
    r.duration_s * greatest(r.world_size, 1) / 3600 AS hours,
    multiIf(
        s.unit = 'hours', toNullable(hours), s.unit = 'gpu-hours', toNullable(c.gpu_hours),
        mapContains(c.costs, s.unit), toNullable(c.costs[s.unit]), NULL
    ) AS cost,
    sum(cost) OVER earlier AS budget_used, s.budget - budget_used AS budget_left
FROM runtide.runs AS r
LEFT JOIN said AS s ON s.project = r.project AND s.experiment = r.experiment
LEFT JOIN spent AS c ON c.project = r.project AND c.run_id = r.run_id
LEFT JOIN
(
    SELECT project, run_id, metric, toNullable(min) AS low, toNullable(max) AS high
    FROM runtide.metric_summary
    WHERE rank = -1 AND count > 0
) AS m ON m.project = r.project AND m.run_id = r.run_id AND m.metric = s.metric
WHERE r.experiment != ''
WINDOW earlier AS (
    PARTITION BY r.project, r.experiment ORDER BY r.started_at, r.run_id ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
);

CREATE OR REPLACE VIEW runtide.experiments
(
    project           String                         COMMENT 'Tenant, from the token',
    experiment        String                         COMMENT 'Named group of runs; there from its first run or from the first word on it',
    hypothesis        String                         COMMENT 'What is expected of it',
    owner             String                         COMMENT 'Whose it is',
    metric            String                         COMMENT 'Metric of the objective; empty where none was set',
    goal              String                         COMMENT 'max or min',
    target            Nullable(Float64)              COMMENT 'Value of the metric that is to be reached',
    deadline          Nullable(Date)                 COMMENT 'When the objective has to be met',
    planned_from      Nullable(Date)                 COMMENT 'Planned start',
    planned_to        Nullable(Date)                 COMMENT 'Planned end',
    started_at        Nullable(DateTime64(6, 'UTC')) COMMENT 'Start of its first run',
    ended_at          Nullable(DateTime64(6, 'UTC')) COMMENT 'End of its last run; NULL while one goes on',
    runs              UInt64                         COMMENT 'Runs, without deleted ones',
    runs_finished     UInt64                         COMMENT 'Runs that finished',
    runs_going        UInt64                         COMMENT 'Runs that have not ended',
    best              Nullable(Float64)              COMMENT 'Best finite value of the metric in any of its runs',
    best_run          String                         COMMENT 'The run that has it; of equal ones the one that started first',
    to_go             Nullable(Float64)              COMMENT 'What is missing to the target; 0 where it is met, NULL where nothing was logged',
    met               Bool                           COMMENT 'Whether the objective is met',
    budget            Nullable(Float64)              COMMENT 'What it may cost; NULL where nothing was said',
    budget_unit       String                         COMMENT 'gpu-hours, hours (of processes) or a currency',
    budget_used       Nullable(Float64)              COMMENT 'What it has cost in that unit; NULL where that is not known of any run',
    budget_used_share Nullable(Float64)              COMMENT 'Used share of the budget; 1 is all of it',
    budget_alert      String                         COMMENT '80 % from four fifths of the budget on, 100 % from all of it on; empty before',
    decision          String                         COMMENT 'accepted, rejected or postponed: the last decision',
    depends           Array(String)                  COMMENT 'What it depends on: experiment:NAME, run:ID',
    created_at        Nullable(DateTime64(6, 'UTC')) COMMENT 'When it was created; NULL where runs alone name it',
    hours             Float64                        COMMENT 'Hours of its processes: duration of each run times its processes',
    runs_not_priced   UInt64                         COMMENT 'Runs whose cost in the unit of the budget is not known: budget_used is without them'
)
COMMENT 'One row for each experiment: what is planned and what is so'
AS WITH
    said AS
    (
        SELECT
            project, substring(subject, 12) AS experiment,
            JSONExtractString(argMaxIf(after, seq, kind = 'hypothesis')) AS hypothesis,
            JSONExtractString(argMaxIf(after, seq, kind = 'owner')) AS owner,
            argMaxIf(after, seq, kind = 'objective') AS objective,
            argMaxIf(after, seq, kind = 'plan') AS plan,
            argMaxIf(after, seq, kind = 'budget') AS money,
            JSONExtractString(argMaxIf(after, seq, kind = 'decision')) AS decision,
            if(countIf(kind = 'create') = 0, NULL, minIf(time, kind = 'create')) AS created_at
        FROM runtide.audit_rows
        WHERE startsWith(subject, 'experiment:')
            AND kind IN ('create', 'hypothesis', 'owner', 'objective', 'plan', 'budget', 'decision', 'depends')
        GROUP BY project, subject
    ),
    needed AS
    (
        SELECT project, experiment, groupArray(thing) AS things
        FROM
        (
            SELECT project, substring(subject, 12) AS experiment, JSONExtractString(after, 'on') AS thing
            FROM runtide.audit_rows
            WHERE kind = 'depends' AND startsWith(subject, 'experiment:')
            GROUP BY project, experiment, thing
            HAVING NOT JSONExtractBool(argMax(after, seq), 'removed')
            ORDER BY max(seq)
        )
        GROUP BY project, experiment
    ),
    ran AS
    (
        SELECT
            project, experiment, count() AS number, countIf(state = 'finished') AS finished,
            countIf(isNull(ended_at)) AS going, toNullable(min(started_at)) AS began,
            if(going > 0, NULL, max(ended_at)) AS done, sum(hours) AS all_hours, sum(cost) AS used,
            countIf(isNull(cost)) AS unknown,
            min(value) AS low, argMin(run_id, (value, started_at, run_id)) AS low_run,
            max(value) AS high, argMax(run_id, (value, -toUnixTimestamp64Micro(started_at), run_id)) AS high_run
        FROM runtide.experiment_runs
        GROUP BY project, experiment
    ),
    named AS
    (
        SELECT project, experiment FROM said
        UNION DISTINCT
        SELECT project, experiment FROM ran
    )
SELECT
    n.project AS project, n.experiment AS experiment, s.hypothesis AS hypothesis, s.owner AS owner,
    JSONExtractString(s.objective, 'metric') AS metric, JSONExtractString(s.objective, 'goal') AS goal,
    JSONExtract(s.objective, 'target', 'Nullable(Float64)') AS target,
    toDateOrNull(JSONExtractString(s.plan, 'deadline')) AS deadline,
    toDateOrNull(JSONExtractString(s.plan, 'from')) AS planned_from,
    toDateOrNull(JSONExtractString(s.plan, 'to')) AS planned_to,
    r.began AS started_at, r.done AS ended_at, r.number AS runs, r.finished AS runs_finished, r.going AS runs_going,
    if(goal = 'min', r.low, r.high) AS best,
    if(isNull(best), '', if(goal = 'min', r.low_run, r.high_run)) AS best_run,
    if(met, 0, if(goal = 'min', best - target, target - best)) AS to_go,
    ifNull(if(goal = 'min', best <= target, best >= target), false)::Bool AS met,
    JSONExtract(s.money, 'amount', 'Nullable(Float64)') AS budget, JSONExtractString(s.money, 'unit') AS budget_unit,
    r.used AS budget_used, budget_used / budget AS budget_used_share,
    multiIf(budget_used_share >= 1, '100 %', budget_used_share >= 0.8, '80 %', '') AS budget_alert,
    s.decision AS decision, d.things AS depends, s.created_at AS created_at, r.all_hours AS hours,
    if(isNull(budget), 0, r.unknown) AS runs_not_priced
FROM named AS n
LEFT JOIN said AS s ON s.project = n.project AND s.experiment = n.experiment
LEFT JOIN needed AS d ON d.project = n.project AND d.experiment = n.experiment
LEFT JOIN ran AS r ON r.project = n.project AND r.experiment = n.experiment;

CREATE OR REPLACE VIEW runtide.experiment_dependencies
(
    project    String COMMENT 'Tenant, from the token',
    experiment String COMMENT 'What waits; of a run its experiment, empty before it starts',
    run_id     String COMMENT 'The run that waits; empty where the whole experiment does',
    depends_on String COMMENT 'What it waits for: experiment:NAME or run:ID',
    needs      String COMMENT 'data, model or order: what it takes from there',
    why        String COMMENT 'Why, as they said',
    state      String COMMENT 'ready: the experiment there has met its objective or was accepted, the run has finished; else blocked'
)
COMMENT 'What experiments and runs wait for: a graph, one row for each edge'
AS SELECT
    n.project AS project, if(n.run = '', n.name, w.experiment) AS experiment, n.run AS run_id,
    n.thing AS depends_on, n.what AS needs, n.reason AS why,
    if(e.experiment != '' OR r.run_id != '', 'ready', 'blocked') AS state
FROM
(
    SELECT
        project, if(startsWith(subject, 'run:'), substring(subject, 5), '') AS run,
        if(run = '', substring(subject, 12), '') AS name,
        JSONExtractString(after, 'on') AS thing, argMax(after, seq) AS last,
        JSONExtractString(last, 'needs') AS what, JSONExtractString(last, 'why') AS reason
    FROM runtide.audit_rows
    WHERE kind = 'depends'
    GROUP BY project, subject, thing
    HAVING NOT JSONExtractBool(last, 'removed')
) AS n
LEFT JOIN (SELECT project, run_id, experiment FROM runtide.runs) AS w ON w.project = n.project AND w.run_id = n.run
LEFT JOIN
(
    SELECT project, experiment FROM runtide.experiments WHERE met OR decision = 'accepted'
) AS e ON e.project = n.project AND concat('experiment:', e.experiment) = n.thing
LEFT JOIN
(
    SELECT project, run_id FROM runtide.runs WHERE state = 'finished'
) AS r ON r.project = n.project AND concat('run:', r.run_id) = n.thing;
