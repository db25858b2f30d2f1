"""What `import runtide` offers to a training job."""

from __future__ import annotations

import datetime
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from runtide.sdk import kpis
from runtide.sdk import process as processes
from runtide.sdk.latency import Timer
from runtide.sdk.notice import Once, strict
from runtide.sdk.opening import open_run
from runtide.sdk.run import Run
from runtide.sdk.settings import settings
from runtide.wire.errors import RuntideError

_process = processes.make()
_once = Once()


class NoRun(RuntideError):
    """There is no open run; init() makes one. Raised in strict mode only."""

    code = "no_run"


def init(
    project: str | None = None,
    *,
    experiment: str | None = None,
    name: str | None = None,
    config: object = None,
    tags: Iterable[str] | str | None = None,
    notes: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    run_id: str | None = None,
    resume: Literal["never", "allow", "must", "auto"] | bool = "never",
    resume_from: str | None = None,
    mode: Literal["online", "offline", "disabled"] | None = None,
    dir: str | os.PathLike[str] | None = None,  # noqa: A002  the name that users know
    url: str | None = None,
    token: str | None = None,
    capture_console: bool | None = None,
    on_duplicate: Literal["warn", "ask", "skip", "attach", "ignore"] | None = None,
) -> Run:
    """Open a run and make it the current one. Arguments win over RUNTIDE_* variables.

    All ranks of one job join one run by themselves. With no gateway at `url` everything waits in the spool `dir`.
    `resume`: "never" makes a new run where the id is that of an ended one, "allow" continues it, "must" insists that
    it is there, "auto" continues what this script left unfinished in this folder. `resume_from="RUN?step=T"` continues
    RUN and hides what it had after step T. Steps that log() is not given go on after the last one that stays.

    `on_duplicate`: what to do where a run of the same code and `config` is known: "warn" names it with its result and
    cost, "ask" asks at the terminal, "skip" ends the script with exit code 0 (DuplicateRun), "attach" goes on with that
    run as another attempt, "ignore" does not ask. Runs that differ in one or two keys are named too.

    Blocks for at most 2.5 s, and only where the gateway has to be asked about an id or, for at most 0.9 s unless
    told to skip, attach or ask, about duplicates. Raises BadInput for arguments that cannot be, NoSuchRun for
    resume="must" or resume_from of a run that is not there, DuplicateRun as said.
    """
    told = settings(
        os.environ,
        project=project,
        experiment=experiment,
        name=name,
        tags=tags,
        notes=notes,
        group=group,
        job_type=job_type,
        run_id=run_id,
        resume=resume,
        resume_from=resume_from,
        mode=mode,
        dir=dir,
        url=url,
        token=token,
        capture_console=capture_console,
        on_duplicate=on_duplicate,
    )
    return open_run(_process, told, config)


def current() -> Run | None:
    """The run that was opened last and is still open: what `runtide.run` gives."""
    return _process.current


def log(
    data: Mapping[str, Any],
    step: int | None = None,
    commit: bool = True,
    timestamp: float | datetime.datetime | None = None,
) -> None:
    """Log to the current run; see `Run.log`."""
    run = _process.current
    if run is None:
        _no_run("log")
    else:
        run.log(data, step, commit, timestamp)


def mark(text: str, step: int | None = None) -> None:
    """Note a moment in the current run."""
    run = _process.current
    if run is None:
        _no_run("mark")
    else:
        run.mark(text, step)


def log_kpi(
    subject: str | Run,
    name: str,
    value: float,
    time: kpis.Time | None = None,
    unit: str | None = None,
    goal: kpis.Goal | None = None,
    project: str | None = None,
) -> None:
    """Say a business figure of a run or a model version, however long that is over; no run need be open.

    `subject` is a run, "run:ID" or "model:NAME@VERSION". `time` is when the figure was true: seconds since the epoch, a
    date or time, or a text of ISO 8601, in UTC unless it says otherwise; now without it. Of one subject, name and time
    the value that is said last counts. `goal` is "min", "max" or the value to reach. It goes to `project`, else that
    of the current run, else RUNTIDE_PROJECT.
    """
    run = subject if isinstance(subject, Run) else _process.current
    kpis.books.guarded(project, None if run is None else run.settings, subject, name, value, time, unit, goal)


def latency(name: str) -> Timer:
    """Time a `with` block for the current run; see `Run.latency`."""
    return Timer(lambda seconds: of_run("log_latency")(name, seconds))


def of_run(name: str) -> Callable[..., Any]:
    """The function of the current run's method `name`; without a run it says so and does nothing."""
    method = getattr(Run, name)

    @functools.wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        run = _process.current
        return _no_run(name) if run is None else getattr(run, name)(*arguments, **named)

    return call


def finish(exit_code: int = 0, timeout: float | None = None) -> None:
    """End the current run; without one it does nothing."""
    run = _process.current
    if run is not None:
        run.finish(exit_code, timeout)


def _no_run(name: str) -> None:
    text = f"runtide.{name}() was called without a run; call runtide.init() before it"
    if strict():
        raise NoRun(text)
    _once.say(name, text)
