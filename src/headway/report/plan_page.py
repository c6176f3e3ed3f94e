"""A fleet's plan as one HTML file that refers to nothing outside itself, with its latency budget as a picture."""

from __future__ import annotations

from pathlib import Path

import altair as alt
import jinja2
from markupsafe import Markup

from headway.records import FleetPlan
from headway.report import plan_words, theme
from headway.report.page import TEMPLATE, chart_library, drawn, script_hash
from headway.report.written import write_whole

_PAGE = Path(__file__).with_name("plan_page.html.j2")


def render_plan(plan: FleetPlan, path: Path) -> Path:
    """The path, now holding the page.

    Raises:
        InputError: it cannot be written; what was there before stays.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [Markup(chart_library()), Markup((TEMPLATE / "page.js").read_text("utf-8"))]
    text = environment.get_template(_PAGE.name).render(
        title=plan_words.title(plan),
        sentences=plan_words.sentences(plan),
        notes=plan.notes,
        figure=drawn("budget", budget_chart(plan, theme.PAGE)),
        tables=[(name, table) for name, table in _tables(plan) if table.rows],
        legend=list(zip(plan_words.PARTS, theme.PALETTE, strict=False)),
        style=Markup((TEMPLATE / "page.css").read_text("utf-8")),
        scripts=scripts,
        hashes=" ".join(script_hash(script) for script in scripts),
    )
    return write_whole(path, text.encode("utf-8"))


def budget_chart(plan: FleetPlan, colours: theme.Theme) -> alt.LayerChart:
    """A bar of stacked parts for the mean and one for the percentile [ms], with a line at the bound."""
    budgets = plan.fleets[0].budget
    rows = [
        {"at": budget.at, "part": name, "order": order, "ms": max(0.0, part_s) * 1e3}
        for budget in budgets
        for order, (name, part_s) in enumerate(zip(plan_words.PARTS, plan_words.parts_s(budget), strict=True))
    ]
    colour = alt.Scale(domain=list(plan_words.PARTS), range=list(theme.PALETTE[: len(plan_words.PARTS)]))
    x_axis = alt.Axis(title="latency [ms]", tickCount=6)
    bars = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar(size=30)
        .encode(
            x=alt.X("ms:Q", stack="zero", axis=x_axis),
            y=alt.Y("at:N", sort=[budget.at for budget in budgets], axis=alt.Axis(title=None, ticks=False, domain=False)),
            color=alt.Color("part:N", scale=colour, legend=None),
            order=alt.Order("order:Q"),
            tooltip=[alt.Tooltip("at:N"), alt.Tooltip("part:N"), alt.Tooltip("ms:Q", format=".3~g")],
        )
    )
    layers = [bars]
    if plan.objective.latency_s is not None:
        bound = alt.Chart(alt.InlineData(values=[{"bound": plan.objective.latency_s * 1e3}]))
        layers.append(bound.mark_rule(color=colours.good, strokeWidth=1.4, strokeDash=[5, 4]).encode(x=alt.X("bound:Q", axis=x_axis)))
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    chart: alt.LayerChart = alt.layer(*layers).properties(width="container", height=110, autosize=fit).configure(**theme.config(colours))
    return chart


def _tables(plan: FleetPlan) -> list[tuple[str, plan_words.Table]]:
    several = [("The cheapest fleet of each run", plan_words.fleets(plan))] if len(plan.fleets) > 1 else []
    return [
        ("Where the time goes", plan_words.budgets(plan)),
        ("With all replicas and without the spare", plan_words.situations(plan)),
        *several,
        ("Why the others lost", plan_words.losers(plan)),
    ]
