"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or its name.", show_default=False)]
GatewayPort = Annotated[
    int | None, typer.Option("--gateway-port", metavar="N", help="gRPC; 7171, 0 takes a free one.", show_default=False)
]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        "--metrics-port", metavar="N", help="/metrics, /healthz; 7172, 0 takes a free one.", show_default=False
    ),
]
ClickHousePort = Annotated[
    int | None,
    typer.Option("--clickhouse-port", metavar="N", help="ClickHouse; 8123, 0 takes a free one.", show_default=False),
]
DashboardPort = Annotated[
    int | None,
    typer.Option("--dashboard-port", metavar="N", help="The pages; 8501, 0 takes a free one.", show_default=False),
]
