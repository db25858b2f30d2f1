"""Commands that run one part alone: gateway, sink, processor, dashboard, clickhouse, canary, migrate; agent, sync, run.

Parts of Kafka mode read `RUNTIDE_KAFKA_*` and `RUNTIDE_CLICKHOUSE_*`; see `settings` for all of them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from runtide.cli import options
from runtide.cli.settings import read_settings
from runtide.wire.errors import BadInput


def gateway() -> None:
    """Take in what agents push and publish it on Kafka. Several may serve side by side.

    Every call needs a token of `runtide token create`; only on loopback, and before the first one, nobody is asked.

    Settings: RUNTIDE_GATEWAY_*, RUNTIDE_KAFKA_*; RUNTIDE_CLICKHOUSE_* answers what is known of a run.

    Example: RUNTIDE_KAFKA_BOOTSTRAP=kafka:9092 runtide gateway
    """
    from runtide.cli import parts

    parts.start_logging()
    asyncio.run(parts.serve_gateway(read_settings()))


def sink(
    accept_loss: Annotated[
        list[str] | None,
        typer.Option(
            "--accept-loss",
            metavar="TOPIC:PARTITION:OFFSET",
            help="Go on though Kafka has deleted what was wanted, as the error names it; repeatable.",
        ),
    ] = None,
) -> None:
    """Store what is on Kafka in ClickHouse, exactly once. Several share the partitions.

    Settings: RUNTIDE_SINK_*, RUNTIDE_KAFKA_*, RUNTIDE_CLICKHOUSE_*.

    Example: RUNTIDE_KAFKA_BOOTSTRAP=kafka:9092 RUNTIDE_CLICKHOUSE_HOST=clickhouse runtide sink
    """
    from runtide.cli import parts

    parts.start_logging()
    asyncio.run(parts.serve_sink(read_settings(), accept_loss or ()))


def processor() -> None:
    """Derive runs, summaries and statistics from what is stored, told by Kafka what is new. Several share the work.

    Settings: RUNTIDE_PROCESSOR_*, RUNTIDE_KAFKA_*, RUNTIDE_CLICKHOUSE_*.

    Example: RUNTIDE_KAFKA_BOOTSTRAP=kafka:9092 RUNTIDE_CLICKHOUSE_HOST=clickhouse runtide processor
    """
    from runtide.cli import faust_worker, parts

    parts.start_logging()
    faust_worker.serve(read_settings())


def dashboard(
    port: Annotated[int | None, typer.Option("--port", metavar="N", help="8501.", show_default=False)] = None,
    host: Annotated[str | None, typer.Option("--host", help="127.0.0.1.", show_default=False)] = None,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Serve the pages. On loopback everybody sees them; RUNTIDE_DASHBOARD_SIGN_IN asks for a token or signs in by OIDC.

    Example: RUNTIDE_CLICKHOUSE_HOST=clickhouse runtide dashboard --port 8501
    """
    from runtide.cli import dashboard as pages

    settings = read_settings(home)
    pages.serve(settings, host or settings.dashboard_host, port or settings.dashboard_port, clickhouse)


def clickhouse(
    home: options.Home = None,
    port: Annotated[int | None, typer.Option("--port", metavar="N", help="HTTP; 8123.", show_default=False)] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    allow_host: Annotated[list[str] | None, typer.Option("--allow-host", help="A further name of this server.")] = None,
) -> None:
    """Serve ClickHouse's HTTP interface over the embedded engine, with its data in the home.

    Example: runtide clickhouse --home ~/experiments --port 8123
    """
    from runtide.embedded.__main__ import main as serve

    settings = read_settings(home)
    chosen = settings.clickhouse.port if port is None else port
    raise typer.Exit(serve(["--home", str(settings.home_folder), "--port", str(chosen), *_listening(host, allow_host)]))


def _listening(host: str, allowed: list[str] | None) -> list[str]:
    return ["--host", host, *(word for name in allowed or () for word in ("--allow-host", name))]


def canary(
    url: Annotated[str, typer.Option("--url", help="The gateway; RUNTIDE_URL.", envvar="RUNTIDE_URL")],
    folder: Annotated[
        Path | None, typer.Option("--dir", help="Spool of its own; HOME/canary without it.", show_default=False)
    ] = None,
    interval: Annotated[
        float | None,
        typer.Option("--interval", metavar="S", min=0.1, max=3600, help="Between two beats; 60.", show_default=False),
    ] = None,
    port: Annotated[int | None, typer.Option("--port", metavar="N", help="/metrics; 7173.", show_default=False)] = None,
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
) -> None:
    """Log a small run for ever on the way that jobs take, and watch with SQL that all of it arrives once, and how soon.

    It is of the project runtide-canary; with tokens RUNTIDE_CANARY_TOKEN is one of it. Alarm on runtide_canary_well = 0
    in its /metrics; `runtide status` and the pages show it too.

    Settings: RUNTIDE_CANARY_*; RUNTIDE_CLICKHOUSE_* names a user who may read.

    Example: RUNTIDE_CLICKHOUSE_HOST=clickhouse runtide canary --url grpcs://gateway:7171
    """
    from runtide.cli import canary as part
    from runtide.cli.home import Home
    from runtide.cli.store import store_settings

    settings = read_settings(home)
    told = {"interval_s": interval, "metrics_port": port}
    chosen = settings.canary.model_copy(update={name: value for name, value in told.items() if value is not None})
    way = part.Way(url, chosen.token, folder or Home(settings.home_folder).canary, store_settings(settings, clickhouse))
    part.run_canary(way, settings.model_copy(update={"canary": chosen}))


def migrate(
    home: options.Home = None,
    clickhouse: options.ClickHouse = None,
    users: Annotated[
        bool, typer.Option("--users", help="Print the SQL that makes a server's users instead, and change nothing.")
    ] = False,
    project: Annotated[
        list[str] | None,
        typer.Option("--project", "-p", help="With --users: a reader of this project alone, too; repeatable."),
    ] = None,
) -> None:
    """Bring ClickHouse's tables and views up to date. May be run at any time, and twice at once.

    Example: RUNTIDE_CLICKHOUSE_HOST=clickhouse runtide migrate

    Example: runtide migrate --users --project vision > users.sql
    """
    if users:
        from runtide.warehouse.users import script

        print(script(project or ()), end="")
        return
    if project:
        raise BadInput("--project", ", ".join(project), "migrate takes it with --users only: tables are of all of them")
    from runtide.cli.store import open_store
    from runtide.warehouse.migrate import migrate as apply

    with open_store(home, clickhouse, writer=True) as client:
        applied = apply(client)
    print(f"applied {', '.join(applied)}" if applied else "nothing to do: tables and views are up to date")


_ANYTHING = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def _base(name: str, text: str) -> None:
    """Never run: `runtide.cli.main` takes these commands before Typer is imported. Here for the list of commands."""
    raise AssertionError(f"{name} is not Typer's: {text}")


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (gateway, sink, processor, dashboard, clickhouse, canary, migrate):
        app.command()(command)
    for name, text in BASE.items():
        app.command(name, help=text, context_settings=_ANYTHING)(lambda name=name, text=text: _base(name, text))


BASE = {
    "agent": "Ship what jobs of this host have spooled, as a process of its own (a sidecar).",
    "sync": "Ship what is left in a spool folder, with a progress bar.",
    "run": "Start a job as its parent, so that how it ended is known exactly: runtide run -- python train.py",
}
"""Commands of the base installation; `runtide NAME --help` is theirs."""
