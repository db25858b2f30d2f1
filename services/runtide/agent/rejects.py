"""What of a stream a gateway will not take: narrowed down to the record, which is parked and becomes a gap.

Promises: a range that was split comes in smaller parts the next time; the bytes of a record that is given up stand in
rejected/, as far as the disk and `REJECTED_BYTES` allow it, and the gap says how many they were and why.
"""

from __future__ import annotations

import logging
from pathlib import Path

from runtide.spool.layout import REJECTED_DIR
from runtide.v1.records_pb2 import Gap
from runtide.wire import framing
from runtide.wire.limits import REJECTED_BYTES

log = logging.getLogger(__name__)

_DETAIL_CHARS = 500


class Rejects:
    """Where a stream is cut, and what is lost of it."""

    def __init__(self, folder: Path, stream: str) -> None:
        """Nothing is refused yet."""
        self._folder, self._stream = folder, stream
        self._gaps: dict[int, Gap] = {}
        self._stops: set[int] = set()
        self._said = ""
        self._kept = -1
        """Bytes that stand in rejected/; not looked up yet if negative."""

    def gap(self, offset: int) -> Gap | None:
        """Return the gap that begins here, if there is one."""
        return self._gaps.get(offset)

    def stop(self, offset: int) -> int | None:
        """Return where a range that begins here has to end, if anywhere."""
        return min((at for at in self._stops if at > offset), default=None)

    def settled(self, upto: int) -> None:
        """Forget what lies below."""
        self._gaps = {at: gap for at, gap in self._gaps.items() if at >= upto}
        self._stops = {at for at in self._stops if at > upto}

    def split(self, offset: int, body: bytes, suspect: int) -> None:
        """Let a range come in parts: round the record that is suspected if one is, else in halves."""
        edges = [offset + element.start for element in framing.elements(body)]
        if suspect in edges and suspect > 0:
            at = edges.index(suspect)
            self._stops.update(edge for edge in edges[at : at + 2] if edge > offset)
        else:
            self._stops.add(edges[len(edges) // 2])

    def park(self, offset: int, body: bytes, detail: str, records: int = 1, points: int = 0) -> Gap:
        """Give up what begins here, and keep its bytes as long as not too many are kept."""
        folder = self._folder / REJECTED_DIR
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if self._kept < 0:
                self._kept = sum(path.stat().st_size for path in folder.iterdir())
            if self._kept + len(body) <= REJECTED_BYTES:
                (folder / f"{offset:020d}.bin").write_bytes(body)
                self._kept += len(body)
        except OSError as error:  # a full disk: the gap still says what was lost
            log.warning("stream=%s offset=%d not parked: %s", self._stream, offset, error)
        level = logging.DEBUG if detail == self._said else logging.WARNING  # many for one reason are said once
        self._said = detail
        log.log(level, "stream=%s offset=%d bytes=%d refused: %s", self._stream, offset, len(body), detail)
        gap = Gap(reason="refused", records=records, points=points, length=len(body), detail=detail[:_DETAIL_CHARS])
        self._gaps[offset] = gap
        self._stops.add(offset)
        return gap
