"""Business figures of runs and of model versions, which come when the run is long over: no run need be open.

They lie in a book of the project, in a stream of its own for each process that says any: spooled, shipped and stored as
all else is, so once, and also without a gateway in reach. Said again for the same time, the later word counts.
Promises: nothing here raises into the job, but for BadInput under RUNTIDE_STRICT=1.
"""

from __future__ import annotations

import atexit
import datetime
import json
import math
import os
import threading
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

from runtide.sdk import capture, values
from runtide.sdk.agent_link import AgentLink
from runtide.sdk.delivery import Arrival, Delivery
from runtide.sdk.keeper import Keeper
from runtide.sdk.notice import Once, say, strict
from runtide.sdk.settings import DISABLED, ONLINE, Settings, settings
from runtide.sdk.stream import Stream
from runtide.spool.layout import StreamInfo, host_folder
from runtide.spool.writer import SpoolWriter, new_stream_id, opened
from runtide.v1.records_pb2 import ROLE_USER, Kpi, Record, StreamClosed
from runtide.wire import limits
from runtide.wire.books import KPIS, is_book
from runtide.wire.errors import BadInput

Time = float | datetime.date | str
Goal = Literal["min", "max"] | float
GOALS = ("min", "max")
UNIT_CHARS = 100


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, checked."""

    subject: str
    name: str
    value: float
    time_us: int
    unit: str = ""
    goal: str = ""

    @classmethod
    def of(
        cls, subject: object, name: str, value: Any, time: Time | None = None, unit: Any = None, goal: Any = None
    ) -> Figure:
        """Check what somebody says. Raises BadInput with field, value and rule."""
        if problem := values.name_problem("a KPI", name):
            raise problem
        return cls(_subject(subject), name, _value(value), time_us(time), _unit(unit), _goal(goal))

    def record(self) -> Record:
        """Say it now."""
        said = json.dumps({"goal": self.goal, "said_us": _now_us()})
        kpi = Kpi(
            time_us=self.time_us, subject=self.subject, name=self.name, value=self.value, unit=self.unit, json=said
        )
        return Record(kpi=kpi)


class Book:
    """What this process says to the KPIs of one project."""

    def __init__(self, told: Settings) -> None:
        """Open a stream. Raises OSError where the disk does not allow it."""
        import psutil

        self.told = told
        info = StreamInfo(
            stream=new_stream_id(),
            project=told.project,
            run_id=KPIS,
            rank=-1,
            attempt=0,
            host=capture.host(),
            role=ROLE_USER,
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            url=told.url,
            token=told.token,
            ca_file=told.ca_file,
            cert_file=told.cert_file,
            key_file=told.key_file,
        )
        first = opened(info)
        first.user = capture.user().encode("utf-8", "replace").decode()
        writer = SpoolWriter.create(host_folder(told.root), info, budget_bytes=told.budget_bytes)
        writer.on_first_drop = lambda why: say(f"KPIs are dropped: {why}; the loss is noted")
        self._stream = Stream(writer, Record(stream_opened=first))
        self._link = AgentLink(told.root, start=told.start_agent)
        self._keeper = Keeper(self._link)
        if told.mode == ONLINE:
            self._link.ensure()
        if told.start_agent:
            self._keeper.start()

    def say(self, figure: Figure) -> None:
        """Keep a figure; when it returns, the figure survives a kill of this process."""
        self._stream.say(figure.record())

    @property
    def dropped(self) -> int:
        """Figures that could not be kept, because the disk or its budget was full."""
        return self._stream.writer.dropped_records

    def close(self, timeout: float = 0.0) -> Arrival:
        """Say the last word, and wait so long until a gateway has everything."""
        self._keeper.stop()
        self._stream.close(StreamClosed(time_us=_now_us(), reason="exit"))
        if self.told.mode != ONLINE:
            return Arrival.AWAY
        return Delivery(self._link, self.told, KPIS, "").acknowledged(self._stream, timeout)

    def forget(self) -> None:
        """In a forked child: the stream is the parent's."""
        self._stream.writer.forget()


