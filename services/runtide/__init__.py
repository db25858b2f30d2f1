"""Streaming experiment tracking. What a training job uses is here; see `runtide.init`.

Everything is loaded at its first use, so that importing runtide costs next to nothing, and never loads gRPC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from runtide.sdk.api import finish, init, log, mark
    from runtide.sdk.run import Run

    run: Run | None

_METHODS = (
    "define_metric",
    "log_artifact",
    "log_checkpoint",
    "log_confusion_matrix",
    "log_figure",
    "log_histogram",
    "log_image",
    "log_precision_recall",
    "log_roc",
    "log_table",
    "use_artifact",
)
"""Methods of the run that are functions here too, for the current run."""

__all__ = ["Run", "__version__", "config", "finish", "init", "log", "mark", "run", "summary", *_METHODS]

_FUNCTIONS = frozenset({"finish", "init", "log", "mark"})
_OF_THE_RUN = frozenset({"config", "summary"})


def __getattr__(name: str) -> Any:
    if name == "Run":
        from runtide.sdk.run import Run

        globals()[name] = Run
        return Run
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


def __dir__() -> list[str]:
    return sorted(__all__)
