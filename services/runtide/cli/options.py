"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

Home = Annotated[
    Path | None,
    typer.Option("--home", help="Home of `runtide up`; RUNTIDE_HOME, else ~/.runtide.", show_default=False),
]
ClickHouse = Annotated[
    str | None,
    typer.Option(
        "--clickhouse",
        metavar="HOST:PORT",
        help="Another ClickHouse than the home's; RUNTIDE_CLICKHOUSE_*.",
        show_default=False,
    ),
]
Project = Annotated[str | None, typer.Option("--project", "-p", help="Only this project.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
Run = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run's id, the beginning of one, PROJECT/ID, or a name.", show_default=False),
]


def _port(flag: str, text: str) -> Any:
    return typer.Option(flag, metavar="N", min=0, max=65535, help=f"{text}, 0 takes a free one.", show_default=False)


GatewayPort = Annotated[int | None, _port("--gateway-port", "gRPC; 7171")]
MetricsPort = Annotated[int | None, _port("--metrics-port", "/metrics, /healthz; 7172")]
ClickHousePort = Annotated[int | None, _port("--clickhouse-port", "ClickHouse; 8123")]
CanaryPort = Annotated[int | None, _port("--canary-port", "/metrics of the canary; 7173")]
DashboardPort = Annotated[int | None, _port("--dashboard-port", "The pages; 8501")]
