"""Run the whole path on a real model and real data."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from headway.api.demo import run_demo
from headway.cli.output import drawn_progress, print_json
from headway.report.terminal import print_summary


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="vision, digits, text, speech or recommend.")],
    out: Annotated[str, typer.Option(metavar="RUN", help="Run folder; runs/demo-NAME by default.")] = "",
    budget: Annotated[str, typer.Option(help="Bound on the whole run, such as 5m.")] = "",
    slo: Annotated[str, typer.Option(metavar="TEXT", help="Another objective than the demo's own.")] = "",
    track: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Tracker; give it again for several.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run the whole path on a real model and real data out of registry packages, against an objective from practice."""
    with drawn_progress() as progress:
        case, summary = run_demo(name, out=out, budget=budget, slo=slo, track=tuple(track or ()), resume=resume, progress=progress)
    if as_json:
        print_json(summary)
    else:
        console = Console()
        console.print(f"[bold]{case.title}[/bold]: {case.story}")
        print_summary(console, summary)
        for note in case.notes:
            console.print(f"note: {note}", markup=False, style="dim")
    raise typer.Exit(0 if summary.choice.met else 3)
