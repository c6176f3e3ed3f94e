"""Draw a run's page again from its records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headway.cli.output import print_json
from headway.report.page import render


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Draw a run's page again from its records."""
    page = render(run)
    if as_json:
        print_json({"report": str(page)})
    else:
        print(f"wrote {page}")
