"""Has this been run before? Asked once, before training costs anything, with what the job and its agent know by then.

Promises: `warn` holds init up by WARN_SECONDS at the most, the others by ASK_SECONDS; where nobody answers in time, or
there is nothing to compare, the run goes on without a word. Only rank 0 asks, and only for a run that is not resumed.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtide.sdk import source, values
from runtide.sdk.agent_link import AgentLink
from runtide.sdk.masking import mask
from runtide.sdk.notice import say
from runtide.sdk.settings import ASK, ATTACH, IGNORE, ONLINE, SKIP, WARN, Settings
from runtide.spool.capture import CaptureTask

WARN_SECONDS = 0.9
ASK_SECONDS = 2.5
_SAID = 3
"""Duplicates that are named to the user."""


class DuplicateRun(SystemExit):
    """on_duplicate="skip", and the same has been run or is running. Not caught, it ends the script with exit code 0."""

    def __init__(self, found: Duplicate) -> None:
        super().__init__(0)
        self.duplicate = found
        """The run that is the same."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A run that is the same as the one that is about to start, or nearly so."""

    run_id: str
    name: str = ""
    user: str = ""
    state: str = ""
    """As in the view runs."""
    started_us: int = 0
    duration_s: float = 0.0
    world_size: int = 1
    differences: tuple[tuple[str, str, str], ...] = ()
    """What differs (code, environment or config.KEY), and for a key its value there and here as JSON."""
    result: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """The best value of the metrics with a goal, else the last of some."""

    @property
    def exact(self) -> bool:
        """Whether code, configuration and environment are the same."""
        return not self.differences

    def __str__(self) -> str:
        what = "the same as" if self.exact else "nearly the same as"
        named = f" ({self.name})" if self.name and self.name != self.run_id else ""
        ago = _span(max(0.0, time.time() - self.started_us / 1e6))
        text = f"{what} run {self.run_id}{named}, {self.state}, started by {self.user or 'somebody'} {ago} ago"
        if self.differences:
            text += f"; different: {', '.join(map(_different, self.differences))}"
        if self.result:
            text += f"; result: {', '.join(f'{name} {value:.6g}' for name, value in self.result.items())}"
        ranks = f" on {self.world_size} processes" if self.world_size > 1 else ""
        return f"{text}; cost: {_span(self.duration_s)}{ranks}"


class Question:
    """The question for one run, asked in a thread of its own."""

    def __init__(self, told: Settings, link: AgentLink, task: CaptureTask, config: Mapping[str, Any]) -> None:
        """`config` is what init() was given; it must not be empty: without it scripts cannot be told apart."""
        entries = {str(name): values.to_json(mask(str(name), value)) for name, value in values.flatten(config, ".")}
        self._request = {
            "op": "duplicates",
            "task": task.text(),
            "project": told.project,
            "run_id": told.run_id,
            "url": told.url,
            "token": told.token,
            "config": json.dumps({name: json.loads(text) for name, text in entries.items()}),
            "config_digest": source.config_fingerprint(entries).config,
            "ca_file": told.ca_file,
            "cert_file": told.cert_file,
            "key_file": told.key_file,
        }
        self._link, self._deadline = link, time.monotonic() + ASK_SECONDS
        self._found: list[Duplicate] = []
        self._thread = threading.Thread(target=self._ask, name="runtide-duplicates", daemon=True)
        self._thread.start()

    def answer(self, timeout_s: float) -> Sequence[Duplicate]:
        """What was found, the nearest first; nothing where there is no answer in time."""
        self._thread.join(timeout_s)
        return () if self._thread.is_alive() else self._found

    def _ask(self) -> None:
        if not self._link.wait(self._deadline):
            return
        reply = self._link.ask(self._request, self._deadline - time.monotonic())
        try:
            self._found = [_parsed(each) for each in (reply or {}).get("duplicates", ())]
        except (TypeError, ValueError, KeyError):  # an agent of another release
            self._found = []


def question(told: Settings, link: AgentLink, task: CaptureTask | None, config: object) -> Question | None:
    """Ask, if there is somebody to be asked and something to be asked about."""
    given = values.as_mapping(config) if config is not None else None
    wanted = told.on_duplicate != IGNORE and told.mode == ONLINE and told.start_agent
    if not wanted or task is None or not given or told.resume != "never" or told.resume_run:
        return None
    return Question(told, link, task, given)


def decide(told: Settings, asked: Question | None, world_size: int) -> Settings:
    """What becomes of the run before it is opened. Raises DuplicateRun where it is not to be run."""
    if asked is None or told.on_duplicate == WARN:
        return told
    found = asked.answer(ASK_SECONDS)
    same = next((each for each in found if each.exact), None)
    _tell(found)
    choice = told.on_duplicate
    if choice == ASK and found:
        choice = _choice(same)
    if choice == SKIP and same is not None:
        say(f"not run again: {same.run_id} is the same")
        raise DuplicateRun(same)
    if choice == ATTACH and same is not None:
        if world_size == 1:
            say(f"this goes on as another attempt of run {same.run_id}")
            return dataclasses.replace(told, run_id=same.run_id, resume="allow")
        say("attached to no run: the processes of a job with several ranks cannot agree on it")
    return told


def warn(told: Settings, asked: Question | None) -> None:
    """Tell the user what was found by now."""
    if asked is not None and told.on_duplicate == WARN:
        _tell(asked.answer(WARN_SECONDS))


def _tell(found: Sequence[Duplicate]) -> None:
    exact = [each for each in found if each.exact]
    for each in exact[:_SAID] or found[:1]:  # in a search every run is near many others: the nearest is enough
        say(f"this is {each}")
    if found[:1] and found[0].exact and found[0].state not in ("finished", "running", "degraded"):
        say(f"run {found[0].run_id} did not finish, so it may be worth running again")


def _choice(same: Duplicate | None) -> str:
    """Ask the person at the terminal; without one the run goes on."""
    if sys.stdin is None or not sys.stdin.isatty():
        return WARN
    attach = ", a to go on with that run" if same is not None else ""
    say(f"start it all the same? y to start, n to leave{attach}")
    reply = sys.stdin.readline().strip().lower()[:1]
    if reply == "n":
        raise SystemExit(0)
    return ATTACH if reply == "a" else WARN


def _different(of: tuple[str, str, str]) -> str:
    what, there, here = of
    return f"{what} {there or 'not set'} there and {here or 'not set'} here" if what.startswith("config.") else what


def _parsed(said: Mapping[str, Any]) -> Duplicate:
    return Duplicate(
        run_id=str(said["run_id"]),
        name=str(said["name"]),
        user=str(said["user"]),
        state=str(said["state"]),
        started_us=int(said["started_us"]),
        duration_s=float(said["duration_s"]),
        world_size=int(said["world_size"]),
        differences=tuple((str(what), str(there), str(here)) for what, there, here in said["differences"]),
        result={str(name): float(value) for name, value in said["result"].items()},
    )


def _span(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
