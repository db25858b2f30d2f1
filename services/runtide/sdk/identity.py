"""Which run, which attempt, which launch a process belongs to.

What is asked: the gateway through the agent, where it can be reached in time; and always the spool on this disk. All
ranks of one start come to the same answer by themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runtide.sdk import ranks
from runtide.sdk.agent_link import Preflight
from runtide.sdk.ended import EndedHere, began
from runtide.sdk.ranks import Place
from runtide.spool.layout import StreamInfo
from runtide.v1 import records_pb2 as wire
from runtide.wire.errors import BadInput, RuntideError
from runtide.wire.states import ENDED

NEVER, ALLOW, MUST, AUTO = "never", "allow", "must", "auto"
RESUMES = (NEVER, ALLOW, MUST, AUTO)
PARENT_PID = "RUNTIDE_PARENT_PID"
"""Set by `runtide run`: its own pid."""
LAUNCH_ID = "RUNTIDE_LAUNCH_ID"
"""Set by `runtide run`, anew each time: everything below it is one launch."""
MAX_LEFTOVERS = 2000
_NO_SUCH_LAUNCH = "no-such-launch"


class NoSuchRun(RuntideError):
    """resume="must", and there is no such run."""

    code = "no_such_run"


class Ask(Protocol):
    """Asks the gateway about a run and a launch; an answer that is not reachable is one too."""

    def __call__(self, run_id: str, launch_id: str, /) -> Preflight:
        """Ask, within a bounded time."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user and the launcher say."""

    project: str
    run_id: str
    resume: str
    resume_run: str = ""
    resume_step: int | None = None
    nth: int = 0
    """Number of inits in this process before this one."""
    last: str = ""
    """For resume="auto": the run that was left unfinished here."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The answer."""

    run_id: str
    launch_id: str
    attempt: int
    resumed_from: str = ""
    resume_step: int | None = None
    next_step: int = 0
    """The step of the first log() that says none: after those that earlier attempts left."""
    notices: tuple[str, ...] = ()
    """What the user should know about how it was found."""


def identify(
    asked: Asked,
    place: Place,
    env_launch: str,
    ask: Ask,
    local: Iterable[StreamInfo],
    stepped: Callable[[StreamInfo], int | None] = lambda info: None,
    ended_here: Callable[[str], EndedHere | None] = lambda run_id: None,
) -> Identity:
    """Decide run id, attempt and first step. Raises NoSuchRun for a run that is to be resumed and is not there.

    `local` are the streams in this host's spool, `stepped` reads how far one of them has come.
    """
    local = list(local)
    launch_id = _launch_id(asked, place, env_launch)
    notices: list[str] = []
    run_id = asked.run_id or asked.resume_run or (asked.last if not place.job else "")
    fresh = False
    if not run_id:
        run_id, fresh = _derived(asked, place)
        if fresh and place.marker and not place.again:
            found = _not_taken(asked.project, run_id, launch_id, place, local, ended_here)
            if found != run_id:
                notices.append(
                    f"rank {place.rank} was in run {run_id} already, from the same shell or launcher, so this is "
                    f"another job and run {found}; set RUNTIDE_RUN_ID to one value for all processes of a job"
                )
            run_id = found
        if ranks.nodes_unnamed(place):
            notices.append(
                f"the {place.launcher} job spans several nodes and has no id, so each node becomes a run of its own; "
                "set RUNTIDE_RUN_ID to the same value on all nodes, or give torchrun --rdzv-id"
            )
    first = place.restarts + 1
    if fresh and not place.restarts:
        return Identity(run_id, launch_id, first, notices=tuple(notices))
    known = _Known(run_id, launch_id, ask, local, stepped, ended_here(run_id))
    continues = asked.resume_run if asked.resume_run != run_id else ""
    source = _Known(continues, "", ask, local, stepped, None) if continues else known
    resume = ALLOW if asked.resume_run or (asked.resume == NEVER and place.again) else asked.resume
    for wanted in ([known] if asked.resume == MUST else []) + ([source] if asked.resume_run else []):
        if wanted.missing():
            whose = f"project {asked.project or 'default'}"
            raise NoSuchRun(f"run {wanted.run_id} is to be resumed, but {whose} has no such run")
    if resume == NEVER and not fresh and known.ended():
        new = ranks.derive(asked.project, run_id, launch_id)
        notices.append(f"run {run_id} has ended, so this is a new run, {new}; give resume='allow' to go on with it")
        return Identity(new, launch_id, first, resumed_from=continues, notices=tuple(notices))
    attempt = max(first, known.attempt(joins=resume == NEVER))
    last = asked.resume_step
    if last is None and (continues or attempt > 1 or resume != NEVER):
        last = source.last_step(None if continues else attempt)
        if last is None and source.unknown():
            notices.append(
                f"how far run {source.run_id} has come cannot be asked now, so steps that log() is not given count "
                "from 0; give log(..., step=) lest they hide what earlier attempts logged"
            )
    return Identity(
        run_id,
        launch_id,
        attempt,
        continues,
        asked.resume_step,
        next_step=0 if last is None else last + 1,
        notices=tuple(notices),
    )


