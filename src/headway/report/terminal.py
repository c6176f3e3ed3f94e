"""Records on a terminal, through Rich alone: nothing here needs more than the base install.

Names and reasons come from outside: they are printed as ``Text``, so that no bracket in them is taken for markup.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from headway.records import Objective, SourceInspected, Summary
from headway.report.headline import choice_words, feasible_words, gains, prediction_words, sentence
from headway.report.rows import ROLE_NAMES
from headway.report.tables import Table as Words
from headway.report.tables import ceilings, costs, operator_types
from headway.report.wording import change_words, each_task, interval, ms, number, objective_words, rate

_MOST_REJECTED = 6
_TONES = {"good": "green", "bad": "red", "doubt": "yellow"}


def print_summary(console: Console, summary: Summary) -> None:
    """Print a finished run: met or not, the choice, its gains, its quality, who lost and why, and what to type next."""
    choice, objective = summary.choice, summary.objective
    tone = "green" if choice.met else "red"
    _line(console, f"{'Objective met' if choice.met else 'Objective not met'}: {objective_words(objective)}", f"bold {tone}")
    _line(console, choice_words(choice))
    for reason in choice.reasons:
        _line(console, reason, "dim")
    for text in feasible_words(choice):
        _line(console, text)
    if choice.quality:
        for task in each_task(choice.quality):
            _line(console, sentence(change_words(task)) + ".")
    for gain in gains(summary.comparison, objective):
        _line(console, gain)
    if summary.comparison and summary.comparison.capacity_per_s:
        console.print(_compared(summary, objective))
        for note in summary.comparison.notes:
            _line(console, note, "dim")
    elif choice.latency_s is not None or choice.rate_per_s is not None:
        _line(console, f"Measured over HTTP: {objective.percentile_name} {ms(choice.latency_s)}, holds {rate(choice.rate_per_s)}.")
    if summary.prediction_errors:
        _line(console, prediction_words(list(summary.prediction_errors)), "dim")
    if summary.served_errors:
        _line(console, prediction_words(list(summary.served_errors), "over HTTP"), "dim")
    if summary.rejected:
        console.print(_rejected(summary))
    for warning in (*summary.left_out, *summary.warnings):
        _line(console, f"! {warning}", "yellow")
    _commands(console, summary)


def print_inspect(console: Console, source: SourceInspected, sentences: tuple[str, ...] = ()) -> None:
    """Print what a model costs, where its work is, what this machine attains, and what follows from the two."""
    _line(console, f"{source.source}", "bold")
    for words in (costs(source), operator_types(source.cost), ceilings(source)):
        if words.rows:
            console.print(_plain(words))
    for text in (*sentences, *source.notes):
        _line(console, f"- {text}")


def print_doctor(console: Console, facts: Mapping[str, object]) -> None:
    """Print facts in two columns; a mapping becomes a group of its own, a sequence one line."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        if isinstance(value, Mapping):
            table.add_row(Text(str(name), "bold not dim"), "")
            for key, inner in value.items():
                table.add_row(Text(f"  {key}"), Text(_fact(inner)))
        else:
            table.add_row(Text(str(name)), Text(_fact(value)))
    console.print(table)


def _compared(summary: Summary, objective: Objective) -> Table:
    compared = summary.comparison
    table = _table(
        "over HTTP", "rate held [1/s]", f"{objective.percentile_name} at {number(compared.rate_per_s if compared else None)}/s [ms]"
    )
    for role, held in compared.capacity_per_s.items() if compared else ():
        points = (
            [point.percentile(objective.percentile) for point in compared.points.get(role, ()) if point.percentiles] if compared else []
        )
        middle = sorted(points, key=lambda p: p.latency_s)[len(points) // 2] if points else None
        latency = (
            f"{number(middle.latency_s * 1e3)} [{number(middle.low_s * 1e3)}, {number(middle.high_s * 1e3)}]" if middle else number(None)
        )
        table.add_row(Text(ROLE_NAMES.get(role, role)), Text(interval(held)), Text(latency))
    return table


def _rejected(summary: Summary) -> Table:
    table = _table("rejected", "why", numeric=False)
    for rejection in summary.rejected[:_MOST_REJECTED]:
        name = Text(rejection.variant)
        if rejection.plan:
            name.append(f"\n{rejection.plan}", "dim")
        table.add_row(name, Text(rejection.reason))
    if len(summary.rejected) > _MOST_REJECTED:
        table.add_row(Text(f"and {len(summary.rejected) - _MOST_REJECTED} more", "dim"), Text("see report.html", "dim"))
    return table


def _commands(console: Console, summary: Summary) -> None:
    folder = shlex.quote(summary.run)
    if summary.choice.met:
        _line(console, f"Serve it:   headway serve {folder}")
    _line(console, f"Read it:    {summary.run.rstrip('/')}/report.html")


def _plain(words: Words) -> Table:
    table = _table(*words.heads, numeric=False)
    for index in words.numeric:
        table.columns[index].justify = "right"
    for row in words.rows:
        table.add_row(*(Text(cell.text, _TONES.get(cell.tone, "")) for cell in row))
    return table


def _table(*heads: str, numeric: bool = True) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False, padding=(0, 1))
    for index, head in enumerate(heads):
        table.add_column(Text(head), justify="right" if numeric and index else "left", overflow="fold")
    return table


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style))


def _fact(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, (Sequence, Iterable)) and not isinstance(value, (str, bytes)):
        return ", ".join(_fact(item) for item in value) or "none"
    return str(value)
