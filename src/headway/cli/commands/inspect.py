"""Tell what a model costs and what this machine can do with it, before anything long."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from headway.api.inspect import inspect
from headway.cli.output import drawn_progress, print_json
from headway.report.terminal import print_inspect


def command(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="FILE.onnx, FILE.pt2, FILE.keras, a SavedModel folder, or python:module:callable.")
    ],
    data: Annotated[str, typer.Option(help="Samples: they give the free dimensions their sizes, and check the import.")] = "",
    refresh: Annotated[bool, typer.Option("--refresh", help="Measure this machine's ceilings again; do it when it is quiet.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell what a model costs and what this machine can do with it: parameters, FLOP, bytes, roofline, what will not help and why."""
    with drawn_progress() as progress:
        inspected = inspect(model, data, progress, refresh=refresh)
    if as_json:
        print_json(list(inspected))
        return
    for line in inspected:
        print_inspect(Console(), line)
