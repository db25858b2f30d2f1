"""Streaming experiment tracking. What a training job uses is here; see `runtide.init`.

Everything is loaded at its first use, so that importing runtide costs next to nothing, and never loads gRPC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from runtide.api import Api as Api
    from runtide.sdk.api import finish, init, latency, log, log_kpi, mark
    from runtide.sdk.duplicates import DuplicateRun
    from runtide.sdk.run import Run

    run: Run | None

_METHODS = (
    "define_metric",
    "log_calibration",
    "log_artifact",
    "log_checkpoint",
    "log_confusion_matrix",
    "log_figure",
    "log_histogram",
    "log_image",
    "log_latency",
    "log_precision_recall",
    "log_roc",
    "log_table",
    "use_dataset",
    "use_artifact",
)
"""Methods of the run that are functions here too, for the current run."""

__all__ = [
    "DuplicateRun",
    "Run",
    "__version__",
    "config",
    "finish",
    "init",
    "latency",
    "log",
    "log_kpi",
    "mark",
    "run",
    "summary",
    *_METHODS,
]

_FUNCTIONS = frozenset({"finish", "init", "latency", "log", "log_kpi", "mark"})
_OF_THE_RUN = frozenset({"config", "summary"})


def __getattr__(name: str) -> Any:
    if name == "Api":
        globals()[name] = made = _reader()
        return made
    if name == "Run":
        from runtide.sdk.run import Run

        globals()[name] = Run
        return Run
    if name == "DuplicateRun":
        from runtide.sdk.duplicates import DuplicateRun

        globals()[name] = DuplicateRun
        return DuplicateRun
    if name in _FUNCTIONS or name in _METHODS or name == "run" or name in _OF_THE_RUN:
        from runtide.sdk import api

        if name in _METHODS:
            method = globals()[name] = api.of_run(name)
            return method
        if name in _FUNCTIONS:
            found = globals()[name] = getattr(api, name)
            return found
        current = api.current()  # asked every time: it changes with init() and finish()
        if name == "run" or current is None:
            return current
        return getattr(current, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _reader() -> Any:
    """The class that reads; not in __all__, since a job's installation need not have what it needs."""
    from importlib.util import find_spec

    if any(find_spec(module) is None for module in ("clickhouse_connect", "numpy", "pyarrow")):
        from runtide.wire.errors import MissingExtra

        raise MissingExtra("runtide.Api", "api")
    from runtide.api import Api

    return Api


def __dir__() -> list[str]:
    return sorted(__all__)