def parse_resume_from(text: str) -> tuple[str, int | None]:
    """Read "RUN" or "RUN?step=T". Raises BadInput."""
    run, _, query = text.partition("?")
    if not run or (query and not query.startswith("step=")):
        raise BadInput("resume_from", repr(text), 'it has the form "RUN?step=T"')
    if not query:
        return run, None
    try:
        return run, int(query.removeprefix("step="))
    except ValueError:
        raise BadInput("resume_from", repr(text), "its step is a whole number") from None


def leftovers(host_folder: Path) -> Iterator[StreamInfo]:
    """Streams that lie in this host's spool, the newest first."""
    try:
        names = sorted((entry.name for entry in os.scandir(host_folder) if len(entry.name) == 32), reverse=True)
    except OSError:
        return
    for name in names[:MAX_LEFTOVERS]:
        try:
            yield StreamInfo.read(host_folder / name)
        except (OSError, ValueError, TypeError):  # not written yet, or removed just now
            continue


class _Known:
    """What gateway and disk know of a run."""

    def __init__(
        self,
        run_id: str,
        launch_id: str,
        ask: Ask,
        local: list[StreamInfo],
        stepped: Callable[[StreamInfo], int | None],
        ended_here: EndedHere | None,
    ) -> None:
        self.run_id, self._launch_id, self._ask = run_id, launch_id, ask
        self._answer = ask(run_id, launch_id)
        self._stepped, self._ended_here = stepped, ended_here
        self._local = [info for info in local if info.run_id == run_id and info.role == wire.ROLE_RANK]
        self._ours = [info.attempt for info in self._local if info.launch_id == launch_id]
        self._next: int | None = None

    def missing(self) -> bool:
        return not self.unknown() and not self._answer.run_exists and not self._local

    def unknown(self) -> bool:
        """Whether the store could not be asked."""
        return not self._answer.reachable or not self._answer.attempt

    def last_step(self, before: int | None) -> int | None:
        """Where the latest attempt before `before`, or of all, that logged anything has come to on any of its ranks.

        What the store has may lag behind the files of those that ended just now, or know nothing of that attempt yet.
        """
        earlier = [info for info in self._local if before is None or info.attempt < before]
        for attempt in sorted({info.attempt for info in earlier}, reverse=True):
            ends = [self._stepped(info) for info in earlier if info.attempt == attempt]
            if found := [step for step in ends if step is not None]:
                stored = self._answer.last_step if self._answer.attempt > attempt else None
                return max(found if stored is None else [*found, stored])
        return self._answer.last_step

    def ended(self) -> bool:
        """Whether the run is over and this is another launch. A late rank of the launch that ended still belongs."""
        here = self._ended_here
        if self._ours or (here and (here.launch_id == self._launch_id or began() < here.at)):
            return False  # this process was there before the end: it is one of those that were started together
        if here and here.alone and not any(lives(info.pid, info.started) for info in self._local):
            return True
        if self._answer.reachable and self._answer.run_exists:
            return self._answer.run_state in ENDED and not self._launch_is_known()
        return bool(self._local) and not any(lives(info.pid, info.started) for info in self._local)

    def attempt(self, *, joins: bool) -> int:
        """The attempt of this launch. `joins`: a process that joins a living run is no new attempt of it."""
        if self._ours:
            return max(self._ours)
        others = max((info.attempt for info in self._local), default=0)
        told = self._answer.attempt if self._answer.reachable else 0
        if joins:
            if told and self._answer.run_exists and not self._launch_is_known():
                told = max(told - 1, 1)
            return max(told, others, 1)
        if told and self._launch_is_known():
            return told
        return max(told, others + 1)

    def _launch_is_known(self) -> bool:
        """The gateway numbers an unknown launch one higher than a known one; so one that nobody has tells."""
        if not self._answer.reachable or not self._answer.run_exists:
            return False
        if self._next is None:
            self._next = self._ask(self.run_id, _NO_SUCH_LAUNCH).attempt
        return 0 < self._answer.attempt < self._next