class Books:
    """The books that this process has open: one for each project and way to it."""

    def __init__(self) -> None:
        self._books: dict[Settings, Book] = {}
        self._lock = threading.Lock()
        self._hooked = False
        self._once = Once()

    def log(self, told: Settings, figure: Figure) -> None:
        """Say a figure of a project. Raises OSError."""
        if told.mode == DISABLED:
            return
        key = _way(told)
        with self._lock:
            self._hook()
            book = self._books.get(key)
            if book is None:
                book = self._books[key] = Book(key)
        book.say(figure)

    def guarded(self, project: str | None, told: Settings | None, *arguments: Any) -> None:
        """Say a figure, given as to `Figure.of`, and let no error of it into the job."""
        try:
            if told is None:
                told = settings(os.environ, project=project)
            elif project is not None:
                told = replace(told, project=settings({}, project=project).project)
            self.log(told, Figure.of(*arguments))
        except Exception as error:
            if strict():
                raise
            self._once.say(f"{type(error).__name__} {error}", f"log_kpi: {'refused: ' * _bad(error)}{error}")

    def close(self) -> None:
        """The process ends."""
        with self._lock:
            books, self._books = list(self._books.values()), {}
        for book in books:
            if book.close() is not Arrival.ARRIVED and not book.told.url:
                say(f"KPIs are kept in {book.told.root}; to send them: runtide sync")

    def _hook(self) -> None:
        if not self._hooked:
            self._hooked = True
            atexit.register(self.close)
            os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        books, self._books = self._books, {}
        for book in books.values():
            book.forget()


def _way(told: Settings) -> Settings:
    """What of the settings decides where it goes: runs of one project have one book."""
    return replace(
        told, experiment="", name="", tags=(), notes="", group="", job_type="", run_id="", resume="never",
        resume_run="", resume_step=None,
    )  # fmt: skip


books = Books()


def _bad(error: Exception) -> bool:
    return isinstance(error, BadInput)


def _subject(given: object) -> str:
    text = f"run:{told}" if isinstance(told := getattr(given, "run_id", None), str) else given
    limit = "it is run:ID or model:NAME@VERSION"
    if not isinstance(text, str) or values.name_problem("a subject", text):
        raise BadInput("subject", repr(given)[:80], limit)
    kind, _, rest = text.partition(":")
    name, _, version = rest.rpartition("@")
    sound = {"run": bool(rest) and not is_book(rest), "model": bool(name and version)}
    if rest != rest.strip() or not sound.get(kind, False):
        raise BadInput("subject", repr(text)[:80], limit)
    return text


def _value(given: Any) -> float:
    try:
        found = values.number(float(given) if isinstance(given, str) else given)
    except ValueError as error:
        raise BadInput("value", repr(given)[:80], "it is a number") from error
    if not math.isfinite(found):
        raise BadInput("value", repr(given)[:80], "it is a finite number")
    return found


def time_us(given: Time | None) -> int:
    """A moment in microseconds: seconds since the epoch, a date or time of Python, or a text of ISO 8601 (UTC)."""
    if given is None:
        return _now_us()
    try:
        seconds = _seconds(given)
        found = round(seconds * 1_000_000)
    except (TypeError, ValueError, OverflowError):
        found = limits.LATEST_US + 1
    if not limits.EARLIEST_US <= found <= limits.LATEST_US:
        limit = "it is a date or time of ISO 8601, or seconds since the epoch, in the years 1900 to 2299"
        raise BadInput("time", repr(given)[:80], limit)
    return found


def _seconds(given: Time) -> float:
    if isinstance(given, str):
        try:
            return float(given)
        except ValueError:
            found = datetime.datetime.fromisoformat(given.strip())
            return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp()
    if isinstance(given, datetime.datetime):
        return given.timestamp()  # without a zone it is local time, as everywhere in Python
    if isinstance(given, datetime.date):
        return datetime.datetime(given.year, given.month, given.day, tzinfo=datetime.UTC).timestamp()
    return float(given)


def _unit(given: Any) -> str:
    text = "" if given is None else str(given).strip()
    if len(text) > UNIT_CHARS or not text.isprintable():
        raise BadInput("unit", repr(text)[:80], f"it has at most {UNIT_CHARS} printable characters")
    return text


def _goal(given: Any) -> str:
    if given is None or given == "":
        return ""
    if given in GOALS:
        return str(given)
    try:
        return f"{_value(given):.15g}"
    except BadInput as error:
        raise BadInput("goal", repr(given)[:80], "it is min, max, or the value to reach") from error


def _now_us() -> int:
    return time.time_ns() // 1000
