-- What runs show beside their metrics. Of a figure that was said again at the same step and by the same rank the later one
-- counts, a later attempt's before all. Grouped rather than read with FINAL, so that a filter on project, run, name, kind,
-- step or rank reaches the key of the table, and so that copies make no difference.

CREATE OR REPLACE VIEW runtide.confusion_matrices
(
    project         String               COMMENT 'Tenant, from the token',
    run_id          String               COMMENT 'The run',
    name            String               COMMENT 'Name of the figure',
    step            Int64                COMMENT 'Step that it belongs to',
    rank            Int32                COMMENT 'Rank of the process',
    time            DateTime64(6, 'UTC') COMMENT 'Clock of the process',
    actual          String               COMMENT 'True class',
    predicted       String               COMMENT 'Class that the model said',
    count           UInt64               COMMENT 'Samples of the one that were taken for the other',
    actual_index    UInt32               COMMENT 'Place of the true class in the order of the classes, from 0',
    predicted_index UInt32               COMMENT 'Place of the class that the model said'
)
COMMENT 'Confusion matrices, one row for each cell, empty ones too'
AS SELECT
    project, run_id, name, step, rank, said_at AS time, actual, predicted, count,
    intDiv(cell - 1, classes) AS actual_index, (cell - 1) % classes AS predicted_index
FROM
(
    SELECT
        project, run_id, name, step, rank, said_at, length(one.labels) AS classes,
        arrayFlatten(arrayMap(x -> arrayMap(y -> x, one.labels), one.labels)) AS actuals,
        arrayFlatten(arrayMap(x -> one.labels, one.labels)) AS predictions, arrayFlatten(one.matrix) AS counts
    FROM
    (
        SELECT
            project, run_id, name, step, rank, max((attempt, time, stream, offset)).2 AS said_at,
            JSONExtract(
                argMax(json, (attempt, time, stream, offset)), 'Tuple(labels Array(String), matrix Array(Array(UInt64)))'
            ) AS one
        FROM runtide.figures
        WHERE kind = 'confusion_matrix'
        GROUP BY project, run_id, name, step, rank
    )
    WHERE length(counts) = length(actuals)
)
ARRAY JOIN actuals AS actual, predictions AS predicted, counts AS count, arrayEnumerate(counts) AS cell;

CREATE OR REPLACE VIEW runtide.curves
(
    project   String               COMMENT 'Tenant, from the token',
    run_id    String               COMMENT 'The run',
    name      String               COMMENT 'Name of the figure',
    kind      String               COMMENT 'roc or precision_recall',
    step      Int64                COMMENT 'Step that it belongs to',
    rank      Int32                COMMENT 'Rank of the process',
    time      DateTime64(6, 'UTC') COMMENT 'Clock of the process',
    class     String               COMMENT 'The positive class; all others are negative',
    place     UInt32               COMMENT 'Place of the point on the curve, from 0, x growing',
    x         Float64              COMMENT 'False positive rate; for precision_recall the recall',
    y         Float64              COMMENT 'True positive rate; for precision_recall the precision',
    threshold Float64              COMMENT 'Samples with at least this score are called positive; inf: none is'
)
COMMENT 'Points of ROC and precision-recall curves; NaN where a class has no sample'
AS SELECT project, run_id, name, kind, step, rank, said_at AS time, class, at - 1 AS place, x, y, threshold
FROM
(
    SELECT
        project, run_id, name, kind, step, rank, said_at, class,
        arrayMap(n -> n / if(kind = 'roc', one.negatives, one.positives), if(kind = 'roc', falses, trues)) AS xs,
        if(
            kind = 'roc', arrayMap(n -> n / one.positives, trues),
            arrayMap((n, m) -> if(n + m = 0, 1, n / (n + m)), trues, falses)
        ) AS ys,
        arrayPushFront(one.thresholds, inf) AS thresholds
    FROM
    (
        SELECT
            project, run_id, name, kind, step, rank, class, max((attempt, time, stream, offset)).2 AS said_at,
            JSONExtract(
                argMax(json, (attempt, time, stream, offset)),
                'Tuple(positives UInt64, negatives UInt64, true_positives Array(UInt64), false_positives Array(UInt64), thresholds Array(Float64))'
            ) AS one,
            arrayPushFront(one.true_positives, 0) AS trues, arrayPushFront(one.false_positives, 0) AS falses
        FROM (SELECT *, JSONExtractString(json, 'class') AS class FROM runtide.figures)
        WHERE kind IN ('roc', 'precision_recall')
        GROUP BY project, run_id, name, kind, step, rank, class
    )
    WHERE length(trues) = length(falses) AND length(trues) = length(one.thresholds) + 1
)
ARRAY JOIN xs AS x, ys AS y, thresholds AS threshold, arrayEnumerate(xs) AS at;

