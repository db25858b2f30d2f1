"""A tailed stream: what of it is read, in flight, acknowledged, refused or lost.

Promises: ranges come in order and none is passed over; what is not acknowledged comes again after `settle`; a refused
range is narrowed down to the record, which is parked in rejected/ and declared as a gap; a segment is deleted only when
all of it is acknowledged and position.json says so. Blocks for local file calls only.
"""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from runtide.agent.rejects import Rejects
from runtide.spool.layout import POSITION_FILE, REJECTED_DIR, Position, StreamInfo, replace_file, segments
from runtide.spool.reader import MISSING, Cut, Damage, SegmentReader
from runtide.v1.ingest_pb2 import Range, Refusal
from runtide.v1.records_pb2 import Gap, KeySet
from runtide.wire import framing
from runtide.wire.limits import BATCH_BYTES, RECORD_BYTES

log = logging.getLogger(__name__)

SAVE_EVERY_S = 0.1
"""How often position.json is written while a stream moves."""

SAVE_FAILED_S = 5.0
"""How long a disk that would not take position.json is left alone."""

END_FILE = "end.json"
"""The agent's note that it knows how a stream ended, so that the next agent does not say it again."""

_RANGE_BYTES = 512
_NAMES_BYTES = 64 << 10
_FRAME_BYTES = 16
_CAREFUL_BYTES = 64 << 10
"""So much is looked at at once of a stream whose ranges are cut at single records."""
_CLEAN_EVERY_BYTES = 4 << 20
_FRAMING_CODES = frozenset({"crc", "framing"})
_RECORD_CODES = frozenset({"crc", "framing", "record_too_large"})
"""Refusals that name the offending record."""
_NAMES_CODE = "metric_names"
"""The refusal of a key set whose names are more than a run may have."""
_WHOLE_CODES = frozenset({"identity", "extent"})
"""Refusals of every record that the stream could ever send."""


