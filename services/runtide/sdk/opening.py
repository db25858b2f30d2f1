"""init(): from what was told to an open run. Bounded: the agent gets 2.5 s at most, and only where it must be asked."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from runtide.sdk import capture, ranks
from runtide.sdk.agent_link import START_SECONDS, AgentLink, Preflight, start_collector
from runtide.sdk.delivery import Delivery
from runtide.sdk.duplicates import decide, question, warn
from runtide.sdk.ended import EndedHere
from runtide.sdk.identity import AUTO, LAUNCH_ID, PARENT_PID, Asked, Identity, identify, leftovers, of_rank
from runtide.sdk.keeper import Keeper
from runtide.sdk.leaving import Leaving
from runtide.sdk.notice import Once, say
from runtide.sdk.opener import StreamOpener
from runtide.sdk.process import Process
from runtide.sdk.ranks import Place
from runtide.sdk.run import Run
from runtide.sdk.settings import DISABLED, ONLINE, Settings
from runtide.sdk.what_ran import WhatRan
from runtide.spool.layout import host_folder, replace_file
from runtide.spool.steps import last_step


def open_run(process: Process, told: Settings, config: object) -> Run:
    """Open a run. Raises BadInput and NoSuchRun; a disk that cannot be written to mutes the run instead."""
    if told.mode == DISABLED:
        return _disabled(process, told, config)
    place = ranks.place(os.environ)
    nth = process.inits.get(told.project, 0)
    process.inits[told.project] = nth + 1
    link = AgentLink(told.root, start=told.start_agent)
    deadline = time.monotonic() + START_SECONDS
    if told.mode == ONLINE:
        link.ensure()
    what_ran = WhatRan.of(told) if told.capture and place.rank == 0 else None
    asked = question(told, link, what_ran.task if what_ran else None, config)
    told = decide(told, asked, place.world_size)
    parent = os.environ.get(PARENT_PID, "")
    here = host_folder(told.root)
    identity = identify(
        _asked(told, nth),
        place,
        os.environ.get(LAUNCH_ID, ""),
        _asker(told, link, place.rank, deadline),
        (info for info in leftovers(here) if info.tenant == told.tenant),
        lambda info: last_step(here / info.stream),
        lambda run_id: EndedHere.read(here, told.tenant, run_id),
    )
    for notice in identity.notices:
        say(notice)
    delivery = Delivery(link, told, identity.run_id, identity.launch_id) if told.mode == ONLINE else None
    keeper = Keeper(link)
    run = Run(
        told,
        run_id=identity.run_id,
        rank=place.rank,
        attempt=identity.attempt,
        opener=StreamOpener(told, place, identity, parent, what_ran.task if what_ran else None),
        delivery=delivery,
        on_finish=_remember(process, told, place, identity, keeper),
        signal_seen=process.signal_seen,
        config=config,
        what_ran=what_ran,
    )
    process.started()
    if told.start_agent:
        keeper.start()
    elif what_ran is not None and run.stream:
        start_collector(told.root, run.stream)
    if place.rank == 0 and run.stream:
        say(_hello(told, run))
        warn(told, asked)
    process.opened(run, capture_console=told.capture_console)
    return run


def _disabled(process: Process, told: Settings, config: object) -> Run:
    run = Run(
        told,
        run_id=told.run_id or told.resume_run or ranks.random_id(),
        rank=0,
        attempt=1,
        opener=lambda child: None,
        delivery=None,
        on_finish=process.closing,
        signal_seen=process.signal_seen,
        config=config,
    )
    process.opened(run, capture_console=False)
    return run


def _asked(told: Settings, nth: int) -> Asked:
    return Asked(
        project=told.project,
        run_id=told.run_id,
        resume=told.resume,
        resume_run=told.resume_run,
        resume_step=told.resume_step,
        nth=nth,
        last=_last_run(told) if told.resume == AUTO and not told.run_id else "",
    )


def _last_run_file(told: Settings) -> Path:
    """For resume="auto": where the unfinished run of this script in this folder is kept."""
    here = ranks.derive(told.tenant, capture.working_dir(), sys.argv[0] if sys.argv else "")
    return host_folder(told.root) / f"unfinished-{here}"


def _last_run(told: Settings) -> str:
    try:
        return _last_run_file(told).read_text().strip()
    except OSError:
        return ""


def _remember(
    process: Process, told: Settings, place: Place, identity: Identity, keeper: Keeper
) -> Callable[[Run, Leaving], None]:
    """Keep what the next init has to know: what may be continued, and the end of a run whose id may come again."""
    file, pid = _last_run_file(told), os.getpid()
    noted = ""
    if told.run_id or told.resume_run:
        noted = identity.run_id
    elif place.marker and not place.job:
        noted = of_rank(identity.run_id, place.rank)

    def closing(run: Run, leaving: Leaving) -> None:
        process.closing(run, leaving)
        if os.getpid() == pid:
            keeper.stop()
        try:
            if told.resume == AUTO and os.getpid() == pid and leaving.exit_code == 0 and leaving.reason != "signal":
                file.unlink(missing_ok=True)
            if noted and os.getpid() == pid:
                ended = EndedHere(identity.launch_id, time.time(), alone=place.world_size == 1)
                ended.write(host_folder(told.root), told.tenant, noted)
        except OSError as error:
            say(f"the end of run {run.id} could not be noted for the next init: {error}")

    if told.resume == AUTO:
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(file, identity.run_id)
        except OSError as error:
            say(f"resume='auto' will not find this run again: {error}")
    return closing


def _asker(told: Settings, link: AgentLink, rank: int, deadline: float) -> Callable[[str, str], Preflight]:
    delivery = Delivery(link, told, "", "")
    once = Once()

    def ask(run_id: str, launch_id: str) -> Preflight:
        if told.mode != ONLINE or not link.wait(deadline):
            return Preflight()
        answer = delivery.preflight(run_id, launch_id, deadline)
        if answer.error and rank == 0:
            once.say("preflight", f"{told.url} has not let this run in, so it is kept here: {answer.error}")
        return answer

    return ask


def _hello(told: Settings, run: Run) -> str:
    where = f"to {told.url}" if told.mode == ONLINE else f"offline, kept in {told.root}"
    attempt = f", attempt {run.attempt}" if run.attempt > 1 else ""
    return f"run {run.id} of project {told.project or 'default'}{attempt}, {where}"