CREATE OR REPLACE VIEW runtide.curve_areas
(
    project           String               COMMENT 'Tenant, from the token',
    run_id            String               COMMENT 'The run',
    name              String               COMMENT 'Name of the figure',
    kind              String               COMMENT 'roc or precision_recall',
    step              Int64                COMMENT 'Step that it belongs to',
    rank              Int32                COMMENT 'Rank of the process',
    time              DateTime64(6, 'UTC') COMMENT 'Clock of the process',
    class             String               COMMENT 'The positive class; all others are negative',
    area              Float64              COMMENT 'Area under the curve by the trapezoid rule; NaN where a class has no sample',
    average_precision Float64              COMMENT 'Of precision_recall: precision summed over the steps of recall; else NaN',
    positives         UInt64               COMMENT 'Samples of the class',
    negatives         UInt64               COMMENT 'Samples of the others',
    points            UInt64               COMMENT 'Points that are kept of the curve',
    thinned           Bool                 COMMENT 'There were more points; then the areas are those that the job counted over all'
)
COMMENT 'Areas under ROC and precision-recall curves, comparable across steps and runs'
AS SELECT
    project, run_id, name, kind, step, rank, said_at AS time, class,
    if(one.thinned, coalesce(one.area, nan), arraySum(
        (a, b, c, d) -> (b - a) * (c + d) / 2, arrayPopBack(xs), arrayPopFront(xs), arrayPopBack(ys), arrayPopFront(ys)
    )) AS area,
    multiIf(
        kind = 'roc', nan, one.thinned, coalesce(one.average_precision, nan),
        arraySum((a, b, d) -> (b - a) * d, arrayPopBack(xs), arrayPopFront(xs), arrayPopFront(ys))
    ) AS average_precision,
    one.positives AS positives, one.negatives AS negatives, length(xs) AS points, one.thinned AS thinned
FROM
(
    SELECT
        project, run_id, name, kind, step, rank, said_at, class, one,
        arrayMap(n -> n / if(kind = 'roc', one.negatives, one.positives), if(kind = 'roc', falses, trues)) AS xs,
        if(
            kind = 'roc', arrayMap(n -> n / one.positives, trues),
            arrayMap((n, m) -> if(n + m = 0, 1, n / (n + m)), trues, falses)
        ) AS ys
    FROM
    (
        SELECT
            project, run_id, name, kind, step, rank, class, max((attempt, time, stream, offset)).2 AS said_at,
            JSONExtract(
                argMax(json, (attempt, time, stream, offset)),
                'Tuple(positives UInt64, negatives UInt64, true_positives Array(UInt64), false_positives Array(UInt64), thinned Bool, area Nullable(Float64), average_precision Nullable(Float64))'
            ) AS one,
            arrayPushFront(one.true_positives, 0) AS trues, arrayPushFront(one.false_positives, 0) AS falses
        FROM (SELECT *, JSONExtractString(json, 'class') AS class FROM runtide.figures)
        WHERE kind IN ('roc', 'precision_recall')
        GROUP BY project, run_id, name, kind, step, rank, class
    )
    WHERE length(trues) = length(falses)
);

