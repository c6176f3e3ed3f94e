"""Tell how many replicas and machines hold an objective at a rate, at what price, and what breaks first, by simulation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from headway.api.planning import PlanAsked, plan_fleet
from headway.cli.output import drawn_progress, print_json
from headway.predict import ROUTERS
from headway.records import ConfigError
from headway.report.plan_page import render_plan
from headway.report.plan_terminal import print_plan


def command(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="[MACHINE=]RUN...",
            help="Run folders; of several, each with the machine type of the price list that it was measured on.",
        ),
    ],
    rate: Annotated[float, typer.Option(metavar="R", help="Requests a second that the fleet must hold.")],
    slo: Annotated[str, typer.Option(metavar="TEXT", help="Objective, such as p99<=20ms; by default the run's own.")] = "",
    arrivals: Annotated[
        str, typer.Option(help="Arrival process with its settings, such as bursty:c2=8 or diurnal:peak=1.8; by default the objective's.")
    ] = "",
    router: Annotated[str, typer.Option(help=f"How a request finds its replica: {', '.join(ROUTERS)}.")] = "random",
    spare: Annotated[int, typer.Option(metavar="N", help="Replicas that may fail at once while the rest hold the objective.")] = 1,
    prices: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Machine types and prices (TOML); by default a built-in example, which is no quote.")
    ] = None,
    cold_start_s: Annotated[
        float | None, typer.Option("--cold-start-s", metavar="S", help="Seconds until a new replica is ready; with --arrivals diurnal.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of arrivals and service times.")] = 0,
    explain: Annotated[bool, typer.Option("--explain", help="Show where the time of a request goes.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="With --explain: write the plan and its picture as HTML.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell how many replicas and machines hold an objective at a rate, at what price, and what breaks first, by simulation."""
    if out is not None and not explain:
        raise ConfigError("--out belongs to --explain, and that was not given; add --explain")
    asked = PlanAsked(
        runs=tuple(runs), rate_per_s=rate, slo=slo, arrivals=arrivals, router=router, spare=spare, prices=prices, cold_start_s=cold_start_s,
        seed=seed,
    )  # fmt: skip
    with drawn_progress() as progress:
        plan = plan_fleet(asked, progress)
    if out is not None:
        render_plan(plan, out)
    if as_json:
        print_json(plan)
        return
    print_plan(Console(highlight=False), plan, explain=explain)
    if out is not None:
        print(f"wrote {out}")
