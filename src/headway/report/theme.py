"""The colours of the pictures: names of the page's own CSS variables, so that one picture fits light, dark and print."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"
# Mid-tones that stand out on white and on near-black, told apart with any colour vision in this order.
PALETTE = ("#3b7dd8", "#e08a2e", "#1f9d7a", "#b45fc6", "#d1495b", "#7f8c2b", "#4fa9c4", "#a0694b", "#6b70d6", "#8a8f98")
# No loss, at the bound, twice the bound.
LOSS = ("#2f7fb8", "#d9a11e", "#c0392b")
UNKNOWN = "#8a8f98"  # a point whose quality nobody scored
PERCENTILES = ("#9db8d9", "#6f9bd1", "#4a83cb", "#2a5fa8", "#1c4278")


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours a chart takes from its surroundings."""

    ink: str
    muted: str
    grid: str
    paper: str
    backdrop: str
    accent: str
    good: str


PAGE = Theme(
    ink="var(--ink)",
    muted="var(--muted)",
    grid="var(--line)",
    paper="var(--paper)",
    backdrop="transparent",
    accent="var(--accent)",
    good="var(--good)",
)
PRINT = Theme(ink="#1c2430", muted="#5b6675", grid="#e3e7ec", paper="#ffffff", backdrop="#ffffff", accent="#2a5fa8", good="#1f8a5f")


def config(theme: Theme) -> dict[str, Any]:
    """Vega-Lite's configuration in these colours."""
    axis = {
        "labelColor": theme.muted,
        "titleColor": theme.muted,
        "tickColor": theme.grid,
        "domainColor": theme.grid,
        "gridColor": theme.grid,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelFont": FONT,
        "titleFont": FONT,
        "titlePadding": 8,
        "labelPadding": 5,
        "tickSize": 4,
        "gridOpacity": 0.8,
    }
    legend = {
        "labelColor": theme.ink,
        "titleColor": theme.muted,
        "labelFont": FONT,
        "titleFont": FONT,
        "titleFontWeight": "normal",
        "labelFontSize": 12,
        "titleFontSize": 12,
    }
    return {
        "scale": {"invalid": {"color": {"value": UNKNOWN}}},
        "background": theme.backdrop,
        "font": FONT,
        "axis": axis,
        "legend": legend,
        "view": {"stroke": None},
        "text": {"font": FONT, "fontSize": 12, "color": theme.ink},
    }
