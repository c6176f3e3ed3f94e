"""Write a bundle for another server: Triton, KServe, a container, systemd, ..."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from headway.api.exporting import ExportAsked, export_bundle
from headway.cli.output import print_json
from headway.deploy import target_lines
from headway.records import ConfigError, Export

SHOWN = 12


def command(
    source: Annotated[Path, typer.Argument(metavar="RUN|BUNDLE", help="A run (its measurements allow a prediction) or a bundle.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write; a new or empty folder, or an older export.")],
    to: Annotated[str, typer.Option(metavar="TARGET", help=f"For which server. {target_lines()}")],
    variant: Annotated[str, typer.Option(help="This variant of the bundle; by default the first.")] = "",
    name: Annotated[str, typer.Option(help="The model's name there; by default the bundle's.")] = "",
    plan: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What headway plan RUN --rate R --json printed: replicas and autoscaling come from it."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the target; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a bundle for another server, with what to expect of it there and how to check its answers."""
    asked = ExportAsked(source=source, target=to, folder=folder, variant=variant, name=name, plan=plan, settings=_settings(settings or ()))
    export = export_bundle(asked)
    if as_json:
        print_json(export)
    else:
        _print(Console(highlight=False), export, folder)


def _settings(given: Sequence[str]) -> dict[str, str]:
    """Values by name.

    Raises:
        ConfigError: one is no NAME=VALUE, or stands twice.
    """
    settings: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name or name in settings:
            raise ConfigError(f"--set must be NAME=VALUE, each name once, got {text!r}")
        settings[name] = value
    return settings


def _print(console: Console, export: Export, folder: Path) -> None:
    console.print(f"wrote {folder} for {export.target}: {export.variant} as {export.model}, {export.policy.plan}", markup=False)
    files = sorted(export.files)
    for file in files[:SHOWN]:
        console.print(f"  {file}", markup=False)
    if len(files) > SHOWN:
        console.print(f"  and {len(files) - SHOWN} more files")
    if export.expected is not None:
        told = export.expected
        own = f"; Headway's own server: {told.own_per_s:.4g}/s" if told.own_per_s is not None and not export.policy.refuses else ""
        console.print(
            f"expected of one replica, by simulation: {told.rate_per_s:.4g}/s [{told.low_per_s:.4g}, {told.high_per_s:.4g}] within {export.objective}{own}",
            markup=False,
        )
    if export.scaling is not None:
        console.print(f"autoscaling from the plan: {export.scaling.target_in_flight:.3g} requests in flight for each replica", markup=False)
    for note in export.notes:
        console.print(f"  note: {note}", markup=False, style="yellow")
    for line in export.start:
        console.print(f"start it:  {line}", markup=False)
    console.print(f"check it:  headway verify {folder}", markup=False)