def _not_taken(
    project: str,
    run_id: str,
    launch_id: str,
    place: Place,
    local: list[StreamInfo],
    ended_here: Callable[[str], EndedHere | None],
) -> str:
    """The run of a job that is named by its launching process alone: a shell may launch one job after the other.

    Of one job each rank is one process. So where another one has this rank, or had it in a run that is over, this is
    the next job, whose ranks all come to the same next id. A process that a rank has started belongs to it.
    """
    ours = {os.getpid(), *ranks.ancestors()}

    def taken(run_id: str) -> bool:
        there = [info for info in local if info.run_id == run_id and info.role == wire.ROLE_RANK]
        same = [info for info in there if info.rank == place.rank and info.launch_id == launch_id]
        others = [info for info in same if info.pid not in ours]
        if any(lives(info.pid, info.started) for info in others):
            return True
        ended = ended_here(of_rank(run_id, place.rank))
        before = bool(others) or (ended is not None and ended.launch_id == launch_id and ended.at <= began())
        return before and not any(lives(info.pid, info.started) for info in there)

    while taken(run_id):
        run_id = ranks.derive(project, run_id, "next")
    return run_id


def of_rank(run_id: str, rank: int) -> str:
    """The name by which the end of a single rank is remembered; no run has it, since an id has no "/"."""
    return f"{run_id}/{rank}"


def _launch_id(asked: Asked, place: Place, env_launch: str) -> str:
    several_nodes = place.job and not place.one_node  # each may have a `runtide run` of its own
    if env_launch and not several_nodes:
        return ranks.derive("launch", env_launch, asked.run_id, str(place.restarts))
    where = (*place.job, *place.start) if several_nodes else (ranks.launching_process(place),)
    return ranks.derive("launch", place.launcher, *where, *place.meeting, str(place.restarts))


def _derived(asked: Asked, place: Place) -> tuple[str, bool]:
    """A run id, and whether nobody can have had it before."""
    nth = str(asked.nth)
    if place.job:
        return ranks.derive(asked.project, place.launcher, *place.job, nth), False
    if not place.marker:
        return ranks.random_id(), True
    process = ranks.launching_process(place)
    return ranks.derive(asked.project, place.launcher, process, *place.meeting, nth), True


def lives(pid: int, started: float) -> bool:
    """Whether the process with this pid and start time, as psutil gives it, runs."""
    import psutil

    try:
        return bool(abs(psutil.Process(pid).create_time() - started) < 1.0)
    except psutil.Error:
        return False
