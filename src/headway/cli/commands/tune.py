"""Find, prove and package the deployment that meets an objective."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from headway.api.config import configured, metrics, model_folder
from headway.api.tune import tune
from headway.cli.output import drawn_progress, print_json
from headway.report.terminal import print_summary


def command(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...", help="FILE.onnx, FILE.pt2, FILE.keras, a SavedModel folder, or python:module:callable. Several compete."
        ),
    ] = None,
    data: Annotated[
        str, typer.Option(help="Labelled samples: FILE.npz, FILE.parquet, an image folder by class, or python:module:callable.")
    ] = "",
    slo: Annotated[str, typer.Option(metavar="TEXT", help="The objective, such as 'p99<=20ms, rate>=200/s, drop<=1%'.")] = "",
    out: Annotated[str, typer.Option(metavar="RUN", help="Run folder; runs/NAME by default.")] = "",
    budget: Annotated[str, typer.Option(help="Bound on the whole run, such as 10m.")] = "",
    train: Annotated[
        str, typer.Option(help="Samples to learn from, other rows than --data; lost quality is then won back by training.")
    ] = "",
    student: Annotated[list[str] | None, typer.Option(metavar="MODEL", help="A smaller model that learns from MODEL and competes.")] = None,
    techniques: Annotated[list[str] | None, typer.Option(help="Techniques to consider; give it again for several.")] = None,
    runtimes: Annotated[list[str] | None, typer.Option(help="Runtimes to consider; give it again for several.")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Quality metric by name, or python:module:callable; OUTPUT=METRIC, given again, for a model with several outputs."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random decision; 0 by default.")] = None,
    track: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Tracker; give it again for several.")] = None,
    compare: Annotated[bool | None, typer.Option(help="Measure the naive and the best uncompressed deployment beside the winner.")] = None,
    on: Annotated[
        str,
        typer.Option(
            metavar="PLACE",
            help="Do the work on a Ray cluster too: ray (one that runs on this machine), ray:HOST:PORT or ray://HOST:PORT. The choice is the same.",
        ),
    ] = "",
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find, prove and package the deployment that meets an objective."""
    options = {
        "models": tuple(models or ()), "data": data, "slo": slo, "out": out, "budget": budget, "train": train, "students": tuple(student or ()), "techniques": tuple(techniques or ()),
        "runtimes": tuple(runtimes or ()), "metric": metrics(metric or ()), "seed": seed, "track": tuple(track or ()), "compare": compare, "on": on,
    }  # fmt: skip
    config = configured(options, model_folder(models or []))
    with drawn_progress() as progress:
        summary = tune(config, resume=resume, progress=progress)
    if as_json:
        print_json(summary)
    else:
        print_summary(Console(), summary)
    raise typer.Exit(0 if summary.choice.met else 3)
