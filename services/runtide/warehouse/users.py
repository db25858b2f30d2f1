"""Users of a ClickHouse server, one for each part, with no more than it needs: printed as SQL, run by an administrator.

Every user is made without a way to sign in (HOST NONE); the last lines say how to give one, so that no password passes
through here. Every statement can be repeated. The embedded ClickHouse has users of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

RAW = (
    "points",
    "samples",
    "log_lines",
    "figures",
    "events",
    "ledger",
    "dead_letters",
    "dead_letter_fates",
    "audit_rows",
)
"""Written by the sink."""
DERIVED = (
    "coverage",
    "attempt_rows",
    "attempt_bounds",
    "series_tiers",
    "metric_summary_rows",
    "step_stats_shards",
    "sample_windows",
    "run_rows",
)
"""Written by the processor."""
VIEWS = (
    "runs",
    "metrics",
    "metric_summary",
    "step_stats",
    "resources",
    "logs",
    "streams",
    "attempts",
    "dead_letter_rulings",
    "environments",
    "files",
    "fingerprints",
    "confusion_matrices",
    "curves",
    "curve_areas",
    "histograms",
    "images",
    "metric_definitions",
    "run_metrics",
    "duplicates",
    "explored",
    "completeness",
    "dataset_uses",
    "datasets",
    "kpis",
    "calibrations",
    "audit",
    "run_changes",
    "deleted_runs",
    "comments",
    "claims",
    "saved_views",
    "costs",
    "run_costs",
    "artifact_words",
    "artifacts",
    "artifact_files",
    "artifact_uses",
    "experiment_runs",
    "experiments",
    "experiment_dependencies",
)
KEPT = ("price_rows",)
"""Written by an administrator, as `runtide migrate` is run by one."""
GATEWAY = (
    *("ledger", "events", "points", "runs", "run_rows", "run_changes", "audit_rows"),
    *("fingerprints", "run_metrics", "metric_summary", "metric_summary_rows", "metric_definitions"),
)
"""What Preflight and Status ask, and what the views among it read."""
PARTS = ("gateway", "sink", "processor", "dashboard")

_LIMITS = """CREATE SETTINGS PROFILE IF NOT EXISTS runtide_{name} SETTINGS {settings}"""
_READING = (
    "readonly = 2 CONST",  # clients may choose formats and lower limits, and nothing may be written
    "max_execution_time = 60 MAX 60",
    "max_memory_usage = 4000000000 MAX 4000000000",
    "max_rows_to_read = 5000000000 MAX 5000000000",
    "max_result_rows = 100000000 MAX 100000000",
    "max_concurrent_queries_for_user = 32 CONST",
)
_WRITING = (
    "max_execution_time = 300 MAX 300",
    "max_memory_usage = 8000000000 MAX 8000000000",
)


def statements(projects: Iterable[str] = ()) -> list[str]:
    """All statements, and for each of `projects` a reader of it alone."""
    return [*_profiles(), *_roles(), *_users(PARTS), *_policies(), *_readers(projects)]


def script(projects: Iterable[str] = ()) -> str:
    """The statements as a file, with what is left to do as comments."""
    wanted = list(projects)
    names = [f"runtide_{part}" for part in PARTS] + [reader_of(project) for project in wanted]
    left = [f"-- ALTER USER {name} IDENTIFIED WITH sha256_password BY '...' HOST ANY;" for name in names]
    head = [
        "-- Users of runtide. Run it as a user that may manage access, after `runtide migrate`; it may be run again.",
        "-- Nobody can sign in as one of them until you give each a password:",
        *left,
    ]
    return "\n".join(head) + "\n\n" + "".join(f"{statement};\n" for statement in statements(wanted))


def reader_of(project: str) -> str:
    """Name of the user that reads one project."""
    return f"runtide_reader_{hashlib.sha256(project.encode()).hexdigest()[:12]}"


def _profiles() -> Iterator[str]:
    for name, settings in (("reading", _READING), ("writing", _WRITING)):
        yield _LIMITS.format(name=name, settings=", ".join(settings))


def _roles() -> Iterator[str]:
    for part in PARTS:
        yield f"CREATE ROLE IF NOT EXISTS runtide_{part}_role"
    yield _grant("SELECT", GATEWAY, "gateway")
    for right in ("SELECT", "INSERT"):
        yield _grant(right, RAW, "sink")
    yield "GRANT SELECT(query_id, query_kind) ON system.processes TO runtide_sink_role"
    yield _grant("SELECT", (*RAW, *DERIVED, *KEPT, *VIEWS), "processor")
    yield _grant("INSERT", DERIVED, "processor")
    yield "GRANT ALTER DELETE ON runtide.attempt_bounds TO runtide_processor_role"
    yield _grant("SELECT", (*RAW, *DERIVED, *KEPT, *VIEWS), "dashboard")


def _grant(right: str, tables: Iterable[str], part: str) -> str:
    """One right on many tables in one statement: it is there for all of them or for none."""
    return "GRANT " + ", ".join(f"{right} ON runtide.{table}" for table in tables) + f" TO runtide_{part}_role"


def _users(parts: Iterable[str]) -> Iterator[str]:
    for part in parts:
        profile = "writing" if part in {"sink", "processor"} else "reading"
        yield _user(f"runtide_{part}", f"runtide_{part}_role", profile)


def _user(name: str, role: str, profile: str) -> str:
    return (
        f"CREATE USER IF NOT EXISTS {name} IDENTIFIED WITH no_password HOST NONE "
        f"DEFAULT DATABASE runtide SETTINGS PROFILE 'runtide_{profile}';\nGRANT {role} TO {name}"
    )


def _policies() -> Iterator[str]:
    """The parts see every row. Said out loud, since a policy for a reader may hide all rows from who has none."""
    everybody = ", ".join(f"runtide_{part}" for part in PARTS)
    yield f"CREATE ROW POLICY IF NOT EXISTS runtide_all ON runtide.* USING 1 TO {everybody}"
    for table in KEPT:  # prices are those of all projects, and their readers see them too
        yield f"CREATE ROW POLICY IF NOT EXISTS runtide_{table} ON runtide.{table} USING 1 TO runtide_dashboard_role"


def _readers(projects: Iterable[str]) -> Iterator[str]:
    for project in projects:
        name = reader_of(project)
        quoted = project.replace("\\", "\\\\").replace("'", "\\'")
        yield _user(name, "runtide_dashboard_role", "reading")
        yield f"CREATE ROW POLICY IF NOT EXISTS {name} ON runtide.* USING project = '{quoted}' TO {name}"
