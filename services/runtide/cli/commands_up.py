"""Commands for one machine: up, down, status, demo."""

from __future__ import annotations

from typing import Annotated

import typer

from runtide.cli import options
from runtide.cli.home import Home, Ports
from runtide.cli.settings import Settings, read_settings


def say(line: str) -> None:
    """One line for people, at once."""
    print(line, flush=True)


def chosen_ports(
    settings: Settings, gateway: int | None, metrics: int | None, clickhouse: int | None, dashboard: int | None
) -> Ports:
    """Ports from the command line, else from the settings."""
    return Ports(
        gateway=settings.gateway.port if gateway is None else gateway,
        metrics=settings.gateway.metrics_port if metrics is None else metrics,
        clickhouse=settings.clickhouse.port if clickhouse is None else clickhouse,
        dashboard=settings.dashboard_port if dashboard is None else dashboard,
    )


def up(
    home: options.Home = None,
    gateway_port: options.GatewayPort = None,
    clickhouse_port: options.ClickHousePort = None,
    dashboard_port: options.DashboardPort = None,
    metrics_port: options.MetricsPort = None,
    no_dashboard: Annotated[bool, typer.Option("--no-dashboard", help="Leave the pages out.")] = False,
    canary: Annotated[bool, typer.Option("--canary", help="Log a small run for ever and watch it arrive.")] = False,
    canary_port: options.CanaryPort = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return when every part answers.")] = False,
) -> None:
    """Run all of runtide on this machine: ClickHouse, gateway, sink, processor and dashboard.

    A part that dies is started again. Ctrl-C stops everything. As long as no token was ever made, whoever is on this
    machine may push and look; from the first `runtide token create` on the gateway asks for one.

    Example: runtide up --home ~/experiments --detach
    """
    from runtide.cli import up as one_machine

    settings = read_settings(home)
    ports = chosen_ports(settings, gateway_port, metrics_port, clickhouse_port, dashboard_port)
    if no_dashboard:
        ports.dashboard = None
    if canary:
        ports.canary = settings.canary.metrics_port if canary_port is None else canary_port
    (one_machine.detach if detach else one_machine.run_up)(settings, ports, say)


def down(home: options.Home = None) -> None:
    """Stop what `runtide up` has started.

    Example: runtide down --home ~/experiments
    """
    from runtide.cli.stop import stop

    stop(Home(read_settings(home).home_folder), say)


def status(home: options.Home = None, as_json: options.AsJson = False) -> None:
    """Show the parts of `runtide up`, how far each is behind, what is stored and how much disk it takes.

    Exit code 3 where nothing runs, a part is not ready, or what comes is not stored, which it says then; and where the
    canary (`up --canary`) misses points or has not been heard.

    Example: runtide status --json
    """
    from runtide.cli.status import read_status, show_status
    from runtide.cli.tables import show

    found = read_status(read_settings(home))
    show(found, as_json, show_status)
    raise typer.Exit(0 if found["ready"] else 3)


def demo(
    home: options.Home = None,
    exit_after: Annotated[bool, typer.Option("--exit", help="Stop everything at the end, on a terminal too.")] = False,
    seconds: Annotated[float, typer.Option("--seconds", min=3, help="How long to train.")] = 20.0,
    gateway_port: options.GatewayPort = None,
    clickhouse_port: options.ClickHousePort = None,
    dashboard_port: options.DashboardPort = None,
    metrics_port: options.MetricsPort = None,
    no_dashboard: Annotated[bool, typer.Option("--no-dashboard", help="Leave the pages out.")] = False,
) -> None:
    """Train a small network on four processes and watch it arrive.

    Starts its own stack in a folder of its own, trains for some seconds, shows what SQL says and checks that all of it
    is stored once. Default ports that are taken are replaced by free ones. On a terminal it stays up until Ctrl-C.

    Example: runtide demo --exit --seconds 10
    """
    from runtide.cli.demo import run_demo

    ports = chosen_ports(read_settings(home), gateway_port, metrics_port, clickhouse_port, dashboard_port)
    if no_dashboard:
        ports.dashboard = None
    raise typer.Exit(run_demo(home, ports, seconds, exit_after, say))


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (up, down, status, demo):
        app.command()(command)
