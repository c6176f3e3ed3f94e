"""Put open-loop load on a server, or on a bundle in-process."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from headway.api.config import parse_duration
from headway.api.load import load
from headway.cli.output import drawn_progress, print_json
from headway.report.terminal import print_load


def command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="URL|BUNDLE", help="http://HOST:PORT of a server of the Open Inference Protocol, or a bundle or run folder."
        ),
    ],
    rate: Annotated[float, typer.Option(help="Offered rate, requests a second.")],
    for_: Annotated[str, typer.Option("--for", metavar="TIME", help="How long, such as 30s.")] = "30s",
    arrivals: Annotated[str, typer.Option(help="Arrival process.")] = "poisson",
    slo: Annotated[str, typer.Option(metavar="TEXT", help="Objective to judge by; by default the bundle's own, or p99<=1s.")] = "",
    data: Annotated[str, typer.Option(help="Samples to send; by default synthetic ones that fit the model's inputs.")] = "",
    model: Annotated[str, typer.Option(help="Model name at the server; by default its only one.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the arrivals.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Put open-loop load on a server, or on a bundle in-process: latency counts from the moment a request was due."""
    with drawn_progress() as progress:
        point, objective = load(
            target,
            rate_per_s=rate,
            duration_s=parse_duration(for_, "--for"),
            arrivals=arrivals,
            slo=slo,
            data=data,
            model=model,
            seed=seed,
            progress=progress,
        )
    if as_json:
        print_json(point)
    else:
        print_load(Console(), point, objective)
    raise typer.Exit(3 if slo and point.verdict != "held" else 0)
