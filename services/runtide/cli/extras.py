"""Which extra each command needs, checked before anything of it is imported."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

from runtide.wire.errors import MissingExtra


class Need(NamedTuple):
    """What a command cannot do without."""

    extra: str
    """As written between the brackets of `pip install 'runtide[...]'`."""
    modules: tuple[str, ...]
    """Modules that the extra brings."""


_CLI = ("typer", "rich", "pydantic_settings")
_WAREHOUSE = (*_CLI, "clickhouse_connect", "numpy", "pyarrow")
_INGEST = (*_WAREHOUSE, "aiokafka", "grpc_health", "grpc_reflection", "prometheus_client", "fsspec")
_EMBEDDED = (*_WAREHOUSE, "chdb", "starlette", "uvicorn", "lz4", "zstandard")
_DASHBOARD = (*_WAREHOUSE, "streamlit", "pandas")

_READING = Need("warehouse", _WAREHOUSE)
NEEDS: dict[str, Need] = {
    "up": Need("all", (*_INGEST, *_EMBEDDED, *_DASHBOARD)),
    "demo": Need("all,demo", (*_INGEST, *_EMBEDDED, *_DASHBOARD, "sklearn")),
    "chaos": Need("all", (*_INGEST, *_EMBEDDED, *_DASHBOARD)),
    "gateway": Need("gateway", _INGEST),
    "token": Need("gateway", _INGEST),
    "sink": Need("gateway", (*_WAREHOUSE, "aiokafka")),
    "processor": Need("processor", (*_WAREHOUSE, "faust")),
    "dashboard": Need("dashboard", _DASHBOARD),
    "clickhouse": Need("embedded", _EMBEDDED),
    "canary": Need("gateway", (*_WAREHOUSE, "prometheus_client")),
    **dict.fromkeys(("compare", "leaderboard", "export", "duplicates", "explored", "reproduce", "kpi"), _READING),
    **dict.fromkeys(("costs", "prices", "artifact", "audit", "tag", "note", "comment", "rename"), _READING),
    **dict.fromkeys(("delete", "restore", "experiment"), _READING),
    **dict.fromkeys(("migrate", "rebuild", "runs", "show", "tail", "sql", "verify", "dead-letters"), _READING),
}
"""Commands that are not here (down, status, --help) need the command line only."""

_ANY = Need("all", _CLI)


def check_extra(command: str) -> None:
    """Raise MissingExtra, naming the extra, where a module that the command needs is not installed."""
    need = NEEDS.get(command, _ANY)
    if any(find_spec(module) is None for module in need.modules):
        raise MissingExtra(f"runtide {command}".rstrip(), need.extra)