CREATE OR REPLACE VIEW runtide.histograms
(
    project String               COMMENT 'Tenant, from the token',
    run_id  String               COMMENT 'The run',
    name    String               COMMENT 'Name of the figure',
    step    Int64                COMMENT 'Step that it belongs to',
    rank    Int32                COMMENT 'Rank of the process',
    time    DateTime64(6, 'UTC') COMMENT 'Clock of the process',
    place   UInt32               COMMENT 'Place of the bin, from 0',
    low     Float64              COMMENT 'Lower edge, which belongs to the bin',
    high    Float64              COMMENT 'Upper edge, which belongs to the next bin, but for the last',
    count   UInt64               COMMENT 'Values in the bin'
)
COMMENT 'Histograms, one row for each bin'
AS SELECT project, run_id, name, step, rank, said_at AS time, at - 1 AS place, low, high, count
FROM
(
    SELECT
        project, run_id, name, step, rank, max((attempt, time, stream, offset)).2 AS said_at,
        JSONExtract(
            argMax(json, (attempt, time, stream, offset)), 'Tuple(edges Array(Float64), counts Array(UInt64))'
        ) AS one
    FROM runtide.figures
    WHERE kind = 'histogram'
    GROUP BY project, run_id, name, step, rank
    HAVING length(one.edges) = length(one.counts) + 1
)
ARRAY JOIN arrayPopBack(one.edges) AS low, arrayPopFront(one.edges) AS high, one.counts AS count, arrayEnumerate(one.counts) AS at;

CREATE OR REPLACE VIEW runtide.images
(
    project      String               COMMENT 'Tenant, from the token',
    run_id       String               COMMENT 'The run',
    name         String               COMMENT 'Name of the figure',
    kind         String               COMMENT 'image, or figure: drawn by matplotlib or Plotly',
    step         Int64                COMMENT 'Step that it belongs to',
    rank         Int32                COMMENT 'Rank of the process',
    time         DateTime64(6, 'UTC') COMMENT 'Clock of the process',
    caption      String               COMMENT 'Words below it',
    content_type String               COMMENT 'image/png ...; of Plotly application/vnd.plotly.v1+json',
    size         UInt64               COMMENT 'Bytes of all of it; content has less where a part has not arrived',
    content      String               COMMENT 'Its bytes'
)
COMMENT 'Images and drawings'
AS SELECT
    project, run_id, name, kind, step, rank, said_at AS time, parsed.caption AS caption, type AS content_type, parsed.size AS size,
    arrayStringConcat(arrayMap(x -> x.2, arraySort(x -> x.1, pieces))) AS content
FROM
(
    SELECT
        project, run_id, name, kind, step, rank, attempt, said_at, stream,
        any(json_of_one) AS parsed, any(content_type) AS type, groupUniqArray((json_of_one.part, content)) AS pieces
    FROM
    (
        SELECT
            project, run_id, name, kind, step, rank, attempt, time AS said_at, stream, content, content_type,
            JSONExtract(json, 'Tuple(caption String, size UInt64, part UInt32)') AS json_of_one
        FROM runtide.figures
        WHERE kind IN ('image', 'figure')
    )
    GROUP BY project, run_id, name, kind, step, rank, attempt, said_at, stream
    ORDER BY attempt DESC, said_at DESC, stream DESC
    LIMIT 1 BY project, run_id, name, kind, step, rank
);

