-- What runs cost. Prices are told (`runtide prices apply`), never known by themselves; all of the rest is counted from the
-- readings when it is asked for, so a run that goes on has its costs so far. docs/costs.md has the formulas.

CREATE TABLE IF NOT EXISTS runtide.price_rows
(
    project          LowCardinality(String)                         COMMENT 'Empty: prices are those of all projects',
    valid_from       DateTime64(6, 'UTC')                           COMMENT 'Runs that start from then on have these rates, until the next table',
    currency         String                                         COMMENT 'What the rates are in',
    gpu_hour         Array(Tuple(pattern String, value Float64))    COMMENT 'Rate of a device hour by model, as patterns of LIKE; the first that fits counts',
    cpu_hour         Float64                                        COMMENT 'Rate of an hour of one logical core in use',
    host_hour        Array(Tuple(pattern String, value Float64))    COMMENT 'Rate of an hour of a host by its name',
    kwh              Float64                                        COMMENT 'Price of a kilowatt hour',
    gpu_watts        Array(Tuple(pattern String, value Float64))    COMMENT 'Power of a device by model, where none is measured',
    cpu_core_watts   Float64                                        COMMENT 'Power of one logical core in use',
    carbon_g_per_kwh Float64                                        COMMENT 'Grams of CO2 equivalent for a kilowatt hour',
    carbon_source    String                                         COMMENT 'Where that factor comes from',
    applied_at       DateTime64(6, 'UTC')                           COMMENT 'When it was told; of one valid_from the last counts'
)
ENGINE = ReplacingMergeTree(applied_at)
ORDER BY (project, valid_from)
COMMENT 'Price tables, one row each, exempt from retention';