@dataclass(frozen=True, slots=True)
class End:
    """How a stream ended, as end.json keeps it."""

    offset: int
    closed: bool
    reported: bool

    def write(self, folder: Path) -> None:
        """Write end.json."""
        replace_file(
            folder / END_FILE, json.dumps({"offset": self.offset, "closed": self.closed, "reported": self.reported})
        )

    @classmethod
    def read(cls, folder: Path) -> End | None:
        """Read end.json; None where there is none."""
        try:
            found = json.loads((folder / END_FILE).read_text())
            return cls(int(found["offset"]), bool(found["closed"]), bool(found["reported"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True, slots=True)
class Piece:
    """One range on its way: either bytes or a gap."""

    offset: int
    end: int
    body: bytes = b""
    records: int = 0
    key_sets: tuple[KeySet, ...] = ()
    gap: Gap | None = None
    closed: bool = False

    @property
    def beside(self) -> int:
        """About how many bytes it takes in a Push beside its body."""
        return sum(key_set.ByteSize() for key_set in self.key_sets) + _RANGE_BYTES


class TailedStream:
    """One stream folder and how far it is shipped."""

    def __init__(self, folder: Path, info: StreamInfo, foreign: bool = False) -> None:
        """Start at what position.json says is acknowledged."""
        self.folder = folder
        self.info = info
        self.foreign = foreign
        """It is of another host or boot: nothing can be known here of its process."""
        self.position = Position.read(folder)
        self.reader = SegmentReader(folder, self.position.acknowledged)
        self.adopted_end = written(folder)
        """Where it ended when it was adopted; a torn record may be part of that."""
        self._position_path = str(folder / POSITION_FILE)
        self.in_flight = False
        self.dead = False
        """Its process has ended: nothing more will be written."""
        self.end = End.read(folder)
        self.closed = self.end is not None and self.end.closed
        """Its last word has been acknowledged."""
        self.held: set[str] = set()
        """By whom what lies in its folder is still needed."""
        self.stored_wanted_until = 0.0
        self.drained = False
        """Dead, and everything whole has been read and acknowledged."""
        self.exhausted = False
        """The last look found nothing whole."""
        self.grown_at = float("-inf")
        self.shipped_at = float("-inf")
        self.poll_due = 0.0
        self.put_off_until = float("-inf")
        """The gateway takes nothing of it before."""
        self._over: dict[int, str] = {}
        """Key sets that the gateway does not take, and why: a limit of the run. Asked anew by the next agent."""
        self._seen = -1
        self._rejects = Rejects(folder, info.stream)
        self._verify_until = 0
        self._dirty = False
        self._saved_at = float("-inf")
        self._save_again_at = float("-inf")
        self._cleaned_to = 0
        self._synced = -1
        self._synced_segment = -1

    @property
    def speaks(self) -> bool:
        """More may be written in it."""
        return not self.dead and not self.closed

    @property
    def reported(self) -> bool:
        """How it ended has been said."""
        return self.end is not None and self.end.reported

    @property
    def silent(self) -> bool:
        """Nothing has ever been said in it."""
        return self.reader.position == 0 and self.reader.unread() == 0

    @property
    def at_rest(self) -> bool:
        """Everything whole has been read and acknowledged; a torn record may wait for its rest."""
        settled = not self.in_flight and self.acknowledged == self.reader.position
        return settled and (self.exhausted or self.reader.unread() == 0)

    @property
    def acknowledged(self) -> int:
        """Everything below is safe."""
        return self.position.acknowledged

    def waiting(self, now: float) -> bool:
        """Look at the file sizes and say whether there is something to take; decides when to look again."""
        unread = self.reader.unread()
        seen = self.reader.position + unread
        if seen != self._seen:
            self._seen, self.grown_at, self.exhausted = seen, now, False
        quiet = now - self.grown_at
        self.poll_due = now + (0.0 if quiet < 5 else 0.2 if quiet < 60 else 0.4)
        torn = unread > 0 and quiet > 0.2  # look at a torn tail seldom
        if torn:
            self.poll_due = max(self.poll_due, now + 0.2)
        return unread > 0 or (self.dead and not self.drained) or self._rejects.gap(self.reader.position) is not None

    def take(self, limit: int = BATCH_BYTES) -> Piece | None:
        """Cut the next range of at most about `limit` bytes; None where nothing whole waits. Raises OSError."""
        offset = self.reader.position
        if (gap := self._rejects.gap(offset)) is not None:
            return self._gap_piece(offset, gap)
        if self._over:
            limit = min(limit, _CAREFUL_BYTES)
        stop = self._rejects.stop(offset)
        found = self.reader.cut(limit, stop=stop, dead=self.dead)
        self.exhausted = found is None
        if found is None:
            self.drained = self.dead and not self.in_flight and self.acknowledged == self.reader.position
            return None
        if isinstance(found, Cut) and found.records > 1 and (names := _names_bytes(found)) > _NAMES_BYTES:
            self.reader.rewind(offset)  # names and body together have to fit
            found = self.reader.cut(max(1, min(limit, BATCH_BYTES - names)), stop=stop, dead=self.dead) or found
        self.drained = False
        if isinstance(found, Damage):
            if found.detail == MISSING and self._catch_up():
                return None
            log.warning(
                "stream=%s offset=%d bytes=%d damaged: %s", self.info.stream, offset, found.length, found.detail
            )
            gap = Gap(reason="damaged", records=1, length=found.length, detail=found.detail)
            return self._gap_piece(offset, gap)
        if len(found.body) > RECORD_BYTES + _FRAME_BYTES and found.records == 1:
            detail = f"record of {len(found.body)} bytes, limit {RECORD_BYTES}"
            return self._gap_piece(offset, self._rejects.park(offset, found.body, detail))
        if self._over and (lost := self._over_limit(offset, found.body)) is not None:
            return lost
        return Piece(offset, found.end, found.body, found.records, found.key_sets, None, found.closed)

    def _over_limit(self, offset: int, body: bytes) -> Piece | None:
        """Cut a range before its first record under a key set that is not taken; a range of such ones is a gap.

        Every crc is looked at on the way, so the edges are true ones and the gap need not wait for what is before it.
        """
        end, records, points, why = 0, 0, 0, ""
        for element in framing.elements(body):
            over = self._over.get(framing.key_set_of(body, element), "")
            if not framing.sound(body, element) or (element.start and bool(over) != bool(why)):
                break
            why = why or over
            end, records, points = element.end, records + 1, points + framing.step_points(body, element)
        if not why:
            if 0 < end < len(body):
                self.reader.rewind(offset)
                return self.take(end)
            return None
        gap = self._rejects.park(offset, body[:end], why, records, points)
        self.reader.rewind(offset + end)
        return Piece(offset, offset + end, gap=gap)

    def _catch_up(self) -> bool:
        """Whether another agent, which has deleted what is missing here, has come further: then go on from there."""
        found = Position.read(self.folder)
        if found.acknowledged <= self.acknowledged:
            return False
        self.position = found
        self.reader.rewind(found.acknowledged)
        self.exhausted = False
        return True

    def _gap_piece(self, offset: int, gap: Gap) -> Piece | None:
        """Declare a gap only when all before it is acknowledged: the gateway has checked that this is a true edge."""
        if offset != self.acknowledged:
            self.reader.rewind(offset)
            return None
        self.reader.position = offset + gap.length
        return Piece(offset, offset + gap.length, gap=gap)

    def message(self, piece: Piece) -> Range:
        """Build the range as it goes into a Push."""
        info = self.info
        return Range(
            stream=info.stream,
            offset=piece.offset,
            run_id=info.run_id,
            rank=info.rank,
            attempt=info.attempt,
            host=info.host,
            role=info.role,  # type: ignore[arg-type]  # as stream.json gives it
            project=info.project,
            key_sets=piece.key_sets,
            gap=piece.gap,
            body=piece.body,
        )

    def acknowledge(self, piece: Piece, upto: int, now: float) -> None:
        """Take note that everything of the stream below `upto` is safe, as said for `piece`."""
        if piece.offset != self.acknowledged or upto <= piece.offset:
            return  # an earlier range of the same Push was refused: this one comes again and is known as a copy there
        self.position.acknowledged = min(upto, piece.end)
        self.position.error = ""
        self.shipped_at = now
        self._dirty = True
        if piece.gap is not None:
            self.position.gap_records += piece.gap.records
        self._rejects.settled(self.acknowledged)
        if self.acknowledged >= self._verify_until:
            self.reader.verify = False
        if piece.closed and self.acknowledged == piece.end:
            self.closed = True

    def settle(self) -> None:
        """The Push is over: whatever of it is not acknowledged will be cut again."""
        self.in_flight = False
        if self.reader.position != self.acknowledged:
            self.reader.rewind(self.acknowledged)

    def refuse(self, piece: Piece, refusal: Refusal, now: float) -> None:
        """Narrow a refusal for good down: check crcs here, then halve, then park the one record."""
        detail = " ".join(filter(None, (refusal.code, refusal.field, refusal.value, refusal.limit)))
        if piece.gap is not None:
            log.error("stream=%s offset=%d gap refused, given up: %s", self.info.stream, piece.offset, detail)
            self.acknowledge(piece, piece.end, now)
        elif refusal.code == _NAMES_CODE and refusal.key_sets:
            self._over.update(dict.fromkeys(refusal.key_sets, detail))
        elif refusal.code in _FRAMING_CODES and not self.reader.verify:
            self.reader.verify, self._verify_until = True, piece.end
        elif piece.records <= 1 or refusal.code in _WHOLE_CODES:
            self._rejects.park(piece.offset, piece.body, detail, piece.records)
        else:
            suspect = refusal.offset if refusal.code in _RECORD_CODES else 0
            self._rejects.split(piece.offset, piece.body, suspect)

    def put_off(self, until: float, text: str) -> None:
        """Ship nothing before `until`, while other streams go on; everything is kept."""
        self.put_off_until = self.poll_due = until
        self.say_error(text)

    def say_error(self, text: str) -> None:
        """Say in position.json why nothing moves."""
        if self.position.error != text:
            self.position.error = text
            self._dirty = True
            self._saved_at = float("-inf")

    def say_stored(self, stored: int) -> None:
        """Take note of what the store holds."""
        if stored > self.position.stored:
            self.position.stored = stored
            self._dirty = True
            self._saved_at = float("-inf")

    def save(self, now: float, every_s: float) -> None:
        """Write position.json if it is due, then delete the segments that it makes superfluous. Raises OSError."""
        idle = not self.in_flight and self.reader.position >= self._seen and every_s <= SAVE_EVERY_S
        if not self._dirty or now < self._save_again_at:
            return
        if not (idle or self.closed or now - self._saved_at >= every_s):
            return
        self._saved_at, self._save_again_at = now, now + SAVE_FAILED_S
        try:
            self._note_position()
        except OSError as error:
            # A full disk would stay full, so what has arrived goes first. Were the agent killed in between, the next
            # one would declare these bytes lost; the sink has them and would take no notice.
            if error.errno != errno.ENOSPC or not self._delete_segments():
                raise
            self._note_position()
        self._dirty, self._save_again_at = False, float("-inf")
        if self.acknowledged - self._cleaned_to >= _CLEAN_EVERY_BYTES:
            self._cleaned_to = self.acknowledged
            self._delete_segments()
        if self.closed and self.end is None:
            self.finish(End(self.acknowledged, closed=True, reported=False))

    def finish(self, end: End) -> None:
        """Take note, durably where the disk allows it, of how the stream ended."""
        self.end = end
        try:
            end.write(self.folder)
        except OSError as error:  # then the next agent says it once more, which changes nothing
            log.warning("stream=%s end not noted: %s", self.info.stream, error)

    def _note_position(self) -> None:
        _replace_quickly(self._position_path, json.dumps(asdict(self.position)))

    def _delete_segments(self) -> int:
        """Delete what is wholly acknowledged, but for the last segment; returns how many that were."""
        found = segments(self.folder)
        over = [path for (_, path), (following, _) in itertools.pairwise(found) if following <= self.acknowledged]
        for path in over:
            path.unlink(missing_ok=True)
        return len(over)

    def make_room(self) -> None:
        """Delete the last segment of an ended stream too, all of which is acknowledged."""
        for _, path in segments(self.folder):
            path.unlink(missing_ok=True)

    def remove(self) -> bool:
        """Delete an ended stream, all of which is acknowledged; False where refused bytes stay. Raises OSError."""
        if (self.folder / REJECTED_DIR).exists():
            for _, path in segments(self.folder):
                path.unlink(missing_ok=True)
            return False
        shutil.rmtree(self.folder)
        return True

    def sync_to_disk(self) -> None:
        """Fsync what is not acknowledged yet. Called from another thread; touches nothing that the loop changes."""
        for first, path in segments(self.folder):
            end = first + path.stat().st_size
            if end <= self._synced or end <= self.acknowledged:
                continue
            _fsync(path)
            if first != self._synced_segment:  # the name of a new segment, and of a new stream
                _fsync(self.folder)
                _fsync(self.folder.parent)
                self._synced_segment = first
            self._synced = end


def written(folder: Path) -> int:
    """Return where a stream ends now: the offset of the byte after its last. Raises OSError."""
    last = segments(folder)[-1:]
    return last[0][0] + last[0][1].stat().st_size if last else 0


def _names_bytes(cut: Cut) -> int:
    return sum(key_set.ByteSize() for key_set in cut.key_sets)


def _fsync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _replace_quickly(path: str, text: str) -> None:
    """Like `layout.replace_file`, at a third of the cost: one agent alone writes this file, so one other name does."""
    made = f"{path}.new"
    file = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)
    os.replace(made, path)  # noqa: PTH105  pathlib takes longer
