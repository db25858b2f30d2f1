"""Which ClickHouse a command talks to, and as whom.

What is said on the command line or in `RUNTIDE_CLICKHOUSE_*` wins; otherwise it is the one of the `runtide up` that
serves the home; otherwise the default address.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError

from runtide.cli.home import Home
from runtide.cli.settings import Settings, read_settings
from runtide.embedded.secret import read_or_create_secret
from runtide.warehouse.client import ClickHouseSettings, Client, connect
from runtide.warehouse.errors import StoreBusy, plain
from runtide.wire.errors import BadInput, RuntideError, Unavailable


class QueryFailed(RuntideError):
    """ClickHouse refused a query; the text is its own."""

    code = "query_failed"


class UnknownRun(RuntideError):
    """No run, or more than one, has this id or name."""

    code = "unknown_run"


@dataclass(frozen=True, slots=True, order=True)
class RunKey:
    """The identity of a run."""

    project: str
    run_id: str


def store_settings(settings: Settings, address: str | None = None, writer: bool = False) -> ClickHouseSettings:
    """Where ClickHouse is. `writer` asks for the user that may write: the home's own, unless one is configured."""
    told = settings.clickhouse
    state = Home(settings.home_folder).read()
    host, port = told.host, told.port
    embedded = "clickhouse" not in settings.model_fields_set
    if embedded and state is not None and state.alive:
        host, port = state.ports.host, state.ports.clickhouse
    if address is not None:
        host, port = _split(address)
    username, password = told.username, told.password
    if writer and embedded:
        username, password = "writer", read_or_create_secret(settings.home_folder)
    where = {"host": host, "port": port, "username": username, "password": password}
    return ClickHouseSettings(**(told.model_dump() | where))


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise BadInput("--clickhouse", repr(address), "it must be HOST:PORT")
    return host, int(port)


@contextmanager
def open_store(home: Path | None, address: str | None = None, writer: bool = False) -> Iterator[Client]:
    """A client for one command. Raises Unavailable saying what to do, QueryFailed with ClickHouse's own text."""
    settings = read_settings(home)
    if home is not None and address is None and "clickhouse" not in settings.model_fields_set:
        _check_up(settings.home_folder)  # a home was named: the runs of another one would be a wrong answer
    store = store_settings(settings, address, writer)
    logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # what is wrong is said once, below
    try:
        client = connect(store)
    except StoreBusy as error:
        raise Unavailable(
            f"no ClickHouse answers at {store.host}:{store.port}: start `runtide up`, or say where it is with "
            "--home DIR, --clickhouse HOST:PORT or RUNTIDE_CLICKHOUSE_HOST and RUNTIDE_CLICKHOUSE_PORT"
        ) from error
    try:
        yield client
    except ClickHouseError as error:
        raise QueryFailed(plain(str(error))) from error
    finally:
        client.close()


def rows(client: Client, sql: str, **parameters: object) -> list[dict[str, Any]]:
    """Run a query and return its rows by column name."""
    return list(client.query(sql, parameters=parameters).named_results())


def _check_up(folder: Path) -> None:
    state = Home(folder).read()
    if state is None or not state.alive:
        raise Unavailable(
            f"nothing runs in {folder}: start it with `runtide up --home {folder}`, or say where ClickHouse is with "
            "--clickhouse HOST:PORT"
        )


_FIND = """
SELECT project, run_id, name FROM runtide.runs
WHERE (startsWith(run_id, {run:String}) OR name = {run:String})
    AND ({project:String} = '' OR project = {project:String})
UNION DISTINCT
SELECT project, run_id, '' FROM runtide.ledger
WHERE run_id = {run:String} AND ({project:String} = '' OR project = {project:String})
"""


def find_run(client: Client, run: str, project: str | None) -> RunKey:
    """The run with this id (PROJECT/ID too), else with this name, else whose id begins so. Raises UnknownRun."""
    if "/" in run and project is None:
        project, _, run = run.partition("/")
    named: dict[RunKey, str] = {}
    for row in rows(client, _FIND, run=run, project=project or ""):
        key = RunKey(row["project"], row["run_id"])
        named[key] = named.get(key) or row["name"]
    exact = (
        [key for key in sorted(named) if key.run_id == run]
        or [key for key in named if named[key] == run]
        or sorted(named)
    )
    if len(exact) == 1:
        return exact[0]
    if not exact:
        raise UnknownRun(
            f"there is no run {run}" + (f" in project {project}" if project else "") + "; see `runtide runs`"
        )
    listed = ", ".join(f"{key.project}/{key.run_id}" for key in exact[:10])
    raise UnknownRun(f"{run} may be one of {listed}: give the run's id, and --project where ids are equal")


def known_runs(client: Client, project: str | None) -> list[RunKey]:
    """All runs that anything is stored of, or those of one project."""
    sql = """SELECT DISTINCT project, run_id FROM runtide.ledger
        WHERE {project:String} = '' OR project = {project:String} ORDER BY project, run_id"""
    return [RunKey(**row) for row in rows(client, sql, project=project or "")]
