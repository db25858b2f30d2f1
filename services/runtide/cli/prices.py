"""Price tables: read from a TOML file, kept in the warehouse, and what runs cost by them.

Promises: no price is made up. What the file does not say is not charged, and a GPU without a rate is told as not
priced. A table holds for runs that start from its `valid_from` on, so earlier runs keep the rates that they had.
"""

# ruff: noqa: S608 - values are bound parameters; only names of our own are put into the text

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from runtide.cli.store import rows
from runtide.cli.tables import print_table
from runtide.warehouse.client import Client
from runtide.wire.canary import PROJECT as CANARY
from runtide.wire.errors import BadInput

Row = dict[str, Any]
Rate = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Pattern = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Rates = Annotated[dict[Pattern, Rate], Field(max_length=500)]
BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Power(_Part):
    """What energy costs, and the watts of what has no meter."""

    kwh: Rate = 0.0
    gpu_watts: Rates = {}
    cpu_core_watts: Rate = 0.0


class Carbon(_Part):
    """A factor, and where it comes from."""

    g_per_kwh: Rate = 0.0
    source: str = Field(default="", max_length=1000)

    @model_validator(mode="after")
    def _with_source(self) -> Carbon:
        if self.g_per_kwh and not self.source.strip():
            raise ValueError("a factor needs its source: carbon.source says where it comes from")
        return self


class PriceTable(_Part):
    """One file."""

    currency: str = Field(min_length=1, max_length=16)
    valid_from: AwareDatetime | None = None
    cpu_hour: Rate = 0.0
    gpu: Rates = {}
    host: Rates = {}
    power: Power = Power()
    carbon: Carbon = Carbon()


def read_prices(path: Path) -> PriceTable:
    """Read a file. Raises BadInput naming field, value and limit."""
    try:
        return PriceTable.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "[key]")
        raise BadInput(f"{path}: {where}", repr(first["input"]), first["msg"]) from error
    except (OSError, ValueError) as error:  # not there, not UTF-8 or not TOML
        raise BadInput("FILE", str(path), f"it must be a readable TOML file: {error}") from error


_COLUMNS = """project, valid_from, currency, gpu_hour, cpu_hour, host_hour, kwh, gpu_watts, cpu_core_watts,
    carbon_g_per_kwh, carbon_source, applied_at"""
_APPLY = f"""
INSERT INTO runtide.price_rows ({_COLUMNS})
SELECT '', fromUnixTimestamp64Micro({{from:Int64}}), {{currency:String}}, {{gpu:Array(Tuple(String, Float64))}},
    {{cpu_hour:Float64}}, {{host:Array(Tuple(String, Float64))}}, {{kwh:Float64}},
    {{gpu_watts:Array(Tuple(String, Float64))}}, {{cpu_core_watts:Float64}}, {{g_per_kwh:Float64}}, {{source:String}},
    now64(6)
"""
_SHOW = f"SELECT {_COLUMNS} FROM runtide.price_rows FINAL ORDER BY valid_from DESC"


def apply(client: Client, table: PriceTable, now: datetime) -> datetime:
    """Keep a table, and say from when on it holds: as it says, else from now on, the first one for all runs."""
    since = table.valid_from or (now if rows(client, _SHOW) else BEGINNING)
    told = {
        "from": int(since.timestamp() * 1_000_000),
        "currency": table.currency,
        "gpu": _likes(table.gpu),
        "cpu_hour": table.cpu_hour,
        "host": _likes(table.host),
        "kwh": table.power.kwh,
        "gpu_watts": _likes(table.power.gpu_watts),
        "cpu_core_watts": table.power.cpu_core_watts,
        "g_per_kwh": table.carbon.g_per_kwh,
        "source": table.carbon.source,
    }
    client.command(_APPLY, parameters=told)
    return since


def _likes(rates: Mapping[str, float]) -> list[tuple[str, float]]:
    return [(like(pattern), rate) for pattern, rate in rates.items()]


def like(pattern: str) -> str:
    """A pattern with * and ? as one of LIKE."""
    quoted = "".join(f"\\{letter}" if letter in "\\%_" else letter for letter in pattern)
    return quoted.replace("*", "%").replace("?", "_")


def unlike(pattern: str) -> str:
    """A pattern of LIKE as it stood in the file."""
    found, letters = "", iter(pattern)
    for letter in letters:
        found += next(letters, "") if letter == "\\" else {"%": "*", "_": "?"}.get(letter, letter)
    return found


def tables(client: Client) -> list[Row]:
    """All price tables, the latest first, patterns as they stood in the file."""
    found = rows(client, _SHOW)
    for row in found:
        del row["project"]
        for name in ("gpu_hour", "host_hour", "gpu_watts"):
            row[name] = {unlike(each["pattern"]): each["value"] for each in row[name]}
    return found


def print_prices(found: Sequence[Row]) -> None:
    """Show `tables` to people."""
    if not found:
        print("no price table: nothing is priced")
    for row in found:
        spread: Row = {}
        for name, value in row.items():
            if isinstance(value, dict):
                spread |= {f"{name} {pattern}": rate for pattern, rate in value.items()}
            else:
                spread[name] = value
        print_table([{"prices": name, "": value} for name, value in spread.items() if value not in ("", 0.0)])


BY = {"run": "project, run_id, experiment, user", "user": "project, user", "experiment": "project, experiment"}
_COSTS = """
SELECT {by}, count() AS runs, sum(c.hours) AS hours, sum(c.gpu_hours) AS gpu_hours,
    sum(c.gpu_idle_hours) / nullIf(sum(c.gpu_watched_hours), 0) AS gpu_idle_share,
    sum(c.cpu_core_hours) AS cpu_core_hours, sum(c.energy_kwh) AS energy_kwh, sum(c.measured_kwh) AS measured_kwh,
    sum(c.carbon_g) AS carbon_g, sum(c.cost) AS cost, c.currency AS currency,
    countIf(NOT c.priced) AS not_priced, countIf(NOT c.sampled) AS not_sampled
FROM runtide.run_costs AS c
WHERE if({{project:String}} = '', project != {{canary:String}}, project = {{project:String}})
GROUP BY {by}, currency ORDER BY cost DESC, gpu_hours DESC, {by} LIMIT {{limit:UInt32}}
"""


def costs(client: Client, by: str, project: str | None, limit: int) -> list[Row]:
    """What runs cost, the dearest first; amounts in different currencies are never added."""
    return rows(client, _COSTS.format(by=BY[by]), project=project or "", canary=CANARY, limit=limit)


def print_costs(found: Sequence[Row]) -> None:
    """Show `costs` to people; an amount that is not all of it says so."""
    shown = []
    for row in found:
        rest = {name: value for name, value in row.items() if name not in ("cost", "currency", "not_priced")}
        shown.append({**rest, "cost": amount(row)})
    print_table(shown, empty="no runs")


def amount(row: Row) -> str:
    """A row of `costs` as money; what is not priced says so."""
    missing = f"{row['not_priced']} of {row['runs']} not priced" if row["not_priced"] else ""
    if row["not_priced"] == row["runs"]:
        missing = "not priced"
    money = f"{row['cost']:.2f} {row['currency']}" if row["cost"] or not missing else ""
    return ", ".join(filter(None, (money, missing)))
