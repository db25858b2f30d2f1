"""A stream of a run begins: its folder, and its first word, which says who speaks, from where and by which code."""

from __future__ import annotations

import os
from dataclasses import dataclass

from runtide.sdk import capture
from runtide.sdk.identity import Identity
from runtide.sdk.notice import say
from runtide.sdk.ranks import Place
from runtide.sdk.settings import Settings
from runtide.sdk.stream import Stream
from runtide.spool.capture import CAPTURE_FILE, CaptureTask
from runtide.spool.layout import StreamInfo, host_folder
from runtide.spool.writer import SpoolWriter, new_stream_id, opened
from runtide.v1 import records_pb2 as wire
from runtide.wire import limits

_BATCH_TAGS = 1000


@dataclass(frozen=True, slots=True)
class StreamOpener:
    """Opens a stream for this process, and one for each forked child."""

    told: Settings
    place: Place
    identity: Identity
    parent: str
    """The pid of `runtide run`, where there is one."""
    task: CaptureTask | None = None
    """What the agent is to collect beside the first process of the run."""

    def __call__(self, child: bool) -> Stream | None:
        """Open a stream; None, and a word to the user, where the disk does not allow it."""
        try:
            stream = self._open(wire.ROLE_CHILD if child else wire.ROLE_RANK)
        except OSError as error:
            say(f"nothing of run {self.identity.run_id} can be kept: {self.told.root} cannot be written to ({error})")
            return None
        stream.writer.on_first_drop = _say_first_drop
        return stream

    def _open(self, role: wire.Role) -> Stream:
        import psutil

        told = self.told
        info = StreamInfo(
            stream=new_stream_id(),
            project=told.project,
            run_id=self.identity.run_id,
            rank=self.place.rank,
            attempt=self.identity.attempt,
            host=capture.host(),
            role=role,
            pid=os.getpid(),
            started=psutil.Process().create_time(),
            url=told.url,
            token=told.token,
            parent_reports=self.parent == str(os.getppid()),
            launch_id=self.identity.launch_id,
            ca_file=told.ca_file,
            cert_file=told.cert_file,
            key_file=told.key_file,
        )
        beside = {CAPTURE_FILE: self.task.text()} if self.task is not None and role == wire.ROLE_RANK else {}
        writer = SpoolWriter.create(host_folder(told.root), info, budget_bytes=told.budget_bytes, beside=beside)
        return Stream(writer, wire.Record(stream_opened=self._first_word(info)), self.identity.next_step)

    def _first_word(self, info: StreamInfo) -> wire.StreamOpened:
        told, place, git = self.told, self.place, capture.git(capture.code_folder())
        said = opened(info)
        said.MergeFrom(
            wire.StreamOpened(
                experiment=_utf8(told.experiment),
                name=_utf8(told.name),
                group=_utf8(told.group),
                job_type=_utf8(told.job_type),
                tags=[_utf8(tag) for tag in told.tags[:_BATCH_TAGS]],
                notes=_utf8(told.notes),
                user=_utf8(capture.user()),
                local_rank=place.local_rank,
                world_size=place.world_size,
                launcher=place.launcher,
                resume_step=self.identity.resume_step,
                sdk_version=_version(),
                python_version=capture.python_version(),
                git_commit=_utf8(git.commit)[: limits.IDENTITY_BYTES],
                git_remote=_utf8(git.remote)[: limits.NAME_BYTES],
                git_branch=_utf8(git.branch)[: limits.NAME_BYTES],
                command=capture.command(),
                working_dir=_utf8(capture.working_dir()),
                resumed_from=self.identity.resumed_from,
            )
        )
        return said


def _say_first_drop(why: str) -> None:
    say(f"records are dropped: {why}; training goes on, the loss is noted")


def _version() -> str:
    from runtide import __version__

    return __version__


def _utf8(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
