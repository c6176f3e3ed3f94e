"""Compare an export's answers with the golden set of the bundle that it was made from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from headway.api.exporting import verify_export
from headway.cli.commands.serve import TOKEN_VARIABLE
from headway.cli.output import print_json
from headway.records import Verified


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An export folder.")],
    url: Annotated[
        str, typer.Option(metavar="URL", help="Ask the server that runs here (Open Inference Protocol), such as http://127.0.0.1:8000.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Compare an export's answers with the golden set: digests, its model run here, and the real server, started here where that is possible.

    The environment variable HEADWAY_TOKEN holds the token that the server at --url wants, if it wants one.
    """
    found = verify_export(folder, url, os.environ.get(TOKEN_VARIABLE, ""))
    if as_json:
        print_json(found)
    else:
        _print(Console(highlight=False), found)


def _print(console: Console, found: Verified) -> None:
    console.print(f"{found.files} files are as they were exported")
    if found.model_difference is not None:
        console.print(f"the model, run here: {found.model_difference:.2g} from the golden set (at most {found.tolerance:g})")
    if found.server_difference is not None:
        console.print(f"{found.asked}: {found.server_difference:.2g} from the golden set (at most {found.tolerance:g})", markup=False)
    else:
        console.print(f"  note: {found.asked}", markup=False, style="yellow")