CREATE OR REPLACE VIEW runtide.costs
(
    project       String            COMMENT 'Tenant, from the token',
    run_id        String            COMMENT 'The run',
    experiment    String            COMMENT 'Named group of runs',
    user          String            COMMENT 'Who started it',
    host          String            COMMENT 'Where it was measured; empty where nothing was sampled',
    device        String            COMMENT 'gpu0 ..., process for the processors, empty for the host itself, gpu where nothing was sampled',
    model         String            COMMENT 'Model of the device, where it is known',
    time          DateTime('UTC')   COMMENT 'Start of the hour; of what was not sampled the start of the run',
    hours         Float64           COMMENT 'Hours of the device that are this run''s; of process hours of one logical core in use',
    watched_hours Float64           COMMENT 'Of a GPU those hours of them for which its utilization is known',
    idle_hours    Float64           COMMENT 'Of them those of minutes in which it was less than 5 percent busy on average',
    energy_kwh    Float64           COMMENT 'Kilowatt hours; of GPUs, and of process where the price table has the watts of a core',
    measured_kwh  Float64           COMMENT 'Of them those from measured power; the rest is estimated from the watts of the price table',
    rate          Float64           COMMENT 'Rate of an hour; 0 where there is none',
    cost          Float64           COMMENT 'hours * rate, and the energy at its price',
    currency      String            COMMENT 'Of the price table; empty where none holds',
    carbon_g      Float64           COMMENT 'Grams of CO2 equivalent: energy_kwh and the factor of the price table',
    sampled       Bool              COMMENT 'From readings; else from the run''s duration and its number of processes',
    priced        Bool              COMMENT 'A price table holds and, for a GPU, has a rate for its model'
)
COMMENT 'What runs cost, by the hour, host and device. Prefer the view run_costs for whole runs'
AS WITH
lives AS
(
    SELECT
        r.project AS project, r.run_id AS run_id, r.experiment AS experiment, r.user AS user, r.started_at AS started_at,
        r.world_size AS world_size, toUnixTimestamp64Micro(r.started_at) / 1e6 AS began,
        toUnixTimestamp64Micro(coalesce(r.finished_at, r.heartbeat_at)) / 1e6 AS ended,
        -- One place for each device, and a last one for those of which no model is known.
        arrayPushBack(e.gpus, '') AS models,
        multiIf(
            match(e.visible, '^[0-9]+(,[0-9]+)*$') AND countSubstrings(e.visible, ',') + 1 >= r.world_size,
            arrayMap(x -> concat('gpu', x), splitByChar(',', e.visible)),
            e.visible IN ('', '-1') AND e.run_id != '' AND r.world_size = 1, [],
            ['all']
        ) AS devices,
        p.currency AS currency, p.cpu_hour AS cpu_hour, p.host_hour AS host_hour, p.kwh AS kwh,
        p.cpu_core_watts AS cpu_core_watts, p.carbon_g_per_kwh AS carbon_g_per_kwh,
        arrayMap(m -> arrayExists(x -> m ILIKE x.1, p.gpu_hour), models) AS rated,
        arrayMap(m -> arrayFirst(x -> m ILIKE x.1, p.gpu_hour).2, models) AS rates,
        arrayMap(m -> arrayFirst(x -> m ILIKE x.1, p.gpu_watts).2, models) AS watts
    FROM (SELECT *, 1 AS one FROM runtide.runs) AS r
    LEFT JOIN
    (
        SELECT
            project, run_id, argMax(gpus, attempt) AS gpus,
            argMax(if(mapContains(variables, name), variables[name], 'all'), attempt) AS visible
        FROM (SELECT project, run_id, attempt, gpus, variables, 'CUDA_VISIBLE_DEVICES' AS name FROM runtide.environments)
        GROUP BY project, run_id
    ) AS e ON e.project = r.project AND e.run_id = r.run_id
    ASOF LEFT JOIN (SELECT *, 1 AS one FROM runtide.price_rows FINAL) AS p ON p.one = r.one AND p.valid_from <= r.started_at
),
spans AS
(
    SELECT
        w.project AS project, w.run_id AS run_id, w.host AS host, w.device AS device, w.minute AS minute,
        w.utilization AS utilization, w.power AS power, w.cores AS cores,
        greatest(l.began, w.minute) AS since, least(l.ended, w.minute + 60) AS until
    FROM
    (
        SELECT
            project, run_id, host, device, toFloat64(toUnixTimestamp(time)) AS minute,
            if(countIf(name = 'utilization_percent') = 0, NULL, anyIf(sum / count, name = 'utilization_percent')) AS utilization,
            if(countIf(name = 'power_watts') = 0, NULL, anyIf(sum / count, name = 'power_watts')) AS power,
            sumIf(sum / count, device = 'process') / 100 AS cores
        FROM runtide.sample_windows FINAL
        WHERE count > 0 AND name IN ('cpu_percent', 'utilization_percent', 'power_watts')
        GROUP BY project, run_id, host, device, minute
    ) AS w
    INNER JOIN lives AS l ON l.project = w.project AND l.run_id = w.run_id
    WHERE since < until AND (NOT startsWith(w.device, 'gpu') OR l.devices = ['all'] OR has(l.devices, w.device))
),
-- What runs use at the same time each has in equal parts: so all of them together have the device once. Processes are a
-- run's own.
shares AS
(
    SELECT
        project, use.1 AS run_id, host, device, minute, use.4 AS utilization, use.5 AS power,
        if(device = 'process', use.6, 1) * arraySum(
            i -> if(
                edges[i] >= use.2 AND edges[i + 1] <= use.3,
                (edges[i + 1] - edges[i]) / arrayCount(v -> v.2 <= edges[i] AND v.3 >= edges[i + 1], uses), 0
            ),
            range(1, length(edges))
        ) / 3600 AS part
    FROM
    (
        SELECT
            project, host, device, minute, groupArray((run_id, since, until, utilization, power, cores)) AS uses,
            arraySort(arrayDistinct(arrayConcat(uses.2, uses.3))) AS edges
        FROM spans
        GROUP BY project, host, device, minute, if(device = 'process', run_id, '')
    )
    ARRAY JOIN uses AS use
),
parts AS
(
    SELECT
        project, run_id, host, device, intDiv(toUInt32(minute), 3600) * 3600 AS hour, sum(part) AS hours,
        sumIf(part, utilization IS NOT NULL) AS watched_hours, sumIf(part, utilization < 5) AS idle_hours,
        sum(part * coalesce(power, 0)) / 1000 AS measured_kwh, sumIf(part, power IS NULL) AS unmeasured_hours,
        true AS sampled
    FROM shares
    GROUP BY project, run_id, host, device, hour
    UNION ALL
    SELECT
        project, run_id, '' AS host, 'gpu' AS device, toUInt32(began) AS hour,
        greatest(ended - began, 0) / 3600 * world_size AS hours, 0, 0, 0, hours AS unmeasured_hours, false
    FROM lives
    WHERE length(models) > 1 AND notEmpty(devices)
        AND (project, run_id) NOT IN (SELECT project, run_id FROM runtide.sample_windows)
)
SELECT
    project, run_id, experiment, user, host, device, if(gpu, models[place], '') AS model, toDateTime(hour, 'UTC') AS time,
    hours, watched_hours, idle_hours,
    measured_kwh + unmeasured_hours / 1000 * multiIf(gpu, watts[place], device = 'process', cpu_core_watts, 0) AS energy_kwh,
    measured_kwh, multiIf(gpu, rates[place], device = 'process', cpu_hour, arrayFirst(x -> host ILIKE x.1, host_hour).2) AS rate,
    hours * rate + energy_kwh * kwh AS cost, currency, energy_kwh * carbon_g_per_kwh AS carbon_g, sampled,
    currency != '' AND (NOT gpu OR rated[place]) AS priced
