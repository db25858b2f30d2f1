"""The agent's unix socket: JSON lines, one request, one reply. What a job may ask of the agent of its host."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

LINE_BYTES = 512 * 1024
"""A request; one about duplicates holds a configuration."""


Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""Answers one request. Raises TypeError or ValueError for one that makes no sense."""


class Link:
    """Listens on `path`, which only the lock's holder may do."""

    def __init__(self, path: Path, answer: Answer) -> None:
        """Nothing listens yet."""
        self._path, self._answer = path, answer
        self._server: asyncio.Server | None = None

    async def listen(self, on: bool) -> None:
        """Start or stop listening. Raises OSError."""
        await (self.start() if on else self.stop())

    async def start(self) -> None:
        """Listen. Raises OSError."""
        self._path.unlink(missing_ok=True)  # left by an agent that was killed; the lock says that it is gone
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=LINE_BYTES)
        self._path.chmod(0o600)

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._path.unlink(missing_ok=True)
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._reply(line)).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError) as error:  # gone, or a line beyond the limit
            log.info("link closed: %s", error)
        finally:
            writer.close()

    async def _reply(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
        except ValueError:
            return {"ok": False, "error": "not a line of JSON"}
        if not isinstance(request, dict):
            return {"ok": False, "error": "not a JSON object"}
        try:
            return await self._answer(request)
        except (TypeError, ValueError) as error:
            return {"ok": False, "error": f"bad request: {error}"}
