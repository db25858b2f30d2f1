"""The table of docs/limits.md: names, defaults and settings come from the code, the other words stand here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, NamedTuple

from runtide.agent import content, git, link, shipper, uploads
from runtide.bus import fair, local
from runtide.cli.settings import Settings
from runtide.embedded.limits import QueryLimits
from runtide.gateway import Limits, pages, runs
from runtide.gateway import limits as gateway
from runtide.processor import facts
from runtide.sdk import artifacts, counting, figures, latency, pictures, source
from runtide.sdk import stream as sdk_stream
from runtide.sink import store as sink_store
from runtide.sink.sink import SinkSettings
from runtide.spool import writer
from runtide.wire import changes, source_files
from runtide.wire import limits as wire

HEAD = "| limit | default | unit | setting | scope | checked in | what the client sees | what becomes of the data |"
RULE = "|---|---|---|---|---|---|---|---|"
FIXED = "fixed"
LIMITS = "`RUNTIDE_GATEWAY_LIMITS`"


class Words(NamedTuple):
    """What the code does not say in a form that can be read."""

    unit: str
    scope: str
    where: str
    sees: str
    data: str


KEPT = "stays in the spool, comes again"
PARKED = "the record is parked in `rejected/` and declared as a gap; the rest goes on"
WAITS = "RESOURCE_EXHAUSTED with the delay, `{}: ... of project ..., limit ...; wait ... s`"
LATER = "OK, with `later` in the Ack of that range: `{}: ... of project ..., limit ...; wait ... s`"
REFUSED = "OK, with the refusal `{}` in the Ack of that range, naming field, value, limit"
WHOLE = "INVALID_ARGUMENT `... (push_{})`"
HALVED = "the agent sends it again in halves, down to one range"
READER = "read-only SQL user, one query"
NO_DATA = "none concerned"
CUT = "`truncated` and `note` of the view `files`"


def engine(code: int, name: str) -> str:
    return f"ClickHouse error {code} `{name}`"


GATEWAY: dict[str, Words] = {
    "record_bytes": Words("bytes", "record", "sdk, agent, gateway", REFUSED.format("record_too_large"), PARKED),
    "batch_bytes": Words("bytes", "range", "gateway", REFUSED.format("batch_too_large"), "the agent cuts smaller ones"),
    "range_bytes": Words("bytes", "range", "gateway", REFUSED.format("batch_too_large"), "the agent cuts smaller ones"),
    "push_bytes": Words("bytes", "Push", "gateway", WHOLE.format("bytes"), HALVED),
    "push_ranges": Words("ranges", "Push", "gateway", WHOLE.format("ranges"), HALVED),
    "push_envelope_bytes": Words("bytes", "Push", "gateway", WHOLE.format("envelope_bytes"), HALVED),
    "identity_bytes": Words(
        "bytes",
        "project, run id, stream, host",
        "sdk, gateway",
        REFUSED.format("identity"),
        "parked in `rejected/`",
    ),
    "key_set_names": Words("names", "key set", "sdk, gateway", REFUSED.format("key_set"), PARKED),
    "name_bytes": Words("bytes", "metric name", "sdk, gateway", REFUSED.format("key_set"), PARKED),
    "status_streams": Words("streams", "Status", "gateway", "INVALID_ARGUMENT `... (status_streams)`", NO_DATA),
    "project_bytes_per_s": Words(
        "bytes/s", "project, one gateway", "gateway", WAITS.format("project_bytes_per_s"), KEPT
    ),
    "project_pushes_per_s": Words(
        "Pushes/s", "project, one gateway", "gateway", WAITS.format("project_pushes_per_s"), KEPT
    ),
    "project_points_per_s": Words(
        "points/s", "project, one gateway", "gateway", WAITS.format("project_points_per_s"), KEPT
    ),
    "project_new_names_per_h": Words(
        "names/h",
        "project, one gateway",
        "gateway",
        LATER.format("project_new_names_per_h"),
        f"{KEPT}; other streams go on",
    ),
    "project_open_runs": Words(
        "runs", "project, one gateway", "gateway", LATER.format("project_open_runs"), f"{KEPT}; other runs go on"
    ),
    "run_metric_names": Words(
        "names",
        "run, one gateway; one process in the sdk",
        "sdk, gateway",
        "a warning in the job that names metric and limit; at the gateway " + REFUSED.format("metric_names"),
        "the sdk leaves out the value under the name too much, and declares it; what reaches a gateway is parked in "
        "`rejected/` and declared as a gap, for all records of that key set; the rest goes on",
    ),
    "burst_s": Words("s", "rates of a project", "gateway", "as the rate", KEPT),
    "in_flight_bytes": Words("bytes", "gateway", "gateway", WAITS.format("in_flight_bytes"), KEPT),
    "project_in_flight_bytes": Words(
        "bytes", "project, one gateway", "gateway", WAITS.format("project_in_flight_bytes"), KEPT
    ),
    "artifact_bytes": Words(
        "bytes", "one file of an artifact", "gateway", "INVALID_ARGUMENT `... (artifact_bytes)`", "kept in `rejected/`"
    ),
    "project_artifact_calls": Words(
        "uploads, downloads", "project, one gateway", "gateway", WAITS.format("project_artifact_calls"), KEPT
    ),
    "artifact_calls": Words("uploads, downloads", "gateway", "gateway", WAITS.format("artifact_calls"), KEPT),
    "concurrent_calls": Words("calls", "gateway", "gRPC", "RESOURCE_EXHAUSTED, in gRPC's own words", KEPT),
}

EMBEDDED: dict[str, Words] = {
    "max_execution_time_s": Words("s", READER, "engine", engine(159, "TIMEOUT_EXCEEDED"), NO_DATA),
    "max_memory_bytes": Words("bytes", READER, "engine", engine(241, "MEMORY_LIMIT_EXCEEDED"), NO_DATA),
    "max_rows_to_read": Words("rows", READER, "engine", engine(158, "TOO_MANY_ROWS"), NO_DATA),
    "max_bytes_to_read": Words("bytes", READER, "engine", engine(307, "TOO_MANY_BYTES"), NO_DATA),
    "max_result_rows": Words("rows", READER, "engine", engine(396, "TOO_MANY_ROWS_OR_BYTES"), NO_DATA),
    "max_result_bytes": Words("bytes", READER, "engine", engine(396, "TOO_MANY_ROWS_OR_BYTES"), NO_DATA),
    "max_buffered_result_bytes": Words(
        "bytes", "one result, any user", "embedded", engine(396, "TOO_MANY_ROWS_OR_BYTES"), NO_DATA
    ),
    "max_body_bytes": Words(
        "bytes", "one request, any user", "embedded", f"{engine(223, 'QUERY_IS_TOO_LARGE')}, HTTP 413", "not stored"
    ),
    "max_url_bytes": Words("bytes", "one request, any user", "embedded", "HTTP 400", "not stored"),
    "max_readers": Words("queries", "read-only SQL user", "embedded", "nothing: it waits", NO_DATA),
    "max_writers": Words("statements", "writer", "embedded", "nothing: it waits", "waits in the sink"),
    "max_waiting": Words(
        "requests",
        "readers; writers",
        "embedded",
        f"{engine(202, 'TOO_MANY_SIMULTANEOUS_QUERIES')}, HTTP 503",
        "the sink tries again",
    ),
    "stop_grace_s": Words("s", "stop", "embedded", "the query is cancelled", "the sink tries again"),
}

WIRE: dict[str, Words] = {
    "LOG_LINE_BYTES": Words("bytes", "console line", "sdk", "`[... N more bytes cut]` in the line", "the rest is cut"),
    "SEGMENT_BYTES": Words("bytes", "spool file", "sdk", "nothing: a new file begins", "kept"),
    "SPOOL_BYTES": Words(
        "bytes",
        "unacknowledged, one process",
        "sdk",
        "a warning in the job, `run.stats().dropped`",
        "console lines go first, then records; every drop is a gap",
    ),
    "REJECTED_BYTES": Words(
        "bytes",
        "refused, one stream",
        "agent",
        "the gap in `runtide verify`",
        "bytes beyond are not kept; a gap all the same",
    ),
    "STREAM_BYTES": Words(
        "bytes", "stream", "gateway, sink", REFUSED.format("extent"), "a dead letter beyond the gateway"
    ),
    "GAP_RECORDS": Words("records, points", "declared gap", "gateway", REFUSED.format("extent"), "the gap is given up"),
    "RULING_LETTERS": Words(
        "dead letters", "one ruling", "gateway", REFUSED.format("ruling"), "unchanged; the command asks in parts"
    ),
}
"""What of the wire's limits has no row of the gateway's."""

NO_LIMITS = {"KIB", "MIB", "EARLIEST_US", "LATEST_US"}
"""Units, and the two ends of the time that ClickHouse can hold."""

OTHER: list[tuple[str, object, str, Words]] = [
    (
        "spool share of console lines",
        writer.LINE_SHARE,
        FIXED,
        Words("of the budget", "one process", "sdk", "as above", "lines beyond are a gap"),
    ),
    (
        "key sets remembered",
        sdk_stream.MAX_PLANS,
        FIXED,
        Words("key sets", "one process", "sdk", "nothing", "names are said again"),
    ),
    *(
        (
            f"change: {what}",
            limit,
            FIXED,
            Words(unit, "one change", "command, gateway", REFUSED.format("change"), "not changed"),
        )
        for what, limit, unit in (
            ("subject", changes.SUBJECT_BYTES, "bytes"),
            ("reason", changes.REASON_BYTES, "bytes"),
            ("before, after", changes.VALUE_BYTES, "bytes of JSON"),
            ("tags", changes.TAGS, "tags"),
        )
    ),
    (
        "summary of a run: metrics",
        facts.SUMMARY_METRICS,
        FIXED,
        Words(
            "metrics",
            "run, its own summary entries beside them",
            "processor",
            "nothing; the first ones by name are in `summary` of the view `runs`",
            "all are in the view `metric_summary`",
        ),
    ),
    (
        "files of what ran: content",
        source_files.CONTENT_BYTES,
        FIXED,
        Words("bytes", "one patch, notebook or lock", "sdk, agent", CUT, "the digest is of the whole"),
    ),
    (
        "files of what ran: script",
        source_files.PART_BYTES,
        FIXED,
        Words("bytes", "the entry script", "sdk", CUT, "the digest is of the whole"),
    ),
    (
        "files of what ran: configuration",
        source.CONFIG_FILE_BYTES,
        FIXED,
        Words("bytes", "`run.save_config_file()`", "sdk", "a warning in the job", "not kept"),
    ),
    (
        "figures: arrays",
        figures.FIGURE_BYTES,
        FIXED,
        Words("bytes", "one figure, as JSON; of curves one class", "sdk", "a warning in the job", "not kept"),
    ),
    (
        "figures: points of a curve",
        counting.CURVE_POINTS,
        FIXED,
        Words("points", "one class", "sdk", "`thinned` of the view `curve_areas`", "the areas are of all points"),
    ),
    (
        "figures: image",
        pictures.IMAGE_BYTES,
        FIXED,
        Words("bytes", "one image or drawing", "sdk", "a warning in the job", "not kept"),
    ),
    (
        "figures: bins",
        figures.HISTOGRAM_BINS,
        FIXED,
        Words("bins", "one histogram", "sdk", "a warning in the job", "not kept"),
    ),
    (
        "latencies: names",
        latency.NAMES,
        FIXED,
        Words("names", "process", "sdk", "a warning in the job", "not counted"),
    ),
    (
        "untracked files: named",
        git.UNTRACKED_FILES,
        FIXED,
        Words("files", "repository", "agent", "a row of the view `files` that counts the rest", "not named"),
    ),
    (
        "untracked files: content of one",
        git.UNTRACKED_BYTES,
        FIXED,
        Words("bytes", "file", "agent", "`note` of the view `files`", "named, with its digest"),
    ),
    (
        "untracked files: content of all",
        git.UNTRACKED_TOTAL_BYTES,
        FIXED,
        Words("bytes", "repository", "agent", "`note` of the view `files`", "named, with its digest"),
    ),
    (
        "artifacts: metadata",
        artifacts.METADATA_BYTES,
        FIXED,
        Words("bytes", "one artifact, as JSON", "sdk", "a warning in the job", "not kept"),
    ),
    (
        "artifacts: files in the record",
        content.LISTED_BYTES,
        FIXED,
        Words("bytes", "one folder, as JSON", "agent", "no rows in the view `artifact_files`", "the manifest has them"),
    ),
    (
        "artifacts: uploads under way",
        uploads.AT_ONCE,
        FIXED,
        Words("uploads", "host", "agent", "nothing", "stays in the spool"),
    ),
    (
        "agent: Pushes under way",
        shipper.PUSHES,
        FIXED,
        Words("Pushes", "destination", "agent", "nothing", "stays in the spool"),
    ),
    (
        "agent: bytes of its first Push",
        shipper.FIRST_PUSH_BYTES,
        FIXED,
        Words("bytes", "destination", "agent", "nothing", "grows by a quarter with each Push that passes soon"),
    ),
    (
        "agent: least bytes of a Push",
        shipper.LEAST_PUSH_BYTES,
        FIXED,
        Words(
            "bytes",
            "destination",
            "agent",
            "halved down to this by each Push that has to travel again",
            "stays in the spool",
        ),
    ),
    (
        "agent: longest backoff",
        shipper.LAST_BACKOFF_S,
        FIXED,
        Words("s", "destination", "agent", "`run.stats().error`", "stays in the spool"),
    ),
    (
        "agent socket: line",
        link.LINE_BYTES,
        FIXED,
        Words("bytes", "one request", "agent", "the connection is closed", NO_DATA),
    ),
    (
        "pages: request",
        pages.HEAD_BYTES,
        FIXED,
        Words("bytes", "/metrics, /healthz, /readyz", "gateway, sink", "the connection is closed", NO_DATA),
    ),
    (
        "pages: time of a request",
        pages.REQUEST_S,
        FIXED,
        Words("s", "/metrics, /healthz, /readyz", "gateway, sink", "the connection is closed", NO_DATA),
    ),
    (
        "projects remembered",
        gateway.PROJECTS_REMEMBERED,
        FIXED,
        Words("projects", "one gateway", "gateway", "nothing", "the longest silent one has its whole burst again"),
    ),
    (
        "open runs remembered",
        runs.RUNS,
        FIXED,
        Words("runs", "one gateway", "gateway", "nothing", "the longest silent one is not counted"),
    ),
    (
        "metric names remembered",
        runs.NAMES,
        FIXED,
        Words("names", "one gateway", "gateway", "nothing", "names of the longest silent run are counted from 0 again"),
    ),
    (
        "a run is open for",
        runs.OPEN_S,
        FIXED,
        Words("s", "since something of it came", "gateway", "as `project_open_runs`", "none concerned"),
    ),
    (
        "local bus: a turn",
        fair.TURN_BYTES,
        FIXED,
        Words("bytes", "project", "local bus", "nothing: projects take turns", "waits"),
    ),
    ("local bus: a poll", local.POLL_BYTES, FIXED, Words("bytes", "sink", "local bus", "nothing", "waits")),
    (
        "sink: streams remembered",
        sink_store.REMEMBERED,
        FIXED,
        Words("streams", "one sink", "sink", "nothing", "the ledger is read again"),
    ),
    (
        "sink: rows of a flush",
        SinkSettings().flush_rows,
        FIXED,
        Words("rows", "one sink", "sink", "nothing: the bus waits", "waits on the bus"),
    ),
    (
        "sink: bytes of a flush",
        SinkSettings().flush_bytes,
        FIXED,
        Words("bytes", "one sink", "sink", "nothing: the bus waits", "waits on the bus"),
    ),
]

SERVICES: dict[str, Words] = {
    "bus_bytes": Words(
        "bytes", "`runtide up`", "local bus", "RESOURCE_EXHAUSTED with the delay, `the bus holds ...`", KEPT
    ),
    "sink_flood_records": Words(
        "records",
        "partition",
        "sink",
        "/readyz and `runtide status`",
        "the partition stops and waits for a person, where others write as well",
    ),
}


def table() -> list[str]:
    """Lines of Markdown, one for each limit."""
    return [HEAD, RULE, *_rows()]


def _rows() -> Iterator[str]:
    for field in fields(Limits):
        yield _row(f"`{field.name}`", field.default, LIMITS, GATEWAY[field.name])
    for name, words in WIRE.items():
        setting = "`RUNTIDE_SPOOL_MB`" if name == "SPOOL_BYTES" else FIXED
        yield _row(f"`{name.lower()}`", getattr(wire, name), setting, words)
    for name, default, setting, words in OTHER:
        yield _row(name, default, setting, words)
    for name, words in SERVICES.items():
        yield _row(f"`{name}`", _default(name), f"`RUNTIDE_{name.upper()}`", words)
    for query in fields(QueryLimits):
        yield _row(f"`{query.name}`", query.default, FIXED, EMBEDDED[query.name])


def _default(name: str) -> Any:
    section, _, inner = name.partition("_")
    kind: Any = Settings.model_fields[section].annotation if section in Settings.model_fields else None
    return (kind.model_fields[inner] if kind else Settings.model_fields[name]).default


def _row(name: str, default: object, setting: str, words: Words) -> str:
    shown = f"{default:,}" if isinstance(default, int) else f"{default:g}"  # type: ignore[str-format]
    return (
        f"| {name} | {shown} | {words.unit} | {setting} | {words.scope} | {words.where} | {words.sees} | {words.data} |"
    )
