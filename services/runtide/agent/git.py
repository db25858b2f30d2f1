"""What git says of a working tree: the commit, what is not committed, what is not tracked.

Promises: git runs none of the user's programs but the filters of the attributes, writes nothing, asks nothing, and is
ended when it takes too long or says too much. Content of files that are made to hold secrets never leaves git.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtide.v1.records_pb2 import SourceFile
from runtide.wire.limits import KIB, MIB
from runtide.wire.secrets import holds_secrets, without_user
from runtide.wire.source_files import MAY_HOLD_SECRETS, kept, named

TIMEOUT_S = 30.0
OUTPUT_BYTES = 32 * MIB
"""What is read of one answer; of a longer patch nothing is known but its beginning."""
PATCH = "uncommitted.patch"
UNTRACKED_FILES = 1000
UNTRACKED_BYTES = 64 * KIB
"""Content is taken of untracked files up to this size, until it is UNTRACKED_TOTAL_BYTES for all of them."""
UNTRACKED_TOTAL_BYTES = MIB
DIGEST_BYTES = 16 * MIB
DIGEST_TOTAL_BYTES = 128 * MIB
_EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
_DIFF = (
    *("diff", "--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/", "--unified=3"),
    "--submodule=short",  # files of a submodule are in no list, so nothing would look whether they hold secrets
)
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_NO_ANSWER = "git did not answer"


@dataclass(frozen=True, slots=True)
class Answer:
    """What git wrote."""

    output: bytes = b""
    whole: bool = True
    failed: bool = False

    @property
    def text(self) -> str:
        """Its words without the end of the line; empty where it failed."""
        return "" if self.failed else self.output.decode("utf-8", "replace").strip()

    @property
    def names(self) -> list[str]:
        """What was separated by zero bytes; half of a name is none."""
        found = [] if self.failed else self.output.split(b"\0")[:-1]
        return [os.fsdecode(name) for name in found]


class Repository:
    """The working tree around a folder."""

    def __init__(self, root: Path) -> None:
        """`root` is its first folder: see `around`."""
        self.root = root
        self.commit = git(root, "rev-parse", "--verify", "--quiet", "HEAD").text
        self.branch = git(root, "symbolic-ref", "--short", "--quiet", "HEAD").text
        self.remote = without_user(self._remote())

    @classmethod
    def around(cls, folder: Path) -> Repository | None:
        """The one that a folder lies in; None where git knows of none, or will not tell. Raises OSError without git."""
        root = git(folder, "rev-parse", "--show-toplevel").text
        return cls(Path(root)) if root else None

    def patch(self, time_us: int, since: str = "") -> Iterator[SourceFile]:
        """What is not committed since a commit, as `git apply` takes it; nothing where all is."""
        since = since if _COMMIT.fullmatch(since) else self.commit or _EMPTY_TREE
        listed = git(self.root, *_DIFF, "--no-renames", "--name-only", "-z", since)
        if listed.failed:
            yield named(PATCH, "patch", time_us, note=_NO_ANSWER)
        if not listed.names:
            return
        secret = [name for name in listed.names if holds_secrets(name)]
        for name in secret:
            yield named(name, "patch", time_us, note=f"changed; {MAY_HOLD_SECRETS}")
        if len(secret) < len(listed.names):
            yield from self._patch(since, secret, time_us)

    def _patch(self, since: str, secret: list[str], time_us: int) -> Iterator[SourceFile]:
        paths = ["--", ".", *(f":(top,exclude,literal){name}" for name in secret)] if secret else []
        found = git(self.root, *_DIFF, since, *paths)
        if b"\nBinary files " in found.output:
            found = git(self.root, *_DIFF, "--binary", since, *paths)
        if found.failed:
            yield named(PATCH, "patch", time_us, note=_NO_ANSWER)
        elif found.output:
            note = "" if found.whole else f"more than {OUTPUT_BYTES} bytes, digest and size are of the beginning"
            yield from kept(PATCH, "patch", found.output, time_us, note=note)

    def untracked(self, time_us: int, leave_out: Sequence[str]) -> Iterator[SourceFile]:
        """Files that git does not track and is not told to ignore."""
        listed = git(self.root, "ls-files", "--others", "--exclude-standard", "-z")
        if listed.failed:
            yield named("", "untracked", time_us, note=_NO_ANSWER)
        out = [Path(folder) for folder in leave_out if not self.root.is_relative_to(folder)]
        names = [name for name in listed.names if not any((self.root / name).is_relative_to(folder) for folder in out)]
        reader = _Reader(self.root, time_us)
        for name in sorted(names)[:UNTRACKED_FILES]:
            yield from reader.read(name)
        if len(names) > UNTRACKED_FILES or not listed.whole:
            more = len(names) - UNTRACKED_FILES if listed.whole else "many"
            yield named("", "untracked", time_us, note=f"{more} more untracked files are not named")

    def _remote(self) -> str:
        names = git(self.root, "remote").text.split()
        name = "origin" if "origin" in names else next(iter(names), "")
        return git(self.root, "config", "--get", f"remote.{name}.url").text if name else ""


class _Reader:
    """Reads untracked files as long as there is room for their content."""

    def __init__(self, root: Path, time_us: int) -> None:
        self._root, self._time_us = root, time_us
        self._content, self._hashed = UNTRACKED_TOTAL_BYTES, DIGEST_TOTAL_BYTES

    def read(self, name: str) -> Iterator[SourceFile]:
        say: Callable[..., SourceFile] = lambda note, **more: named(name, "untracked", self._time_us, note=note, **more)  # noqa: E731
        try:
            found = (self._root / name).lstat()
            if not stat.S_ISREG(found.st_mode):
                yield say("a link" if stat.S_ISLNK(found.st_mode) else "no regular file")
                return
            size = found.st_size
            if size > DIGEST_BYTES or size > self._hashed:
                yield say("named only, it is too large", size=size)
                return
            content = (self._root / name).read_bytes()
        except OSError as error:
            yield say(f"not read: {error.strerror}")
            return
        self._hashed -= len(content)
        digest = hashlib.sha256(content).hexdigest()
        if holds_secrets(name):
            yield say(MAY_HOLD_SECRETS, size=size, digest=digest)
        elif b"\0" in content[: 8 * KIB]:
            yield say("named only, it is no text", size=size, digest=digest)
        elif len(content) > min(UNTRACKED_BYTES, self._content):
            yield say("named only, it is too large", size=size, digest=digest)
        else:
            self._content -= len(content)
            yield from kept(name, "untracked", content, self._time_us)


def git(folder: Path, *arguments: str) -> Answer:
    """Ask git about a folder. Raises OSError where there is no git."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    with subprocess.Popen(  # noqa: S603  a fixed program, arguments of ours
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=env,
    ) as process:
        timer = threading.Timer(TIMEOUT_S, process.kill)
        timer.daemon = True
        timer.start()
        try:
            assert process.stdout is not None
            output = process.stdout.read(OUTPUT_BYTES + 1)
            if len(output) > OUTPUT_BYTES:
                process.kill()
                return Answer(output[:OUTPUT_BYTES], whole=False)
            return Answer(output, failed=process.wait() != 0)
        finally:
            timer.cancel()
