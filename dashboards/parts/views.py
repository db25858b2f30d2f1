"""The views of a run: what each asks for and how it is drawn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any

import pandas as pd
import streamlit as st
from runtide.warehouse import queries
from runtide.warehouse.client import Client

from parts import address, look
from parts import charts as draw
from parts import format as say

_CHARTS = 24
_LINES = 16
"""More lines than that are a cloud; the band says more."""
_BUCKETS = 600


@dataclass(frozen=True)
class Charts:
    """The metrics that match, and the buckets of those that are shown."""

    extents: list[queries.Extent]
    shown: list[queries.Extent]
    frames: dict[str, pd.DataFrame]
    lines: bool


def ask_nothing(client: Client, row: queries.RunRow) -> None:
    """For views that need no more than the run and its streams."""
    del client, row


def ask_charts(client: Client, row: queries.RunRow) -> Charts:
    """The buckets of every chart that is shown."""
    found = queries.extents(client, row.project, row.run_id)
    like = address.get("like").lower().split()
    matching = [extent for extent in found if all(word in extent.metric.lower() for word in like)]
    matching.sort(key=lambda extent: ("/" in extent.metric, extent.metric))
    shown = matching[: _CHARTS if address.get("all") != "1" else len(matching)]
    lines = address.get("ranks", "Band") == "Lines"
    table = queries.series(
        client,
        row.project,
        row.run_id,
        shown,
        queries.Window(address.whole("from"), address.whole("to"), _BUCKETS),
        per_rank=lines,
        ranks=range(_LINES) if lines else (),
        with_time=address.get("x", "Step") == "Time",
    )
    frame = table.to_pandas() if table.num_rows else pd.DataFrame()
    frames = {str(name): part for name, part in frame.groupby("metric", sort=False)} if len(frame) else {}
    return Charts(matching, shown, frames, lines)


def charts(row: queries.RunRow, content: Charts, found: list[queries.StreamRow]) -> None:
    """Charts by section, the part of a metric's name before the slash."""
    del found
    left, x_at, rank_at, scale_at = st.columns([4, 2, 2, 2], vertical_alignment="center")
    with left:
        address.text("Metrics", "like", "Find metrics")
    with x_at:
        x = address.choice("Horizontal axis", "x", ["Step", "Time"], "Step")
    with rank_at:
        address.choice("Ranks", "ranks", ["Band", "Lines"], "Band")
    with scale_at:
        log = address.choice("Scale", "scale", ["Linear", "Log"], "Linear") == "Log"
    if not content.extents:
        st.info(
            "No metric yet. `run.log({...})` makes the first one show here within a second.",
            icon=":material/show_chart:",
        )
        return
    sections: dict[str, list[queries.Extent]] = {}
    for extent in content.shown:
        head, slash, _ = extent.metric.rpartition("/")
        sections.setdefault(head if slash else "", []).append(extent)
    for section, extents in sections.items():
        st.html(f'<div class="rt-section">{escape(section or "metrics")}</div>')
        for start in range(0, len(extents), 3):
            for column, extent in zip(st.columns(3), extents[start : start + 3], strict=False):
                with column:
                    _chart(row, extent, content, x, log)
    if len(content.shown) < len(content.extents):
        st.button(f"Show all {len(content.extents)} metrics", on_click=address.keep, args=("all", "1"), key="show-all")


def _chart(row: queries.RunRow, extent: queries.Extent, content: Charts, x: str, log: bool) -> None:
    frame = content.frames.get(extent.metric)
    if frame is None:
        return
    step = int(frame["step"].max())
    last = float(frame.loc[frame["step"] == step, "last"].mean())  # of the ranks that have it
    bad = int(frame["non_finite"].sum())
    marked = f'<span class="bad" title="NaN or Inf, left out of the curve">▲ {bad:,} not finite</span>' if bad else ""
    st.html(
        f'<div class="rt-chart" data-metric="{escape(extent.metric, quote=True)}">'
        f'<span title="{escape(extent.metric, quote=True)}">{escape(extent.metric.rpartition("/")[2])}</span>{marked}'
        f'<span title="at step {step:,}">{say.number(last)}'
        f' <span class="rt-dim" data-step="{step}">@ {step:,}</span></span></div>'
    )
    columns = ["step", "time", "mean", "min", "max", "count", "non_finite", *(["rank"] if content.lines else [])]
    if log:
        frame = frame.assign(**{name: frame[name].where(frame[name] > 0) for name in ("mean", "min", "max")})
    key = f"chart:{row.project}:{row.run_id}:{extent.metric}:{x}:{log}:{content.lines}"
    draw.metric(frame[columns], name=extent.metric, x=x, log=log, lines=content.lines, key=key)


