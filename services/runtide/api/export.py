"""Whole projects as Parquet files, one for each view, streamed: neither side ever holds a view in memory.

A file appears under its name when all of it is written and on disk. A view is asked for in portions of runs, so that no
question is longer than a reader's may be, however large the project is.
"""

# ruff: noqa: S608 - values are bound parameters; views are named only where the store has them

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from clickhouse_connect.driver.exceptions import ClickHouseError

from runtide.api.asking import QueryFailed, rows, table
from runtide.warehouse.client import Client
from runtide.warehouse.errors import plain
from runtide.wire.errors import BadInput

PORTION = 20_000_000
"""Points of the runs that one question is about; a run is never divided."""
GROUP_ROWS = 250_000
GROUP_BYTES = 64 * 1024 * 1024
"""A row group is written when it has so many rows or bytes."""
_BYTES = frozenset({("images", "content"), ("dead_letters", "bytes")})
"""Columns that are bytes rather than text."""

Progress = Callable[[str, int], None]
"""Told the view and how many rows of it are written."""


@dataclass(frozen=True)
class Exported:
    """One file."""

    view: str
    path: str
    rows: int
    bytes: int
    seconds: float


def views(client: Client) -> list[str]:
    """Every public view, by name."""
    sql = "SELECT name FROM system.tables WHERE database = 'runtide' AND engine = 'View' ORDER BY name"
    return [row["name"] for row in rows(client, sql)]


def export(
    client: Client, project: str, to: Path, chosen: Sequence[str] | None = None, progress: Progress | None = None
) -> list[Exported]:
    """Write views of a project to `to`/VIEW.parquet; all of them where none is named. Raises BadInput, QueryFailed."""
    known = views(client)
    for view in chosen or ():
        if view not in known:
            raise BadInput("view", repr(view), f"it is one of {', '.join(known)}")
    if not rows(client, "SELECT 1 FROM runtide.streams WHERE project = {project:String} LIMIT 1", {"project": project}):
        raise BadInput("project", repr(project), "nothing is stored of it; Api().projects() lists those that have runs")
    to.mkdir(parents=True, exist_ok=True)
    ranges = _portions(client, project)
    return [_write(client, project, view, to, ranges, progress) for view in chosen or known]


def _write(
    client: Client, project: str, view: str, to: Path, ranges: Sequence[tuple[str, str]], progress: Progress | None
) -> Exported:
    began = time.monotonic()
    path, part = to / f"{view}.parquet", to / f".{view}.parquet.part"
    count = 0
    try:
        with part.open("wb") as file:
            writer: pq.ParquetWriter | None = None
            for group in _groups(_blocks(client, project, view, ranges)):
                if writer is None:
                    writer = pq.ParquetWriter(file, group.schema, compression="zstd")
                if group.num_rows:
                    writer.write_table(group)
                    count += group.num_rows
                if progress:
                    progress(view, count)
            if writer is None:  # ClickHouse sends no block where there is no row
                writer = pq.ParquetWriter(file, _schema(client, view))
            writer.close()
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return Exported(view, str(path), count, path.stat().st_size, time.monotonic() - began)


def _blocks(client: Client, project: str, view: str, ranges: Sequence[tuple[str, str]]) -> Iterator[pa.Table]:
    """Blocks as ClickHouse sends them, of one schema."""
    for low, high in ranges if _has_runs(client, view) else [("", "")]:
        bounds = (" AND run_id > {low:String}" if low else "") + (" AND run_id <= {high:String}" if high else "")
        sql = f"SELECT * FROM runtide.{view} WHERE project = {{project:String}}{bounds}"
        told = {"project": project, "low": low, "high": high}
        try:
            with client.query_arrow_stream(sql, parameters=told, use_strings=True) as stream:
                for block in stream:
                    yield _of_bytes(view, pa.Table.from_batches([block]))
        except ClickHouseError as error:
            raise QueryFailed(plain(str(error))) from error


def _groups(blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    count = size = 0
    for block in blocks:
        held.append(block)
        count, size = count + block.num_rows, size + block.nbytes
        if count >= GROUP_ROWS or size >= GROUP_BYTES:
            yield pa.concat_tables(held)
            held, count, size = [], 0, 0
    if held:
        yield pa.concat_tables(held)


def _of_bytes(view: str, block: pa.Table) -> pa.Table:
    for of, name in _BYTES:
        if of == view:
            place = block.column_names.index(name)
            block = block.set_column(place, name, block.column(name).cast(pa.binary()))
    return block


def _schema(client: Client, view: str) -> pa.Schema:
    return _of_bytes(view, table(client, f"SELECT * FROM runtide.{view} LIMIT 0")).schema


def _has_runs(client: Client, view: str) -> bool:
    sql = (
        "SELECT 1 FROM system.columns WHERE database = 'runtide' AND table = {view:String} AND name = 'run_id' LIMIT 1"
    )
    return bool(rows(client, sql, {"view": view}))


def _portions(client: Client, project: str) -> list[tuple[str, str]]:
    """Ranges of run ids, (after, up to), that leave nothing out; '' is without an end."""
    sql = (
        "SELECT run_id, sum(points) AS points FROM runtide.streams WHERE project = {project:String} "
        "GROUP BY run_id ORDER BY run_id"
    )
    edges: list[str] = []
    held: int = 0
    for row in rows(client, sql, {"project": project}):
        held += int(row["points"])
        if held >= PORTION:
            edges.append(row["run_id"])
            held = 0
    return list(zip(["", *edges], [*edges, ""], strict=True))


def report(found: Sequence[Exported]) -> list[dict[str, Any]]:
    """What was written, as plain values."""
    return [vars(one) for one in found]
