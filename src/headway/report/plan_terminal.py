"""A fleet's plan on a terminal, and its latency budget as bars."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from headway.records import FleetPlan, LatencyBudget
from headway.report import plan_words
from headway.report.tables import Table as Words
from headway.report.wording import ms

MOST_LOSERS = 6
BAR = 50
COLOURS = ("blue", "yellow", "magenta", "green")
SHADES = "▒░▓█"
"""Parts differ by shade too, for a terminal without colours."""


def print_plan(console: Console, plan: FleetPlan, *, explain: bool = False) -> None:
    """Print the cheapest fleet, what it withstands, its price, the others, and what a reader must know."""
    _line(console, f"{plan_words.title(plan)}.", "bold green")
    for sentence in plan_words.sentences(plan):
        _line(console, sentence)
    console.print(_table(plan_words.situations(plan)))
    if explain:
        print_budgets(console, plan)
    if len(plan.fleets) > 1:
        console.print(_table(plan_words.fleets(plan)))
    lost = plan_words.losers(plan)
    if lost.rows:
        console.print(_table(Words(lost.heads, lost.numeric, lost.rows[:MOST_LOSERS])))
    if len(lost.rows) > MOST_LOSERS:
        _line(console, f"and {len(lost.rows) - MOST_LOSERS} more: --json lists all", "dim")
    for note in plan.notes:
        _line(console, f"! {note}", "yellow")
    _line(
        console,
        f"next: headway plan ... --json > plan.json, then headway export {plan.fleets[0].run} --to TARGET DIR --plan plan.json",
        "dim",
    )


def print_budgets(console: Console, plan: FleetPlan) -> None:
    """Print where the time of a request goes: a bar for the mean and one for the percentile, on one scale."""
    longest_s = max(budget.total_s for budget in plan.fleets[0].budget)
    _line(console, "Where the time goes", "bold")
    for budget in plan.fleets[0].budget:
        console.print(_bar(budget, longest_s))
    key = Text("      ")
    for name, shade, colour in zip(plan_words.PARTS, SHADES, COLOURS, strict=True):
        key.append(shade, colour).append(f" {name}   ")
    console.print(key)
    console.print(_table(plan_words.budgets(plan)))


def _bar(budget: LatencyBudget, longest_s: float) -> Text:
    """One bar; its cells are rounded cumulatively, so that its length is the latency's."""
    bar, done_s, drawn = Text(f"{budget.at:>5} "), 0.0, 0
    for part_s, shade, colour in zip(plan_words.parts_s(budget), SHADES, COLOURS, strict=True):
        done_s += max(0.0, part_s)
        cells = round(BAR * done_s / longest_s) - drawn
        bar.append(shade * cells, colour)
        drawn += cells
    return bar.append(f" {ms(budget.total_s)}")


def _table(words: Words) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False, padding=(0, 1))
    for index, head in enumerate(words.heads):
        table.add_column(Text(head), justify="right" if index in words.numeric else "left", overflow="fold")
    for row in words.rows:
        table.add_row(*(Text(cell.text).append(f"\n{cell.note}" if cell.note else "", "dim") for cell in row))
    return table


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style))
