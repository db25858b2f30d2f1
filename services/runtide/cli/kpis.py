"""What `runtide kpi` does: check business figures, all of a file before any is said, and hand them to the spool."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from runtide.cli.store import rows
from runtide.sdk.delivery import Arrival
from runtide.sdk.kpis import Book, Figure
from runtide.sdk.settings import DISABLED, settings
from runtide.warehouse.client import Client
from runtide.wire.errors import BadInput, RuntideError

COLUMNS = ("subject", "name", "value", "time", "unit", "goal")
NEEDED = ("subject", "name", "value", "time")
SHOWN = 20
"""So many bad lines are named; the others are counted."""
WAIT_SECONDS = 10.0

_LIST = """
SELECT project, subject, name, time, value, unit, goal, said_at, actor FROM runtide.kpis
WHERE ({project:String} = '' OR project = {project:String}) AND ({subject:String} = '' OR subject = {subject:String})
    AND ({name:String} = '' OR name = {name:String})
ORDER BY time DESC, project, subject, name LIMIT {limit:UInt32}
"""

Row = dict[str, Any]


class BadLines(RuntideError):
    """Lines of a file that cannot be; nothing of it was imported."""

    code = "bad_lines"


def read(file: Path, columns: Mapping[str, str], time: str | None, delimiter: str) -> list[Figure]:
    """All figures of a CSV file. Raises BadInput for the file, BadLines for its lines.

    `columns` says how the file calls each of `COLUMNS`; `time` is that of lines which say none.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            return list(_checked(file, opened, columns, time, delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput("FILE", repr(str(file)), f"it is a CSV file in UTF-8 ({error})") from error


def _checked(
    file: Path, opened: Iterator[str], columns: Mapping[str, str], time: str | None, delimiter: str
) -> Iterator[Figure]:
    reader = csv.DictReader(opened, delimiter=delimiter, strict=True)
    found = list(reader.fieldnames or ())
    needed = [columns[each] for each in NEEDED if each != "time" or time is None]
    if lacking := [name for name in needed if name not in found]:
        limit = f"the first line names {', '.join(needed)}; --subject-column and so on say how a file calls them"
        raise BadInput("columns", f"without {', '.join(lacking)}", limit)
    bad: list[str] = []
    seen: dict[tuple[str, str, int], int] = {}
    for row in reader:
        try:
            figure = _figure(row, columns, time)
            first = seen.setdefault((figure.subject, figure.name, figure.time_us), reader.line_num)
            if first != reader.line_num:
                raise BadInput("subject, name and time", "those of another line", f"line {first} has said it")
            yield figure
        except BadInput as error:
            bad.append(f"line {reader.line_num}: {error}")
    if bad:
        more = f"\n... and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        raise BadLines(f"nothing of {file} was imported:\n" + "\n".join(bad[:SHOWN]) + more)


def _figure(row: Mapping[Any, Any], columns: Mapping[str, str], time: str | None) -> Figure:
    if None in row:
        raise BadInput("line", f"{len(row[None])} cells longer", "it has as many cells as the first line")
    told = {each: (row.get(columns[each]) or "").strip() for each in COLUMNS}
    when = told["time"] or time
    if not when:
        raise BadInput("time", "empty", "each line says when its figure was true, or --time does for those that do not")
    return Figure.of(told["subject"], told["name"], told["value"], when, told["unit"], told["goal"])


def send(figures: Sequence[Figure], project: str | None, url: str | None, home: Path | None) -> str:
    """Say figures, wait a while until a gateway has them, and tell what has become of them. Raises OSError."""
    if home is not None:
        os.environ["RUNTIDE_HOME"] = str(home.expanduser().absolute())
    told = settings(os.environ, project=project, url=url)
    if told.mode == DISABLED:
        raise BadInput("RUNTIDE_MODE", repr(told.mode), "figures are kept in the modes online and offline")
    counted = f"{len(figures)} KPI" if len(figures) == 1 else f"{len(figures)} KPIs"
    if not figures:
        return "no KPIs"
    book = Book(told)
    for figure in figures:
        book.say(figure)
    if (lost := book.dropped) > 0:
        raise OSError(f"{lost} of {counted} could not be kept in {told.root}")
    if book.close(WAIT_SECONDS) is Arrival.ARRIVED:
        return f"{counted} sent to {told.url}"
    return f"{counted} kept in {told.root}, sent when a gateway is reachable; or run: runtide sync"


def find(
    client: Client, project: str | None, subject: str | None, name: str | None, limit: int
) -> list[dict[str, Any]]:
    """The latest figures, by the time that they are of."""
    return rows(client, _LIST, project=project or "", subject=subject or "", name=name or "", limit=limit)
