"""The writer's password: made once, kept in `home/secret`, readable by its owner only."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

SECRET_FILE = "secret"  # noqa: S105 - the name of the file, not a password


def read_or_create_secret(home: Path) -> str:
    """Return the writer's password of this home, making it when there is none.

    Promise: two processes that start at once agree, because the file appears whole by a link.
    Raises: OSError when the home cannot be written.
    """
    home.mkdir(parents=True, exist_ok=True)
    path = home / SECRET_FILE
    if not path.exists():
        draft = home / f".{SECRET_FILE}.{os.getpid()}.{secrets.token_hex(4)}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # the other one was first: its password is the password
        finally:
            draft.unlink()
    password = path.read_text().strip()
    if not password:
        raise ValueError(f"{path} is empty; delete it and start again")
    return password
