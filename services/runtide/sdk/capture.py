"""What can be known about a run without asking: who, where, which command, which commit. Starts no process."""

from __future__ import annotations

import configparser
import getpass
import os
import platform
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from runtide.sdk.masking import mask_command, without_user

_MAX_ARGUMENTS = 200
_MAX_ARGUMENT_CHARS = 1000


@dataclass(frozen=True, slots=True)
class Git:
    """Where the code stood."""

    commit: str = ""
    branch: str = ""
    remote: str = ""


def user() -> str:
    """The user's name, or the number where the system has no name for it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def host() -> str:
    """This host's name."""
    return socket.gethostname() or "host"


def python_version() -> str:
    """Implementation and version of the interpreter."""
    return f"{platform.python_implementation()} {platform.python_version()}"


def working_dir() -> str:
    """The current folder; empty where it is gone."""
    try:
        return str(Path.cwd())
    except OSError:
        return ""


def command() -> list[str]:
    """The command line as it was given, secrets masked, long arguments cut."""
    given = list(getattr(sys, "orig_argv", sys.argv))[:_MAX_ARGUMENTS]
    return [text[:_MAX_ARGUMENT_CHARS].encode("utf-8", "replace").decode() for text in mask_command(given)]


def git(start: Path) -> Git:
    """Read the repository around a folder from its files; an empty answer where there is none or it is unreadable."""
    try:
        root = git_root(start)
        found = _git_folder(root) if root else None
        return _read_git(found) if found else Git()
    except (OSError, ValueError, configparser.Error):
        return Git()


def code_folder() -> Path:
    """Where the running script lies, else the current folder."""
    script = Path(sys.argv[0]) if sys.argv and sys.argv[0] else None
    if script and script.is_file():
        return script.absolute().parent
    return Path(working_dir() or "/")


def git_root(start: Path) -> Path | None:
    """The root of the working tree that a folder lies in; None where there is none."""
    return next((folder for folder in (start, *start.parents) if (folder / ".git").exists()), None)


def _git_folder(root: Path) -> Path | None:
    found = root / ".git"
    if found.is_dir():
        return found
    told = found.read_text().partition("gitdir:")[2].strip()  # a worktree or a submodule
    return (root / told).resolve() if told else None


def _read_git(folder: Path) -> Git:
    common = folder
    if (pointer := folder / "commondir").is_file():
        common = (folder / pointer.read_text().strip()).resolve()
    head = (folder / "HEAD").read_text().strip()
    remote = _remote(common)
    if not head.startswith("ref:"):
        return Git(commit=head, remote=remote)
    name = head.partition("ref:")[2].strip()
    commit = _resolve(folder, common, name)
    return Git(commit=commit, branch=name.removeprefix("refs/heads/"), remote=remote)


def _resolve(folder: Path, common: Path, name: str) -> str:
    for base in (folder, common):
        if (loose := base / name).is_file():
            return loose.read_text().strip()
    packed = common / "packed-refs"
    if packed.is_file():
        for line in packed.read_text().splitlines():
            commit, _, ref = line.partition(" ")
            if ref == name:
                return commit
    return ""


def _remote(common: Path) -> str:
    parser = configparser.ConfigParser(strict=False, interpolation=None, allow_no_value=True)
    parser.read(common / "config")
    remotes = [section for section in parser.sections() if section.startswith("remote ")]
    preferred = 'remote "origin"' if 'remote "origin"' in remotes else next(iter(remotes), "")
    url = parser.get(preferred, "url", fallback="") if preferred else ""
    return without_user(url or "")