def ask_resources(client: Client, row: queries.RunRow) -> pd.DataFrame:
    """Readings in time buckets."""
    table = queries.resources(client, row.project, row.run_id)
    return table.to_pandas() if table.num_rows else pd.DataFrame()


def resources(row: queries.RunRow, content: pd.DataFrame, found: list[queries.StreamRow]) -> None:
    """Charts by what was measured; a line for each host, device and rank."""
    del found
    if not len(content):
        st.info(
            "No reading yet. The agent takes the first within 5 s of a run's start.", icon=":material/monitor_heart:"
        )
        return
    hosts = sorted(str(host) for host in content["host"].unique())
    picked = address.several("Hosts", "hosts", hosts, "All hosts") if len(hosts) > 1 else []
    frame = content[content["host"].isin(picked)] if picked else content
    kinds = {"": "Host", "process": "Processes", "disk": "Disk", "net": "Network"}
    frame = frame.assign(
        kind=frame["device"].map(lambda device: kinds.get(device, "Devices")),
        who=frame.apply(lambda line: _who(line, len(hosts) > 1), axis=1),
    )
    for kind in ["Devices", "Host", "Processes", "Disk", "Network"]:
        part = frame[frame["kind"] == kind]
        if not len(part):
            continue
        st.html(f'<div class="rt-section">{kind}</div>')
        names = sorted(part["name"].unique())
        for start in range(0, len(names), 3):
            for column, name in zip(st.columns(3), names[start : start + 3], strict=False):
                with column:
                    _resource(row, part[part["name"] == name], str(name), kind)


def _who(line: Any, many: bool) -> str:
    parts = [line["host"]] if many else []
    parts += [f"rank {line['rank']}"] if line["rank"] >= 0 else ([line["device"]] if line["device"] else [])
    return " ".join(parts) or str(line["host"])


def _resource(row: queries.RunRow, frame: pd.DataFrame, name: str, kind: str) -> None:
    newest = frame.sort_values("time").groupby("who").tail(1)["last"].max()
    words = name.removesuffix("_bytes").removesuffix("_percent").replace("_", " ")
    value = say.size(newest) if "bytes" in name else f"{say.number(round(float(newest), 1))}{_unit(name)}"
    if "bytes" in name and "per_second" in name:
        value += "/s"
    st.html(f'<div class="rt-chart"><span title="{escape(name)}">{escape(words)}</span><span>{value}</span></div>')
    columns = ["time", "mean", "min", "max", "who"]
    draw.resource(frame[columns], name=name, key=f"resource:{row.project}:{row.run_id}:{kind}:{name}")


def _unit(name: str) -> str:
    for end, unit in (("percent", " %"), ("watts", " W"), ("celsius", " °C"), ("seconds", " s"), ("mhz", " MHz")):
        if name.endswith(end):
            return unit
    return ""


def ask_logs(client: Client, row: queries.RunRow) -> list[queries.LogRow]:
    """The last lines that match."""
    rank = address.whole("rank", -(2**31), 2**31 - 1)
    return queries.log_tail(
        client,
        row.project,
        row.run_id,
        text=address.get("log"),
        ranks=() if rank is None else [rank],
        consoles=[address.get("console")] if address.get("console") in {"stdout", "stderr"} else (),
        limit=300,
    )


