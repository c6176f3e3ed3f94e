"""Vega-Lite specifications from rows, through Altair: no data of its own, no colours of its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt

from headway.records import Objective
from headway.report.rows import IN_PROCESS, OVER_HTTP, PREDICTED, Row
from headway.report.theme import LOSS, PALETTE, PERCENTILES, Theme, config

KINDS = (IN_PROCESS, OVER_HTTP, PREDICTED)
SHAPES = ("circle", "square", "diamond")
_TIPS = [
    ("variant", "variant"),
    ("plan", "plan"),
    ("rate", "holds"),
    ("latency", "latency"),
    ("quality", "quality drop"),
    ("kind", "how known"),
]


def frontier(rows: Sequence[Row], objective: Objective, theme: Theme, *, legends: bool = False) -> alt.LayerChart:
    """Latency against rate for every candidate, coloured by quality drop, with the objective's region and lines.

    Without ``legends`` the page draws them itself, where they can wrap on a narrow screen.
    """
    rates = _domain([_num(row, "rate_per_s") for row in rows] + [objective.rate_per_s or math.nan])
    latencies = _domain([_num(row, "latency_ms") for row in rows] + [(objective.latency_s or math.nan) * 1e3], spread=1.35)
    x = alt.X("rate_per_s:Q", scale=_log(rates), axis=_axis("rate held within the objective [requests/s]", rates))
    y = alt.Y("latency_ms:Q", scale=_log(latencies), axis=_axis(f"{objective.percentile_name} latency [ms]", latencies))
    limit = drop_limit(rows, objective)
    colour = alt.Color(
        "drop:Q",
        scale=alt.Scale(domain=[0, limit / 2, limit], range=list(LOSS), clamp=True, interpolate="rgb"),
        legend=alt.Legend(title="quality drop", format="~%" if limit < 1 else "~g", gradientLength=120, tickCount=3) if legends else None,
    )
    shape = alt.Shape(
        "kind:N",
        scale=alt.Scale(domain=list(KINDS), range=list(SHAPES)),
        legend=alt.Legend(title=None, symbolStrokeColor=theme.ink) if legends else None,
    )
    points = alt.Chart(alt.InlineData(values=list(rows)))
    tips = [alt.Tooltip(f"{field}:N", title=title) for field, title in _TIPS]
    measured = points.transform_filter(f"datum.kind !== '{PREDICTED}'")
    layers = [
        *_region(rates, latencies, objective, theme),
        points.transform_filter(f"datum.kind === '{PREDICTED}'")
        .mark_point(size=46, invalid="show", strokeWidth=1.2, opacity=0.75)
        .encode(x=x, y=y, color=colour, shape=shape, tooltip=tips),
        measured.transform_filter("datum.chosen").mark_point(size=330, strokeWidth=1.6, color=theme.ink, shape="circle").encode(x=x, y=y),
        measured.mark_point(filled=True, invalid="show", size=120, opacity=1).encode(
            x=x, y=y, color=colour, shape=shape, tooltip=tips, **_outline(theme)
        ),
        points.transform_filter("datum.label !== ''")
        .mark_text(dy=-14, fontSize=12, fontWeight=600, color=theme.ink)
        .encode(x=x, y=y, text="label:N"),
    ]
    return _sized(alt.layer(*layers), theme, height=380, width=820 if legends else None)


def service_curve(rows: Sequence[Row], variants: Sequence[str], theme: Theme) -> alt.LayerChart:
    """Median time of a batch by its size, the raw spread behind it (thin: all, thick: the middle half), and the fitted line."""
    batches = sorted({int(_num(row, "batch")) for row in rows})
    colour = alt.Color("variant:N", scale=alt.Scale(domain=list(variants), range=colours(len(variants))), legend=None)
    base = alt.Chart(alt.InlineData(values=list(rows))).encode(
        x=alt.X(
            "batch:Q",
            scale=alt.Scale(zero=True, nice=False, padding=8),
            axis=alt.Axis(title="batch size", values=batches, grid=False, labelOverlap="greedy"),
        ),
        color=colour,
    )
    title = "time of one batch [ms]"
    tips = [
        alt.Tooltip("variant:N"),
        alt.Tooltip("batch:Q"),
        alt.Tooltip("median:N", title="median"),
        alt.Tooltip("samples:Q", title="raw samples"),
        alt.Tooltip("capacity:N", title="capacity"),
    ]
    layers = [
        base.mark_line(strokeWidth=1.3, opacity=0.8).encode(y=alt.Y("fitted_ms:Q", title=title)),
        base.mark_rule(strokeWidth=1).encode(y=alt.Y("low_ms:Q", title=title), y2="high_ms:Q"),
        base.mark_rule(strokeWidth=4, opacity=0.45).encode(y=alt.Y("q1_ms:Q", title=title), y2="q3_ms:Q"),
        base.mark_circle(size=42, opacity=1).encode(
            y=alt.Y("median_ms:Q", title=title, scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=5)), tooltip=tips
        ),
    ]
    return _sized(alt.layer(*layers), theme, height=230)


def load_curve(
    rows: Sequence[Row], percentiles: Sequence[str], objective: Objective, theme: Theme, latencies: Sequence[float]
) -> alt.LayerChart:
    """Percentiles with intervals against offered rate; hollow where the objective was missed; a line at the bound."""
    found = _domain([*latencies, (objective.latency_s or math.nan) * 1e3])
    y_axis = _axis("latency [ms]", found)
    scale = alt.Scale(domain=list(percentiles), range=tints(len(percentiles)))
    base = alt.Chart(alt.InlineData(values=list(rows))).encode(
        x=alt.X(
            "rate_per_s:Q", scale=alt.Scale(zero=True, nice=True), axis=alt.Axis(title="offered rate [requests/s]", tickCount=5, grid=False)
        ),
        color=alt.Color("percentile:N", scale=scale, legend=None),
    )
    y = alt.Y("latency_ms:Q", scale=_log(found), axis=y_axis)
    tips = [
        alt.Tooltip("rate_per_s:Q", title="offered [1/s]", format=",.4~g"),
        alt.Tooltip("percentile:N"),
        alt.Tooltip("latency:N"),
        alt.Tooltip("verdict:N"),
    ]
    held = alt.condition("datum.verdict === 'held'", alt.value(1), alt.value(0))
    layers: list[alt.Chart] = [
        base.mark_line(strokeWidth=1.6).encode(y=y),
        base.mark_rule(strokeWidth=2, opacity=0.55).encode(y=alt.Y("low_ms:Q", scale=_log(found), axis=y_axis), y2="high_ms:Q"),
        base.mark_point(size=44, strokeWidth=1.6).encode(
            y=y, fill=alt.Fill("percentile:N", scale=scale, legend=None), fillOpacity=held, tooltip=tips
        ),
    ]
    if objective.latency_s is not None:
        layers.append(_level("y", objective.latency_s * 1e3, theme, alt.Y("bound:Q", scale=_log(found), axis=y_axis)))
    return _sized(alt.layer(*layers), theme, height=220)


def rounds(rows: Sequence[Row], objective: Objective, theme: Theme) -> alt.LayerChart:
    """The compared percentile of every role in every round, with intervals."""
    found = _domain([_num(row, key) for row in rows for key in ("low_ms", "high_ms")] + [(objective.latency_s or math.nan) * 1e3])
    axis = _axis(f"{objective.percentile_name} latency over HTTP [ms]", found)
    roles = list(dict.fromkeys(str(row["role"]) for row in rows))
    base = alt.Chart(alt.InlineData(values=list(rows))).encode(
        y=alt.Y("role:N", sort=roles, axis=alt.Axis(title=None, labelLimit=140, ticks=False, domain=False, labelColor=theme.ink)),
        yOffset=alt.YOffset("round:N"),
    )
    x = alt.X("latency_ms:Q", scale=_log(found), axis=axis)
    tips = [alt.Tooltip("role:N"), alt.Tooltip("round:N"), alt.Tooltip("latency:N"), alt.Tooltip("verdict:N")]
    layers: list[alt.Chart] = [
        base.mark_rule(strokeWidth=2, opacity=0.6, color=theme.accent).encode(
            x=alt.X("low_ms:Q", scale=_log(found), axis=axis), x2="high_ms:Q"
        ),
        base.mark_circle(size=60, opacity=1, color=theme.accent).encode(x=x, tooltip=tips),
    ]
    if objective.latency_s is not None:
        layers.append(_level("x", objective.latency_s * 1e3, theme, alt.X("bound:Q", scale=_log(found), axis=axis)))
    return _sized(alt.layer(*layers), theme, height=max(90, 48 * len(roles)))


def parity(rows: Sequence[Row], theme: Theme) -> alt.LayerChart:
    """Measured against predicted capacity; on the diagonal the prediction was right."""
    rows = [
        row
        for row in rows
        if all(
            math.isfinite(_num(row, key)) and _num(row, key) > 0 for key in ("predicted_per_s", "measured_per_s", "low_per_s", "high_per_s")
        )
    ]
    rows = [{key: value for key, value in row.items() if not isinstance(value, float) or math.isfinite(value)} for row in rows]
    found = _domain([_num(row, key) for row in rows for key in ("predicted_per_s", "low_per_s", "high_per_s")])
    x = alt.X("predicted_per_s:Q", scale=_log(found), axis=_axis("predicted capacity [requests/s]", found))
    axis = _axis("measured capacity [requests/s]", found)
    diagonal = alt.Chart(alt.InlineData(values=[{"predicted_per_s": value, "measured_per_s": value} for value in found]))
    base = alt.Chart(alt.InlineData(values=rows))
    y = alt.Y("measured_per_s:Q", scale=_log(found), axis=axis)
    tips = [alt.Tooltip("candidate:N"), alt.Tooltip("predicted_per_s:Q", format=",.4~g"), alt.Tooltip("measured_per_s:Q", format=",.4~g")]
    layers = [
        diagonal.mark_line(color=theme.muted, strokeWidth=1, strokeDash=[4, 4]).encode(x=x, y=y),
        base.mark_rule(color=theme.accent, strokeWidth=2, opacity=0.5).encode(
            x=x, y=alt.Y("low_per_s:Q", scale=_log(found), axis=axis), y2="high_per_s:Q"
        ),
        base.mark_circle(color=theme.accent, size=60, opacity=1).encode(x=x, y=y, tooltip=tips),
    ]
    return _sized(alt.layer(*layers), theme, height=300)


def colours(count: int) -> list[str]:
    """Colours for ``count`` variants; after ten they repeat, and the tooltip tells them apart."""
    return [PALETTE[i % len(PALETTE)] for i in range(count)]


def tints(count: int) -> list[str]:
    """Colours for ``count`` percentiles, the highest the strongest."""
    last = len(PERCENTILES) - 1
    return [PERCENTILES[max(0, last - (count - 1 - i))] for i in range(count)]


def drop_limit(rows: Sequence[Row], objective: Objective) -> float:
    """Where the colour scale of quality drop ends: twice the bound, or the largest drop where there is no bound."""
    if objective.drop:
        return 2 * objective.drop
    return max((float(row["drop"]) for row in rows if isinstance(row.get("drop"), (int, float))), default=0.0) or 0.01


def _region(rates: Sequence[float], latencies: Sequence[float], objective: Objective, theme: Theme) -> list[alt.Chart]:
    """The shaded region that meets the objective, and a labelled line for each bound."""
    rate, bound = objective.rate_per_s, None if objective.latency_s is None else objective.latency_s * 1e3
    x = alt.X("rate_per_s:Q", scale=_log(rates))
    y = alt.Y("latency_ms:Q", scale=_log(latencies))
    layers = []
    if rate is not None or bound is not None:
        corner = {"rate_per_s": rate or rates[0], "to": rates[1], "latency_ms": bound or latencies[1], "down": latencies[0]}
        layers.append(
            alt.Chart(alt.InlineData(values=[corner])).mark_rect(color=theme.good, opacity=0.09).encode(x=x, x2="to:Q", y=y, y2="down:Q")
        )
    if bound is not None:
        words = {"latency_ms": bound, "rate_per_s": rates[0], "text": f"{objective.percentile_name} ≤ {bound:g} ms"}
        line = alt.Chart(alt.InlineData(values=[words]))
        layers.append(line.mark_rule(color=theme.good, strokeWidth=1.4, strokeDash=[5, 4]).encode(y=y))
        layers.append(line.mark_text(align="left", dx=6, dy=-8, color=theme.good).encode(x=x, y=y, text="text:N"))
    if rate is not None:
        words = {"latency_ms": latencies[0], "rate_per_s": rate, "text": f"≥ {rate:g}/s"}
        line = alt.Chart(alt.InlineData(values=[words]))
        layers.append(line.mark_rule(color=theme.good, strokeWidth=1.4, strokeDash=[5, 4]).encode(x=x))
        layers.append(line.mark_text(align="left", dx=6, dy=-8, color=theme.good).encode(x=x, y=y, text="text:N"))
    return layers


def _level(side: str, value: float, theme: Theme, channel: alt.X | alt.Y) -> alt.Chart:
    rule = alt.Chart(alt.InlineData(values=[{"bound": value}])).mark_rule(color=theme.good, strokeWidth=1.4, strokeDash=[5, 4])
    return rule.encode(y=channel) if side == "y" else rule.encode(x=channel)


def _outline(theme: Theme) -> dict[str, object]:
    """A dark outline around members of the frontier, a paper-coloured one that parts overlapping points around the rest."""
    width = alt.condition("datum.frontier", alt.value(1.6), alt.value(1))
    return {"stroke": alt.condition("datum.frontier", alt.value(theme.ink), alt.value(theme.paper)), "strokeWidth": width}


def _sized(chart: Any, theme: Theme, *, height: int, width: int | None = None) -> alt.LayerChart:
    sized = chart.properties(
        width=width or "container", height=height, autosize=alt.AutoSizeParams(type="fit" if width else "fit-x", contains="padding")
    )
    return sized.configure(**config(theme))


def _num(row: Row, key: str) -> float:
    value = row.get(key)
    return float(value) if isinstance(value, (int, float)) else math.nan


def _domain(values: Iterable[float], spread: float = 1.2) -> tuple[float, float]:
    """Ends of a logarithmic axis with room around the finite positive values."""
    found = [value for value in values if math.isfinite(value) and value > 0]
    return (min(found) / spread, max(found) * spread) if found else (1.0, 10.0)


def _log(domain: Sequence[float]) -> alt.Scale:
    return alt.Scale(type="log", domain=list(domain), nice=False)


def _axis(title: str, domain: Sequence[float]) -> alt.Axis:
    """An axis that labels 1, 2, 5 of each decade while that stays readable, else each decade."""
    low, high = domain
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    leads: tuple[float, ...] = (1, 2, 5) if high / low < 2000 else (1,)
    if high / low < 15:
        leads = (1, 1.5, 2, 3, 5, 7) if high / low > 4 else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
    values = [float(f"{lead * 10.0**decade:.6g}") for decade in decades for lead in leads]
    return alt.Axis(title=title, values=[value for value in values if low <= value <= high], format=",~g", labelOverlap="greedy")
