"""A run as the job sees it. Nothing here raises into the job, but for BadInput under RUNTIDE_STRICT=1."""

from __future__ import annotations

import dataclasses
import datetime
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from runtide.sdk import kpis, source, values
from runtide.sdk.artifacts import Artifacts, LoggedArtifact
from runtide.sdk.datasets import Datasets
from runtide.sdk.delivery import Arrival, Delivery
from runtide.sdk.figures import Figures
from runtide.sdk.latency import Latencies, Latency
from runtide.sdk.leaving import Leaving
from runtide.sdk.masking import mask
from runtide.sdk.notice import Once, say, strict
from runtide.sdk.phase import Phase
from runtide.sdk.settings import OFFLINE, ONLINE, Settings
from runtide.sdk.stats import Stats, position_of, stats
from runtide.sdk.stream import Stream, as_step
from runtide.sdk.tree import Tree
from runtide.sdk.what_ran import WhatRan
from runtide.spool.writer import Worth
from runtide.v1.records_pb2 import Alert, ConfigSet, Entry, Gap, Mark, MetricDefined, Record, StreamClosed, SummarySet
from runtide.wire import limits
from runtide.wire.errors import BadInput

FINISH_SECONDS = 10.0
SUMMARIES = ("best", "last", "mean", "min", "max")
_LOCK_SECONDS = 2.0
_REASON_CHARS = 1000
_ENTRIES_BYTES = limits.RECORD_BYTES // 2
Opener = Callable[[bool], Stream | None]
"""Opens a stream of the run for this process; True for a forked child. None where the disk does not allow it."""