def logs(row: queries.RunRow, content: list[queries.LogRow], found: list[queries.StreamRow]) -> None:
    """The tail of the console, newest at the bottom."""
    text_at, console_at, rank_at = st.columns([5, 3, 2], vertical_alignment="center")
    with text_at:
        address.text("Find in log", "log", "Find in log")
    with console_at:
        address.choice("Console", "console", ["both", "stdout", "stderr"], "both")
    ranks = sorted({stream.rank for stream in found if stream.role != "agent"})
    with rank_at:
        if len(ranks) > 1:
            address.one("Rank", "rank", ["", *map(str, ranks)], "", {"": "All ranks"})
    if not content:
        st.info("No line." if address.get("log") else "Nothing printed yet.", icon=":material/terminal:")
        return
    many = row.world_size > 1
    lines = "".join(
        f'<div class="{"err" if line.stream == "stderr" else ""}"><span title="{say.exact(line.time)}">'
        f"{line.time.astimezone(UTC):%H:%M:%S}{f' rank {line.rank}' if many else ''}</span>{escape(line.line)}</div>"
        for line in reversed(content)  # the box grows upwards, which keeps it at its end without a script
    )
    st.html(f'<div class="rt-log" role="log" tabindex="0" aria-label="Log">{lines}</div>')
    st.caption(f"Last {len(content)} lines" + (" that match" if address.get("log") else ""))


def configuration(row: queries.RunRow, content: None, found: list[queries.StreamRow]) -> None:
    """Configuration, notes and what run.summary holds."""
    del content, found
    config, summary = _json(row.config), _json(row.summary)
    left, right = st.columns(2)
    with left:
        st.html('<div class="rt-section">Configuration</div>')
        if config:
            st.html(_pairs(config, "Configuration"))
        else:
            st.caption("None was given: `runtide.init(config={...})`")
    with right:
        st.html('<div class="rt-section">Summary</div>')
        if summary:
            st.html(_pairs(summary, "Summary"))
        else:
            st.caption("Nothing yet")
        if row.notes:
            st.html('<div class="rt-section">Notes</div>')
            st.text(row.notes)


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {"(not JSON)": text}
    return value if isinstance(value, dict) else {"": value}


def _pairs(values: dict[str, Any], label: str) -> str:
    lines = [(escape(key), f"<code>{escape(_value(value))}</code>") for key, value in sorted(values.items())]
    return look.table([("Key", ""), ("Value", "wrap")], lines, label)


def _value(value: Any) -> str:
    return say.number(value) if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def streams(row: queries.RunRow, content: None, found: list[queries.StreamRow]) -> None:
    """What is stored of each stream, and whether anything of it is missing."""
    del row, content
    if not found:
        st.info("No stream has come yet.", icon=":material/cable:")
        return
    holes, gaps, dead = (sum(n) for n in zip(*((len(s.holes), s.gaps, s.dead) for s in found), strict=True))
    lost = sum(stream.lost_records for stream in found)
    if holes or gaps or dead:
        st.warning(
            f"{lost:,} records lost in {gaps:,} gaps; {holes:,} ranges not here yet; {dead:,} dead letters.",
            icon=":material/warning:",
        )
    else:
        st.success("0 lost: no gap, no hole, no dead letter.", icon=":material/verified:")
    now = datetime.now(UTC)
    heads = [("Stream", ""), ("Role", ""), ("Rank", "n"), ("Host", "rt-later"), ("Attempt", "n rt-later")]
    heads += [("Stored to", "n"), ("Derived lag", "n"), ("Records", "n"), ("Points", "n"), ("Holes", "n")]
    heads += [("Gaps", "n"), ("Dead", "n"), ("Last step", "n"), ("Last heard", ""), ("Closed", "")]
    st.html(look.table(heads, (_stream(stream, now) for stream in found), "Streams"))


def _stream(stream: queries.StreamRow, now: datetime) -> list[str]:
    behind = max(stream.stored_offset - stream.derived_offset, 0)
    holes = "".join(f"[{start:,}, {end:,}) " for start, end in stream.holes)
    return [
        f'<span class="rt-id" title="{escape(stream.stream)}">{escape(stream.stream[-10:])}</span>',
        escape(stream.role),
        "" if stream.role == "agent" else str(stream.rank),
        escape(stream.host),
        str(stream.attempt),
        f'<span title="{stream.stored_offset:,} bytes">{say.size(stream.stored_offset)}</span>',
        say.size(behind),
        say.count(stream.records),
        say.count(stream.points),
        f'<span title="{holes}">{len(stream.holes)}</span>',
        say.count(stream.gaps),
        say.count(stream.dead),
        say.count(stream.last_step),
        look.moment(stream.received_at, say.ago(stream.received_at, now), say.exact(stream.received_at)),
        "open" if stream.closed_at is None else
        look.moment(stream.closed_at, say.ago(stream.closed_at, now), say.exact(stream.closed_at)),
    ]  # fmt: skip
