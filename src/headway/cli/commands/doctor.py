"""Tell what this machine is and what works on it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from headway.api.doctor import doctor
from headway.cli.output import print_json
from headway.report.terminal import print_doctor


def command(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Tell what this machine is and what works on it: instruction sets, cores, runtimes, techniques, noise."""
    facts = doctor()
    if as_json:
        print_json(facts)
    else:
        print_doctor(Console(), facts)