FROM
(
    SELECT
        s.*, l.* EXCEPT (project, run_id), startsWith(s.device, 'gpu') AS gpu,
        least(if(s.sampled, toUInt32OrZero(substring(s.device, 4)), 0) + 1, length(l.models)) AS place
    FROM parts AS s
    INNER JOIN lives AS l ON l.project = s.project AND l.run_id = s.run_id
);

CREATE OR REPLACE VIEW runtide.run_costs
(
    project          String            COMMENT 'Tenant, from the token',
    run_id           String            COMMENT 'The run',
    experiment       String            COMMENT 'Named group of runs',
    user             String            COMMENT 'Who started it',
    hours            Float64           COMMENT 'Hours from start to end, or to the last sign of life',
    host_hours       Float64           COMMENT 'Hours of hosts; what runs used at the same time they have in equal parts',
    gpu_hours        Float64           COMMENT 'Hours of devices, shared likewise',
    gpu_watched_hours Float64          COMMENT 'Of them those for which the device''s utilization is known',
    gpu_idle_hours   Float64           COMMENT 'Of them those of minutes in which it was less than 5 percent busy on average',
    gpu_idle_share   Nullable(Float64) COMMENT 'gpu_idle_hours / gpu_watched_hours; NULL where there are none',
    cpu_core_hours   Float64           COMMENT 'Hours of logical cores that the run''s processes used',
    energy_kwh       Float64           COMMENT 'Kilowatt hours of GPUs, and of the processors where the price table says their watts',
    measured_kwh     Float64           COMMENT 'Of them those from measured power',
    energy_source    String            COMMENT 'measured, estimated (by the watts of the price table), mixed or none',
    cost             Float64           COMMENT 'All costs; where priced is false those that are known',
    currency         String            COMMENT 'Of the price table; empty where none holds',
    carbon_g         Float64           COMMENT 'Grams of CO2 equivalent: energy_kwh * carbon_g_per_kwh',
    carbon_g_per_kwh Float64           COMMENT 'The factor of the price table',
    carbon_source    String            COMMENT 'Where the factor comes from',
    sampled          Bool              COMMENT 'From readings; else from duration and number of processes, where devices are known',
    priced           Bool              COMMENT 'A price table holds, and has a rate for every GPU that was used'
)
COMMENT 'What each run cost so far'
AS SELECT
    r.project AS project, r.run_id AS run_id, r.experiment AS experiment, r.user AS user, r.duration_s / 3600 AS hours,
    c.host_hours AS host_hours, c.gpu_hours AS gpu_hours, c.watched_hours AS gpu_watched_hours, c.gpu_idle_hours AS gpu_idle_hours,
    if(c.watched_hours > 0, c.gpu_idle_hours / c.watched_hours, NULL) AS gpu_idle_share, c.cpu_core_hours AS cpu_core_hours,
    c.energy_kwh AS energy_kwh, c.measured_kwh AS measured_kwh,
    multiIf(
        c.energy_kwh <= 0, 'none', c.estimated_kwh <= 0, 'measured', c.measured_kwh <= 0, 'estimated', 'mixed'
    ) AS energy_source,
    c.cost AS cost, p.currency AS currency, c.carbon_g AS carbon_g, p.carbon_g_per_kwh AS carbon_g_per_kwh,
    p.carbon_source AS carbon_source, c.sampled AS sampled, c.priced AS priced
FROM (SELECT *, 1 AS one FROM runtide.runs) AS r
LEFT JOIN
(
    SELECT
        project, run_id, sumIf(k.hours, k.device = '') AS host_hours, sumIf(k.hours, startsWith(k.device, 'gpu')) AS gpu_hours,
        sum(k.idle_hours) AS gpu_idle_hours, sum(k.watched_hours) AS watched_hours,
        sumIf(k.hours, k.device = 'process') AS cpu_core_hours, sum(k.energy_kwh) AS energy_kwh,
        sum(k.measured_kwh) AS measured_kwh, sumIf(k.energy_kwh, k.energy_kwh > k.measured_kwh) AS estimated_kwh,
        sum(k.cost) AS cost, sum(k.carbon_g) AS carbon_g, max(k.sampled) AS sampled, min(k.priced) AS priced
    FROM runtide.costs AS k
    GROUP BY project, run_id
) AS c ON c.project = r.project AND c.run_id = r.run_id
ASOF LEFT JOIN (SELECT *, 1 AS one FROM runtide.price_rows FINAL) AS p ON p.one = r.one AND p.valid_from <= r.started_at;
