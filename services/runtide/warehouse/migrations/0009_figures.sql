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
