"""Settings that a request brings in its URL: the front's own, the engine's, and those that a stranger cannot set.

Ceilings are clamped, not refused: a client that asks for 300 seconds gets the 60 that there are, and a query that needs
more is told so by the engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from runtide.embedded.errors import BAD_ARGUMENTS, SETTING_CONSTRAINT_VIOLATION, ServerError
from runtide.embedded.limits import QueryLimits

# Parameters of the HTTP interface that are no settings, and settings of a server's HTTP layer, which is this front.
NOT_FOR_ENGINE = frozenset(
    {
        "query",
        "database",
        "user",
        "password",
        "quota_key",
        "query_id",
        "session_id",
        "session_timeout",
        "session_check",
        "close_session",
        "default_format",
        "compress",
        "decompress",
        "role",
        "stacktrace",
        "buffer_size",
        "wait_end_of_query",
        "client_protocol_version",
        "enable_http_compression",
        "http_zlib_compression_level",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "add_http_cors_header",
        "cancel_http_readonly_queries_on_client_close",
        "http_wait_end_of_query",
        "http_response_buffer_size",
        "http_write_exception_in_output_format",
        "http_native_compression_disable_checksumming_on_decompress",
        "http_receive_timeout",
        "http_send_timeout",
        "log_comment",
        "receive_timeout",
        "send_timeout",
        "connect_timeout",
    }
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# What would lift a limit, change the language under the lexer, or read files by way of a format.
_NOT_FOR_READERS = re.compile(
    r"(readonly|profile|compatibility|dialect|workload|priority|os_thread_priority|param_.*|allow_ddl|allow_introspection.*"
    r"|allow_experimental_(kusto|prql|polyglot|ai).*|allow_.*_ai_.*|ai_.*|implicit_.*|format_template_.*|format_schema.*"
    r"|.*overflow_mode.*|max_untracked_memory|memory_.*|.*memory_usage.*|memory.*|max_temporary_.*|max_estimated_.*"
    r"|timeout_.*|.*_profiler_.*|log_.*|s3_.*|url_.*|hdfs_.*|remote_.*|.*filesystem_cache.*|storage_file_.*|backup_.*"
    r"|.*async_insert.*|max_concurrent_.*|max_.*_for_user)\Z"
)

ENGINE = {
    # With it the planner of ClickHouse 26.9 turns in circles, and gives up with code 572, on `SELECT f(a) AS x, g(a)
    # FROM a_view ORDER BY x`. Without it functions are computed before sorting, which costs something under a LIMIT.
    "query_plan_execute_functions_after_sorting": "0",
    # On in the embedded engine, off in a server: they tell paths of the machine.
    "allow_introspection_functions": "0",
}
"""What every query runs with that does not ask for something else."""


def _ceilings(limits: QueryLimits) -> dict[str, int]:
    return {
        "max_execution_time": limits.max_execution_time_s,
        "max_memory_usage": limits.max_memory_bytes,
        "max_rows_to_read": limits.max_rows_to_read,
        "max_bytes_to_read": limits.max_bytes_to_read,
        "max_result_rows": limits.max_result_rows,
        "max_result_bytes": limits.max_result_bytes,
        "max_threads": 64,
    }


_REQUIRED = ("read_overflow_mode", "result_overflow_mode", "timeout_overflow_mode")


def from_parameters(parameters: Mapping[str, str]) -> dict[str, str]:
    """The settings among a request's URL parameters, for the engine to judge.

    Raises: ServerError for a name that cannot be a setting.
    """
    chosen = {}
    for name, value in parameters.items():
        if name in NOT_FOR_ENGINE or name.startswith(("param_", "http_")):
            continue
        if not _NAME.match(name):
            raise ServerError(BAD_ARGUMENTS, f"{name!r} is neither a parameter nor the name of a setting")
        chosen[name] = value
    return chosen


def for_reader(asked: Mapping[str, str], limits: QueryLimits) -> dict[str, str]:
    """What a read-only query runs with: what was asked, never above the ceilings.

    Raises: ServerError for a setting that would lift a limit.
    """
    ceilings = _ceilings(limits)
    settings: dict[str, str] = {}
    for name, value in asked.items():
        if name in ceilings:
            continue
        if _NOT_FOR_READERS.match(name):
            if (name in _REQUIRED and value == "throw") or (name == "readonly" and value in ("1", "2")):
                continue
            raise ServerError(
                SETTING_CONSTRAINT_VIOLATION, f"Setting {name} should not be changed by the read-only user."
            )
        settings[name] = value
    for name, ceiling in ceilings.items():
        if name == "max_threads" and name not in asked:
            continue
        settings[name] = str(_lower(name, asked.get(name, "0"), ceiling))
    settings.update(dict.fromkeys(_REQUIRED, "throw"))
    return settings


def _lower(name: str, asked: str, ceiling: int) -> float | int:
    """The smaller of what is asked and the ceiling; 0 means no limit, so it is the ceiling."""
    try:
        value = float(asked)
    except ValueError:
        raise ServerError(BAD_ARGUMENTS, f"Setting {name} is {asked!r}, which is not a number") from None
    if not 0 < value < ceiling:
        return ceiling
    return int(value) if value == int(value) else value


def set_statement(settings: Mapping[str, str]) -> str:
    """One SET statement; every value is written as a string, which the engine reads as the setting's type."""
    pairs = (f"{name} = '{_escape(value)}'" for name, value in settings.items())
    return "SET " + ", ".join(pairs)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")
