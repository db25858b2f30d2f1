"""Commands about money and energy: costs, prices apply, prices show."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from runtide.cli import options
from runtide.cli.settings import read_settings
from runtide.wire.errors import BadInput

prices_app = typer.Typer(
    name="prices",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Price tables: what an hour of a GPU, a processor's core or a host costs, and energy and its carbon.

    A table is a TOML file; runtide knows no prices of its own. Earlier tables stay, for the runs of their time.
    """,
)


@prices_app.command("apply")
def apply_(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The TOML file; RUNTIDE_PRICES.", show_default=False)
    ] = None,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Check a table and let it hold: for runs that start from its valid_from on, else from now on.

    The first table without valid_from holds for all runs. One with the same valid_from is replaced.

    Example: runtide prices apply prices.toml
    """
    from runtide.cli import prices
    from runtide.cli.store import open_store

    path = file or read_settings(home).prices
    if path is None:
        raise BadInput("FILE", "missing", "name a TOML file, or set RUNTIDE_PRICES")
    table = prices.read_prices(path)
    with open_store(home, clickhouse, writer=True) as client:
        since = prices.apply(client, table, datetime.now(UTC))
    which = "all runs until the next table" if since == prices.BEGINNING else f"runs that start from {since} on"
    print(f"prices in {table.currency} hold for {which}")


@prices_app.command()
def show(
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Show all price tables, the latest first.

    Example: runtide prices show --json
    """
    from runtide.cli import prices, tables
    from runtide.cli.store import open_store

    with open_store(home, clickhouse) as client:
        found = prices.tables(client)
    tables.show(found, as_json, prices.print_prices)


def costs(
    by: Annotated[str, typer.Option("--by", help="run, user or experiment.")] = "run",
    project: options.Project = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The dearest so many.")] = 50,
    as_json: options.AsJson = False,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """What runs cost so far: hours of GPUs and cores, idle share, energy, carbon and money, the dearest first.

    Money needs a price table (`runtide prices apply`); without one runs are told as not priced.

    Example: runtide costs --by user --project vision
    """
    from runtide.cli import prices, tables
    from runtide.cli.store import open_store

    if by not in prices.BY:
        raise BadInput("--by", repr(by), f"it is one of {', '.join(prices.BY)}")
    with open_store(home, clickhouse) as client:
        found = prices.costs(client, by, project, limit)
    tables.show(found, as_json, prices.print_costs)


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(costs)
    app.add_typer(prices_app)
