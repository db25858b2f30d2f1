"""`runtide status`: parts, trouble, lag, rows and disk of one home; where nothing runs, that, and what lies there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runtide.cli.home import Home, UpState
from runtide.cli.settings import Settings
from runtide.cli.supervisor import trouble_of
from runtide.cli.tables import print_table
from runtide.spool.layout import Position, segments
from runtide.wire.errors import RuntideError

PORTS = ("gateway", "metrics", "clickhouse", "dashboard", "canary")

CANARY = ("agrees", "age_s", "delay_s", "delay_hour_s", "logged", "stored", "duplicates", "gaps", "dead", "lost")

_ROWS = """
SELECT name, total_rows FROM system.tables
WHERE database = 'runtide' AND name IN ('points', 'samples', 'log_lines', 'figures', 'events', 'dead_letters')
ORDER BY name
"""

_LAG = """
SELECT
    (SELECT sum(mark) FROM runtide.ledger FINAL) AS stored,
    (SELECT sum(mark) FROM runtide.coverage FINAL) AS derived,
    (SELECT count() FROM runtide.ledger FINAL WHERE notEmpty(holes)) AS streams_with_holes
"""


_CLOCKS = """
SELECT host, argMax(clock_ahead_s, received_at) AS clock_ahead_s, min(clock_ahead_min_s) AS clock_ahead_min_s,
    max(clock_ahead_max_s) AS clock_ahead_max_s
FROM (SELECT * FROM runtide.streams WHERE clock_ahead_s IS NOT NULL ORDER BY received_at DESC LIMIT 1000)
GROUP BY host ORDER BY host
"""
"""By host, of the streams that were heard of last."""


def read_status(settings: Settings) -> dict[str, Any]:
    """Everything that status shows, as plain values."""
    home = Home(settings.home_folder)
    state = home.read()
    serving = state if state is not None and state.alive else None
    found: dict[str, Any] = {
        "home": str(home.folder),
        "up": serving is not None,
        "ready": bool(serving and all(part.ready and part.alive for part in serving.parts.values())),
        "trouble": "",
        "parts": _parts(serving),
        "ports": {},
        "rows": {},
        "canary": {},
        "lag": {"unshipped_bytes": unshipped_bytes(home.spool)},
        "disk": {name: folder_bytes(home.folder / name) for name in ("clickhouse", "spool", "logs")},
    }
    if settings.kafka.bootstrap:
        from runtide.cli.lag import read_lag
        from runtide.cli.parts import kafka_settings

        found["kafka"] = read_lag(kafka_settings(settings))
    if serving is not None:
        ports = serving.ports
        found["ports"] = {name: port for name in PORTS if (port := getattr(ports, name))}
        found["trouble"] = trouble_of(f"http://{ports.host}:{ports.metrics}/readyz")
        found["ready"] = found["ready"] and not found["trouble"]
        try:
            found.update(_stored(settings, found["lag"]))
        except RuntideError as error:
            found["error"] = str(error)
        found["canary"] |= {"trouble": _trouble_of_canary(found["canary"], ports.canary is not None)}
        found["ready"] = found["ready"] and not found["canary"]["trouble"]
    return found


def _trouble_of_canary(seen: dict[str, Any], runs: bool) -> str:
    """What is wrong; where none runs here, what one of elsewhere has missed, but not that it has stopped."""
    if not seen:
        return "nothing is known of it yet" if runs else ""
    return str(seen["trouble"] if runs or not seen["agrees"] else "")


def show_status(found: dict[str, Any]) -> None:
    """Print it for people."""
    if not found["up"]:
        print(f"nothing runs in {found['home']}: `runtide up` starts it, --home says where else to look")
    else:
        print(f"runtide is up in {found['home']}")
        print_table([{"part": name, **part} for name, part in found["parts"].items()])
        print_table([{"port": name, "": port} for name, port in found["ports"].items()])
    if found["trouble"]:
        print(f"not ready: {found['trouble']}")
    if found["canary"].get("trouble"):
        print(f"canary: {found['canary']['trouble']}")
    if found["canary"].get("logged") is not None:
        print_table([{"canary": name, "": found["canary"][name]} for name in CANARY])
    if kafka := found.get("kafka"):
        print_table(kafka["partitions"], title="Kafka: not stored yet", empty="Kafka has no topic of records")
        for alarm in kafka["alarms"]:
            print(f"ALARM {alarm}")
        if kafka["error"]:
            print(kafka["error"])
    for text in found.get("clocks", ()):
        print(text)
    if found["rows"]:
        print_table([{"rows": name, "": count} for name, count in found["rows"].items()])
    if found["up"] or any(found["lag"].values()):
        print_table([{"lag": name, "": value} for name, value in found["lag"].items()])
    if found["up"] or any(found["disk"].values()):
        print_table([{"disk": name, "": f"{size / 2**20:.1f} MiB"} for name, size in found["disk"].items()])
    if "error" in found:
        print(f"ClickHouse: {found['error']}")


def _parts(state: UpState | None) -> dict[str, dict[str, Any]]:
    if state is None:
        return {}
    return {
        name: {"pid": part.pid, "running": part.alive, "ready": part.ready and part.alive, "restarts": part.restarts}
        for name, part in state.parts.items()
    }


def _stored(settings: Settings, lag: dict[str, int]) -> dict[str, Any]:
    from runtide.cli.reading import clock_text
    from runtide.cli.store import open_store, rows
    from runtide.warehouse.queries import canary

    with open_store(settings.home_folder) as client:
        stored = rows(client, _ROWS)
        behind = rows(client, _LAG)[0]
        seen = canary(client)
        clocks = [text for row in rows(client, _CLOCKS) if (text := clock_text(row))]
    more = {
        "underived_bytes": max(0, int(behind["stored"]) - int(behind["derived"])),
        "streams_with_holes": int(behind["streams_with_holes"]),
    }
    return {
        "rows": {row["name"]: int(row["total_rows"]) for row in stored},
        "lag": {**lag, **more},
        "canary": {name: getattr(seen, name) for name in (*CANARY, "interval_s", "trouble")} if seen else {},
        "clocks": clocks,
    }


def unshipped_bytes(spool: Path) -> int:
    """Bytes that jobs have written to the spool and no gateway has acknowledged."""
    total = 0
    for folder in spool.glob("*/*"):
        if not (folder / "stream.json").is_file():
            continue
        try:
            end = max((offset + path.stat().st_size for offset, path in segments(folder)), default=0)
        except FileNotFoundError:  # an agent that is done with the stream removes it as we look
            continue
        total += max(0, end - Position.read(folder).acknowledged)
    return total


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; files that vanish meanwhile count nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total