class Run(Figures, Datasets, Latencies, Artifacts):
    """One training job's run, from this process. Made by `runtide.init`."""

    def __init__(
        self,
        settings: Settings,
        *,
        run_id: str,
        rank: int,
        attempt: int,
        opener: Opener,
        delivery: Delivery | None,
        on_finish: Callable[[Run, Leaving], None],
        signal_seen: Callable[[], str] = str,
        config: object = None,
        what_ran: WhatRan | None = None,
    ) -> None:
        """`delivery` is None where there is no way to a gateway; in mode disabled `opener` is never called.

        `what_ran` is that of the first process of the run; the others have none.
        """
        self._id, self._rank, self._attempt = run_id, rank, attempt
        self._settings = settings
        self._refused = 0
        self._first_refusal = ""
        self._disabled = settings.mode not in (ONLINE, OFFLINE)
        self._opener, self._delivery, self._on_finish = opener, delivery, on_finish
        self._signal_seen = signal_seen
        self._once = Once()
        self._names: set[str] = set()
        """Metric names so far: a job that makes up new ones in every step must not fill the store with them."""
        self._datasets: set[tuple[str, ...]] = set()
        self._latencies: dict[str, Latency] = {}
        self._latency_lock = threading.RLock()
        self._gathered: dict[str, float] = {}
        self._gathered_step: int | None = None
        self._lock = threading.RLock()
        self._phases: list[Phase] = []
        self._uploads: list[LoggedArtifact] = []
        self._finished = False
        self._child = False
        self._forked_at = 0
        self._children_told = mmap.mmap(-1, 1)
        """Shared with forked children: whether one has told the user of their steps."""
        self._stream: Stream | None = None if self._disabled else opener(False)
        self._failed = not self._disabled and self._stream is None
        self._config = Tree(self._config_set, ".")
        self._summary = Tree(self._summary_set, "/")
        if config is not None:
            self._guard(self._config.update, config)
        self._what_ran = what_ran if self._stream is not None else None
        if self._what_ran is not None:
            self._guard(self._say_what_ran)
            self._guard(self._what_ran.watch, lambda: self._guard(self._say_what_ran))

    @property
    def id(self) -> str:
        """The run's id, unique within its project."""
        return self._id

    @property
    def run_id(self) -> str:
        """The run's id by the name that init(), the tables and RUNTIDE_RUN_ID have for it; the same as `id`."""
        return self._id

    @property
    def name(self) -> str:
        """The run's name; its id where none was given."""
        return self._settings.name or self._id

    @property
    def project(self) -> str:
        """The project that was asked for; where it is empty the token decides."""
        return self._settings.project

    @property
    def experiment(self) -> str:
        """The group of runs that this one belongs to; empty for none."""
        return self._settings.experiment

    @property
    def rank(self) -> int:
        """The rank of this process in its job, from 0."""
        return self._rank

    @property
    def attempt(self) -> int:
        """Which start of the run this is, from 1."""
        return self._attempt

    @property
    def mode(self) -> str:
        """The mode: online, offline or disabled."""
        return self._settings.mode

    @property
    def url(self) -> str:
        """Address of the gateway that the run goes to; empty where none was told."""
        return self._settings.url

    @property
    def settings(self) -> Settings:
        """What init() was told."""
        return self._settings

    @property
    def config(self) -> Tree:
        """The configuration: set by item, by attribute or with update()."""
        return self._config

    @property
    def summary(self) -> Tree:
        """Figures that stand for the run as a whole."""
        return self._summary

    @property
    def dir(self) -> Path:
        """The spool root that the run writes to."""
        return self._settings.root

    @property
    def refused(self) -> int:
        """Values and other things said that were refused, each kind with one warning."""
        return self._refused

    @property
    def finished(self) -> bool:
        """Whether finish() was called, or the process is ending."""
        return self._finished

    @property
    def stream(self) -> str:
        """The id of this process's stream; empty while there is none."""
        return self._stream.name if self._stream else ""

    def log(
        self,
        data: Mapping[str, Any],
        step: int | None = None,
        commit: bool = True,
        timestamp: float | datetime.datetime | None = None,
    ) -> None:
        """Log metric values. When it returns they survive a kill of this process.

        Nested dictionaries are joined with "/". Without a step, the last one plus 1, beginning with 0, or after the
        last step of the run that was resumed; a forked child counts on from its parent. With `commit=False` values
        gather until the next log() that commits. Blocks for the local disk only.
        """
        try:
            stream = self._stream
            if (
                stream is not None
                and commit
                and timestamp is None
                and not self._gathered
                and stream.log_known(data, step)
            ):
                return
            self._log(data, step, commit, timestamp)
        except Exception as error:
            self._blame("log", error)

    def mark(self, text: str, step: int | None = None) -> None:
        """Note a moment."""
        self._guard(self._mark, text, step)

    def phase(self, name: str) -> Phase:
        """Begin a timed span. It ends with its `with` block, with .end(), or when the next plain phase begins."""
        if self._phases and not self._phases[-1].nested:
            self._phases[-1].end()
        phase = Phase(name, self._span)
        self._phases.append(phase)
        return phase

    def alert(
        self, title: str, text: str = "", level: Literal["info", "warn", "error"] = "info", step: int | None = None
    ) -> None:
        """Raise an alert that the pages show."""
        self._guard(self._alert, title, text, level, step)

    def log_kpi(
        self,
        name: str,
        value: float,
        time: kpis.Time | None = None,
        unit: str | None = None,
        goal: kpis.Goal | None = None,
    ) -> None:
        """Say a business figure of this run; see `runtide.log_kpi`. The run may have finished."""
        kpis.books.guarded(None, self._settings, f"run:{self._id}", name, value, time, unit, goal)

    def define_metric(
        self,
        name: str,
        goal: Literal["min", "max"] | None = None,
        x: str | None = None,
        summary: Literal["best", "last", "mean", "min", "max"] | None = None,
    ) -> None:
        """Say what a metric is for: whether less or more is better, which metric it is drawn over instead of the step.

        `summary` is the value that stands for the run: the best where there is a goal, else the last, unless said here.
        The later definition of a metric counts.
        """
        self._guard(self._define_metric, name, goal, x, summary)

    def save_config_file(self, path: str | os.PathLike[str]) -> None:
        """Keep a configuration file with the run, secrets masked; saved again, the later content counts.

        It has at most 1 MiB. Only rank 0 says it, since the file is the same for all.
        """
        self._guard(self._save_config_file, path)

    def stats(self) -> Stats:
        """Say how far this process's stream has come."""
        found = stats(self._stream.writer) if self._stream else Stats()
        return dataclasses.replace(found, refused=self._refused)

    def wait_stored(self, timeout: float = 30.0) -> bool:
        """Wait until everything said so far is in ClickHouse. False: not in time, or there is no way there."""
        stream = self._stream
        if stream is None:
            return self._disabled
        self._guard(self._flush_gathered)
        if self._delivery is None:
            return position_of(stream.writer).stored >= stream.writer.offset
        return self._delivery.stored(stream, timeout)

    def finish(self, exit_code: int = 0, timeout: float | None = None) -> None:
        """End the run in this process: say the last word and wait a bounded time until a gateway has everything.

        Offline, or where no gateway can be reached, it returns at once; what is local is sent later.
        """
        self._finish(Leaving(exit_code, "finish", self._signal_seen()), FINISH_SECONDS if timeout is None else timeout)

    def _leave(self, leaving: Leaving, timeout: float = FINISH_SECONDS) -> None:
        """End the run because the process ends."""
        self._finish(leaving, timeout)

    def _keep(self, record: Record, worth: Worth = Worth.LINE) -> None:
        """Append a console line; silently, since a warning would be one more line."""
        stream = self._stream
        if stream is not None and not self._finished:
            try:
                stream.say(record, worth)
            except (BadInput, OSError):
                self._refused += 1

    def _after_fork(self) -> None:
        """In a forked child: the stream is the parent's, so let go of it. What is said next opens a new one."""
        if self._stream is not None:
            self._stream.writer.forget()
            self._forked_at = self._stream.next_step
        self._stream = None
        self._lock, self._latency_lock = threading.RLock(), threading.RLock()
        self._gathered, self._gathered_step = {}, None
        self._latencies = {}
        self._phases = []
        self._uploads = []
        self._refused, self._first_refusal = 0, ""
        self._delivery = None
        self._child = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, SystemExit):
            code = error.code
            self.finish(code if isinstance(code, int) else 0 if code is None else 1)
        elif kind is None:
            self.finish(0)
        else:
            self._leave(Leaving(1, "exception"))

    def __repr__(self) -> str:
        return f"<Run {self.id} of project {self.project or 'default'}, rank {self.rank}, {self.mode}>"

    def _log(
        self, data: Mapping[str, Any], step: int | None, commit: bool, timestamp: float | datetime.datetime | None
    ) -> None:
        if self._disabled:
            return
        at = None if step is None else as_step(step)
        time_us = _time_us(timestamp)
        found = self._numbers(data)
        with self._lock:
            if self._gathered and at is not None and at != self._gathered_step and self._gathered_step is not None:
                self._flush_gathered()
            self._gathered.update(found)
            if at is not None:
                self._gathered_step = at
            if commit:
                self._flush_gathered(time_us)

    def _numbers(self, data: Mapping[str, Any]) -> dict[str, float]:
        if (mapping := values.as_mapping(data)) is None:
            raise BadInput("data", f"of type {type(data).__name__}", "log() takes a dictionary of names and numbers")
        found: dict[str, float] = {}
        for name, value in values.flatten(mapping, "/"):
            if problem := values.name_problem("a metric", name):
                self._refuse(f"name {name!r:.80}", problem)
                continue
            if name not in self._names and len(self._names) >= limits.RUN_METRIC_NAMES:
                many = f"a run has at most {limits.RUN_METRIC_NAMES} metric names (run_metric_names)"
                self._refuse("names", BadInput(f"metric {name[:60]!r}", "under one name more", many))
                continue
            try:
                found[name] = values.number(value)
                self._names.add(name)
            except values.NotANumber as error:
                if values.as_mapping(value):
                    deep = BadInput(
                        f"metric {name[:60]!r}...", "nested deeper", f"{values.MAX_DEPTH} levels are joined"
                    )
                    self._refuse("depth", deep)
                    continue
                self._refuse(f"value {name}", BadInput(f"metric {name!r}", str(error), error.limit))
        return found

    def _flush_gathered(self, time_us: int = 0) -> None:
        with self._lock:
            found, step = self._gathered, self._gathered_step
            self._gathered, self._gathered_step = {}, None
            if found and (stream := self._out()) is not None:
                if self._child and step is None:
                    self._tell_of_children()
                stream.log(list(found), list(found.values()), step, time_us or time.time_ns() // 1000)

    def _out(self) -> Stream | None:
        """This process's stream, opened now in a forked child."""
        if self._stream is None and not self._disabled:
            if self._failed:
                self._refuse("spool", BadInput("the spool", "not to be written to", "what is logged is kept there"))
                return None
            if self._finished:
                self._refuse("finished", BadInput("the run", "finished", "only a run that goes on takes more"))
                return None
            with self._lock:
                if self._stream is None:
                    self._stream = self._opener(self._child)
                    self._failed = self._stream is None
                if self._stream is not None:
                    self._stream.next_step = self._forked_at
                    self._leave_with_worker()
        if self._stream is not None and self._finished:
            self._refuse("finished", BadInput("the run", "finished", "only a run that goes on takes more"))
            return None
        return self._stream

    def _leave_with_worker(self) -> None:
        """Say the last word when a worker of multiprocessing ends: it runs no exit hooks but its own."""

        def leave() -> None:
            error = sys.exc_info()[1]
            self._leave(Leaving() if error is None or isinstance(error, SystemExit) else Leaving(1, "exception"))

        if (util := sys.modules.get("multiprocessing.util")) is not None:
            util.Finalize(None, leave, exitpriority=0)

    def _tell_of_children(self) -> None:
        if not self._children_told[0]:
            self._children_told[0] = 1
            say(
                "forked children log without step=, so each counts on from its parent's last step; of values with one "
                "metric, rank and step only one counts in summaries and charts, so give log() a step there"
            )

    def _last_step(self) -> int:
        """The step that a figure belongs to when none is said."""
        stream = self._stream
        return max(0, stream.next_step - 1) if stream is not None else self._forked_at

    def _step_now(self) -> int | None:
        stream = self._stream
        found = stream.next_step if stream is not None else self._forked_at
        return found - 1 if found > 0 else None

    def _log_beside(self, metrics: dict[str, float], step: int) -> None:
        found = self._numbers(metrics)
        if found and (stream := self._out()) is not None:
            stream.log(list(found), list(found.values()), step, time.time_ns() // 1000, moves=False)

    def _sum_up(self, figures: dict[str, float]) -> None:
        if not self._child:
            self._summary.update(figures)

    def _say(self, record: Record) -> None:
        stream = self._out()
        if stream is not None:
            stream.say(record)

    def _mark(self, text: str, step: int | None) -> None:
        mark = Mark(time_us=time.time_ns() // 1000, text=_utf8(text))
        if step is not None:
            mark.step = as_step(step)
        self._say(Record(mark=mark))

    def _alert(self, title: str, text: str, level: str, step: int | None) -> None:
        if level not in {"info", "warn", "error"}:
            raise BadInput("level", repr(level), "it is info, warn or error")
        alert = Alert(time_us=time.time_ns() // 1000, title=_utf8(title), text=_utf8(text), level=level)
        if step is not None:
            alert.step = as_step(step)
        self._say(Record(alert=alert))

    def _define_metric(self, name: str, goal: str | None, x: str | None, summary: str | None) -> None:
        for field, value, allowed in (("goal", goal, ("min", "max")), ("summary", summary, SUMMARIES)):
            if value is not None and value not in allowed:
                raise BadInput(field, repr(value)[:80], f"it is one of {', '.join(allowed)}")
        if summary == "best" and goal is None:
            raise BadInput("summary", "'best'", "that needs goal='min' or goal='max'")
        for each in (name,) if x is None else (name, x):
            if problem := values.name_problem("a metric", each):
                raise problem
        said = summary or ("best" if goal else "last")
        time_us = time.time_ns() // 1000
        defined = MetricDefined(time_us=time_us, name=name, goal=goal or "", x=x or "", summary=said)
        self._say(Record(metric_defined=defined))

    def _span(self, phase: Phase) -> None:
        if phase in self._phases:
            self._phases.remove(phase)
        mark = Mark(time_us=phase.started_us, text=_utf8(phase.name), duration_us=phase.duration_us)
        self._guard(self._say, Record(mark=mark))

    def _save_config_file(self, path: str | os.PathLike[str]) -> None:
        if self._rank == 0 and not self._disabled:
            try:
                for file in source.config_file(path):
                    self._say(Record(source_file=file))
            except BadInput as error:
                self._refuse(f"file {path!r:.200}", error)

    def _say_what_ran(self) -> None:
        """Say what is new of it. A forked child says nothing: it is its parent's."""
        if self._what_ran is not None and not self._child:
            for record in self._what_ran.news(self._config.as_dict()):
                self._say(record)

    def _config_set(self, changed: Mapping[str, object], removed: list[str]) -> None:
        self._guard(self._say_entries, changed, removed, ConfigSet)

    def _summary_set(self, changed: Mapping[str, object], removed: list[str]) -> None:
        said: dict[str, object] = dict.fromkeys(removed)
        for name, value in changed.items():
            if value is not values.CIRCLE and (what := values.opaque(value)):
                limit = "a summary takes numbers, texts and what is made of them"
                self._guard(self._refuse, f"opaque {name}", BadInput(f"entry {name!r}", f"of type {what}", limit))
            else:
                said[name] = value
        self._guard(self._say_entries, said, [], SummarySet)

    def _say_entries(
        self, changed: Mapping[str, object], removed: list[str], kind: type[ConfigSet] | type[SummarySet]
    ) -> None:
        part: list[Entry] = []
        size = 0
        for entry in self._entries(changed):
            length = entry.ByteSize()
            if part and size + length > _ENTRIES_BYTES:
                self._say(_entries_record(kind, part, []))
                part, size = [], 0
            part.append(entry)
            size += length
        if part or removed:
            self._say(_entries_record(kind, part, removed))

    def _entries(self, changed: Mapping[str, object]) -> Iterable[Entry]:
        for name, value in changed.items():
            if problem := values.name_problem("an entry", name):
                self._refuse(f"name {name!r:.80}", problem)
                continue
            if value is values.CIRCLE:
                self._refuse(f"circle {name}", BadInput(f"entry {name!r}", "part of itself", "entries have an end"))
                continue
            entry = Entry(key=name, json=_utf8(values.to_json(mask(name, value))))
            if entry.ByteSize() > _ENTRIES_BYTES:
                limit = f"an entry has at most {_ENTRIES_BYTES} bytes"
                self._refuse(f"large {name}", BadInput(f"entry {name!r}", f"{entry.ByteSize()} bytes long", limit))
                continue
            yield entry

    def _finish(self, leaving: Leaving, timeout: float) -> None:
        # a signal handler may have interrupted the thread that others wait for, so no lock is waited for without end
        locked = self._lock.acquire(timeout=_LOCK_SECONDS)
        try:
            if self._finished:
                return
            for phase in reversed(self._phases.copy()):
                phase.end()
            self._guard(self._flush_gathered)
            self._guard(self._end_latencies)
            self._guard(self._say_what_ran)
            if self._what_ran is not None:
                self._guard(self._what_ran.leave)
            self._on_finish(self, leaving)  # stops the console, whose last lines belong to the run
            self._finished = True
        finally:
            if locked:
                self._lock.release()
        if self._refused:
            counted = "1 value was" if self._refused == 1 else f"{self._refused} values were"
            say(f"{counted} refused (first: {self._first_refusal})")
        stream = self._stream
        if stream is not None:
            self._guard(self._last_word, stream, leaving, timeout)

    def _last_word(self, stream: Stream, leaving: Leaving, timeout: float) -> None:
        if self._refused:
            first = _utf8(self._first_refusal)[:_REASON_CHARS]
            gap = Gap(time_us=time.time_ns() // 1000, reason="refused", points=self._refused, detail=first)
            stream.say(Record(gap=gap), Worth.LAST)
        stream.close(
            StreamClosed(
                time_us=time.time_ns() // 1000,
                exit_code=leaving.exit_code,
                reason=leaving.reason,
                signal=leaving.signal,
                preempted=leaving.preempted,
                elapsed_us=int((time.monotonic() - stream.opened_at) * 1_000_000),
            )
        )
        if self._child or self.mode == OFFLINE:
            return
        if leaving.reason == "signal":
            timeout = 0.0  # who sent it will not wait
        deadline = time.monotonic() + timeout
        arrival = self._delivery.acknowledged(stream, timeout) if self._delivery else Arrival.AWAY
        if arrival is not Arrival.ARRIVED:
            self._say_what_is_left(stream, arrival)
            deadline = 0.0
        if left := self._wait_for_uploads(deadline):
            say(f"{left} artifact{'' if left == 1 else 's'} not uploaded yet, the agent goes on; or run: runtide sync")

    def _say_what_is_left(self, stream: Stream, arrival: Arrival) -> None:
        position = position_of(stream.writer)
        declared = stream.writer.count_below(stream.writer.offset)
        points = declared.points - stream.writer.count_below(position.acknowledged).points
        left = f"{points} point{'' if points == 1 else 's'}"
        if arrival is Arrival.UNDER_WAY and not position.error:
            say(f"{left} not confirmed yet, the agent goes on sending")
        else:
            why = f" ({position.error})" if position.error else ""
            say(f"{left} still local{why}, sent when a gateway takes it; or run: runtide sync")

    def _refuse(self, subject: str, error: BadInput) -> None:
        self._count(error)
        if strict():
            raise error
        self._once.say(subject, f"refused: {error}")

    def _guard(self, do: Callable[..., object], *arguments: object) -> None:
        try:
            do(*arguments)
        except Exception as error:
            self._blame(getattr(do, "__name__", "call"), error)

    def _blame(self, doing: str, error: Exception) -> None:
        """Count what went wrong, and say it once. Strict mode is for finding such things."""
        self._count(error)
        if strict():
            raise error
        text = f"refused: {error}" if isinstance(error, BadInput) else f"{doing.strip('_')}: {error}"
        self._once.say(f"{doing} {type(error).__name__}", text)

    def _count(self, error: Exception) -> None:
        self._refused += 1
        self._first_refusal = self._first_refusal or str(error)


def _entries_record(kind: type[ConfigSet] | type[SummarySet], entries: list[Entry], removed: list[str]) -> Record:
    time_us = time.time_ns() // 1000
    if kind is ConfigSet:
        return Record(config_set=ConfigSet(time_us=time_us, entries=entries, removed=removed))
    return Record(summary_set=SummarySet(time_us=time_us, entries=entries))


def _time_us(timestamp: float | datetime.datetime | None) -> int:
    if timestamp is None:
        return 0
    try:
        seconds = timestamp.timestamp() if isinstance(timestamp, datetime.datetime) else float(timestamp)
        found = int(seconds * 1_000_000)
    except (TypeError, ValueError, OverflowError):
        found = limits.LATEST_US + 1
    if not limits.EARLIEST_US <= found <= limits.LATEST_US:
        raise BadInput("timestamp", repr(timestamp)[:80], "it is seconds since the epoch, in the years 1900 to 2299")
    return found


def _utf8(text: object) -> str:
    """Text that the wire takes: lone surrogates replaced."""
    return str(text).encode("utf-8", "replace").decode()
