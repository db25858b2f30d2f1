"""Small disks: a tmpfs of some MiB. Only root may mount one, on Linux."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILLER = "filler"


def can_mount() -> bool:
    """Whether this process may make a small disk."""
    return sys.platform.startswith("linux") and os.geteuid() == 0 and shutil.which("mount") is not None


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """A disk of `mib` MiB at `folder`, until the block ends; what still uses it then keeps it until it ends itself."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["/bin/umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leave_mib: float) -> None:
    """Take all of the disk but `leave_mib` MiB."""
    free = shutil.disk_usage(folder).free
    with (folder / FILLER).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(int(free - leave_mib * 2**20), 1))


def make_room(folder: Path) -> None:
    """Give back what `fill` took."""
    (folder / FILLER).unlink()
