"""Charts as Vega-Lite. The specification depends on what is drawn, never on its values.

So a refresh only swaps the data, and zoom, hover and scroll stay.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from parts import palette

_HEIGHT = 190


def metric(frame: pd.DataFrame, *, name: str, x: str, log: bool, lines: bool, key: str) -> None:
    """One metric: the band from minimum to maximum with the mean, or a line for each rank.

    The frame has step, time, mean, min, max, count, non_finite and, for lines, rank.
    """
    colour = palette.of_name(name)
    across = _across(x)
    y = {"type": "quantitative", "title": None, "scale": {"zero": False, "type": "log" if log else "linear"}}
    y["axis"] = {"tickCount": 4}
    band = {
        "mark": {  # its edge shows a spike of one bucket, which is too thin for its area to be seen
            "type": "area",
            "fill": colour,
            "fillOpacity": 0.22,
            "stroke": colour,
            "strokeOpacity": 0.4,
            "strokeWidth": 0.6,
        },
        "encoding": {"y": {**y, "field": "min"}, "y2": {"field": "max"}},
    }
    line: dict[str, Any] = {
        "mark": {"type": "line", "strokeWidth": 1.5, "color": colour, "interpolate": "linear"},
        "encoding": {"y": {**y, "field": "mean"}},
    }
    if lines:
        line["mark"]["strokeWidth"] = 1.1
        line["encoding"]["color"] = _by_rank(sorted(int(rank) for rank in frame["rank"].unique()))
    bad = {
        "transform": [{"filter": "datum.non_finite > 0"}],
        "mark": {
            "type": "point",
            "shape": "triangle-up",
            "filled": True,
            "size": 45,
            "yOffset": -5,
            "color": palette.seen(palette.VERMILION),
        },
        "encoding": {
            "y": {"value": "height"},
            "tooltip": [*_tip(x), {"field": "non_finite", "title": "NaN or Inf", "format": ","}],
        },
    }
    alone = {  # of a single point there is no line to see
        "transform": [
            {"joinaggregate": [{"op": "count", "as": "points"}], "groupby": ["rank"] if lines else []},
            {"filter": "datum.points == 1"},
        ],
        "mark": {"type": "point", "filled": True, "size": 30, "color": colour, "opacity": 1},
        "encoding": line["encoding"],
    }
    layers = [line] if lines else [band, line]
    _show(frame, [*layers, alone, _hover(x, lines), bad], across, key, f"{name} over {x.lower()}", zoom=True)


def resource(frame: pd.DataFrame, *, name: str, key: str) -> None:
    """One reading over time: a line for each `who`, with the band of each bucket."""
    names = sorted(str(who) for who in frame["who"].unique())
    colour = {
        "field": "who",
        "type": "nominal",
        "title": None,
        "scale": {"domain": names, "range": [palette.of_name(who) for who in names] if len(names) > 6 else
                  [palette.seen(colour) for colour in palette.SERIES[: len(names)]]},
        "legend": {"orient": "bottom", "columns": 3, "symbolType": "stroke"} if len(names) > 1 else None,
    }  # fmt: skip
    y = {
        "type": "quantitative",
        "title": None,
        "axis": {"tickCount": 4, **({"format": "~s"} if "bytes" in name else {})},
    }
    layers = [
        {
            "mark": {"type": "area", "opacity": 0.18},
            "encoding": {"y": {**y, "field": "min"}, "y2": {"field": "max"}, "color": colour},
        },
        {
            "mark": {"type": "line", "strokeWidth": 1.3, "tooltip": True},
            "encoding": {"y": {**y, "field": "mean"}, "color": colour},
        },
    ]
    _show(frame, layers, _across("Time"), key, f"{name} over time")


def _across(x: str) -> dict[str, Any]:
    if x == "Time":
        return {"field": "time", "type": "temporal", "title": None, "axis": {"tickCount": 5}}
    axis = {"tickCount": 5, "format": "~s", "labelExpr": "datum.value === 0 ? '0' : datum.label"}  # or it says 0k
    return {
        "field": "step",
        "type": "quantitative",
        "title": None,
        "scale": {"zero": False, "nice": False},
        "axis": axis,
    }


def _by_rank(ranks: list[int]) -> dict[str, Any]:
    return {
        "field": "rank",
        "type": "nominal",
        "title": "rank",
        "scale": {"domain": ranks, "range": [palette.of_rank(rank) for rank in ranks]},
        "legend": {"orient": "bottom", "columns": 8, "symbolType": "stroke"},
    }


def _tip(x: str) -> list[dict[str, Any]]:
    where = {"field": "step", "type": "quantitative", "title": "step", "format": ",d"}
    if x != "Time":
        return [where]
    when = {"field": "time", "type": "temporal", "title": "time", "format": "%Y-%m-%d %H:%M:%S"}
    return [when, where]


def _hover(x: str, lines: bool) -> dict[str, Any]:
    """A rule that follows the pointer and tells the nearest bucket."""
    values = [{"field": field, "type": "quantitative", "format": ".5~g"} for field in ("mean", "min", "max")]
    rank = [{"field": "rank", "type": "nominal"}] if lines else []
    count = [{"field": "count", "type": "quantitative", "title": "points", "format": ","}]
    return {
        "params": [
            {
                "name": "near",
                "select": {"type": "point", "on": "pointermove", "clear": "pointerout", "nearest": True,
                           "encodings": ["x"]},
            },
            {
                "name": "zoom",
                "select": {"type": "interval", "encodings": ["x"], "zoom": "wheel![event.ctrlKey || event.shiftKey]"},
                "bind": "scales",
            },
        ],
        "mark": {"type": "rule", "strokeWidth": 1},
        "encoding": {
            "opacity": {"condition": {"param": "near", "empty": False, "value": 0.45}, "value": 0},
            "tooltip": [*_tip(x), *rank, *values, *count],
        },
    }  # fmt: skip


def _show(
    frame: pd.DataFrame, layers: list[dict[str, Any]], across: dict[str, Any], key: str, alt: str, zoom: bool = False
) -> None:
    spec = {
        "height": _HEIGHT,
        "description": alt,
        "encoding": {"x": across},
        "layer": layers,
        "padding": {"left": 2, "right": 6, "top": 4, "bottom": 0},
        "autosize": {"type": "fit", "contains": "padding"},
    }
    # Streamlit forgets a zoom whenever the data change, unless it is a selection that the app has asked for.
    if zoom:
        st.vega_lite_chart(
            frame, spec, width="stretch", height=_HEIGHT, key=key, on_select="rerun", selection_mode="zoom"
        )
    else:
        st.vega_lite_chart(frame, spec, width="stretch", height=_HEIGHT, key=key)