CREATE OR REPLACE VIEW runtide.metric_definitions
(
    project String COMMENT 'Tenant, from the token',
    run_id  String COMMENT 'The run',
    metric  String COMMENT 'Metric name',
    goal    String COMMENT 'min or max: which values are better; empty for neither',
    x       String COMMENT 'Metric that it is drawn over; empty for the step',
    summary String COMMENT 'Which value stands for the run: best, last, mean, min or max'
)
COMMENT 'What the metrics of a run are for; the later definition counts'
AS SELECT project, run_id, metric, latest.2 AS goal, latest.3 AS x, latest.4 AS summary
FROM
(
    SELECT project, run_id, one.name AS metric, max(((attempt, time, stream, offset), one.goal, one.x, one.summary)) AS latest
    FROM
    (
        SELECT
            project, run_id, attempt, time, stream, offset,
            JSONExtract(json, 'Tuple(name String, goal String, x String, summary String)') AS one
        FROM runtide.events
        WHERE kind = 'metric_defined'
    )
    GROUP BY project, run_id, metric
);

CREATE OR REPLACE VIEW runtide.run_metrics
(
    project    String            COMMENT 'Tenant, from the token',
    run_id     String            COMMENT 'The run',
    metric     String            COMMENT 'Metric name',
    value      Float64           COMMENT 'The value that stands for the run, as its definition says; the last where there is none',
    goal       String            COMMENT 'min or max: which values are better; empty where it was not defined',
    best       Nullable(Float64) COMMENT 'Best finite value over all ranks and steps; NULL without a goal',
    best_step  Nullable(Int64)   COMMENT 'First step with it',
    last       Float64           COMMENT 'Value at the last step, the mean over the ranks that have it',
    last_step  Int64             COMMENT 'Highest step',
    min        Float64           COMMENT 'Least finite value',
    max        Float64           COMMENT 'Greatest finite value',
    mean       Float64           COMMENT 'Mean of the finite values',
    count      UInt64            COMMENT 'Steps with a finite value, over all ranks',
    non_finite UInt64            COMMENT 'Steps with NaN or Inf',
    x          String            COMMENT 'Metric that it is drawn over; empty for the step',
    summary    String            COMMENT 'Which value stands for the run: best, last, mean, min or max'
)
COMMENT 'One row for each metric of a run: its summary over all ranks with what it is for'
-- A union that is grouped rather than a join: so a filter reaches the keys of both.
AS SELECT
    project, run_id, metric,
    multiIf(
        how = 'best', if(aim = 'min', low, high), how = 'mean', average, how = 'min', low, how = 'max', high, final
    ) AS value,
    aim AS goal, if(aim = '' OR finite = 0, NULL, if(aim = 'min', low, high)) AS best,
    if(aim = '' OR finite = 0, NULL, if(aim = 'min', low_step, high_step)) AS best_step,
    final AS last, final_step AS last_step, low AS min, high AS max, average AS mean, finite AS count, bad AS non_finite,
    over AS x, if(how = '', 'last', how) AS summary
FROM
(
    SELECT
        project, run_id, metric, anyIf(a, defined) AS aim, anyIf(b, defined) AS over, anyIf(c, defined) AS how,
        countIf(NOT defined) AS logged, anyIf(n.1, NOT defined) AS final, anyIf(n.2, NOT defined) AS final_step,
        anyIf(n.3, NOT defined) AS low, anyIf(n.4, NOT defined) AS low_step, anyIf(n.5, NOT defined) AS high,
        anyIf(n.6, NOT defined) AS high_step, anyIf(n.7, NOT defined) AS average, anyIf(n.8, NOT defined) AS finite,
        anyIf(n.9, NOT defined) AS bad
    FROM
    (
        SELECT
            project, run_id, metric, false AS defined, '' AS a, '' AS b, '' AS c,
            (last, last_step, min, min_step, max, max_step, mean, count, non_finite) AS n
        FROM runtide.metric_summary
        WHERE rank = -1
        UNION ALL
        SELECT
            project, run_id, metric, true AS defined, goal AS a, x AS b, summary AS c,
            CAST((0, 0, 0, 0, 0, 0, 0, 0, 0), 'Tuple(Float64, Int64, Float64, Int64, Float64, Int64, Float64, UInt64, UInt64)') AS n
        FROM runtide.metric_definitions
    )
    GROUP BY project, run_id, metric
)
WHERE logged > 0;
