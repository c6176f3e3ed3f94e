"""Tell why a variant answers as it does: where the error enters, what became of the layers, whose answer changed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from headway.api.explain import Explained, explain
from headway.api.layer_noise import LayerNoise
from headway.cli.output import drawn_progress, print_json

MOST_LAYERS, MOST_CHANGED = 12, 10


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    variant: Annotated[str, typer.Argument(metavar="VARIANT", help="A variant's name, or a part of it that no other has.")],
    data: Annotated[str, typer.Option(help="The samples of the run, where they have moved.")] = "",
    runtime: Annotated[str, typer.Option(help="Runtime to answer through; that of the choice by default.")] = "",
    changed: Annotated[bool, typer.Option("--changed", help="List every sample whose answer changed.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="List every layer in the graph's order.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell why a variant answers as it does: where the error enters, what became of the layers, whose answer changed."""
    with drawn_progress() as progress:
        found = explain(run, variant, data=data, runtime=runtime, progress=progress)
    if as_json:
        print_json(found)
        return
    console = Console()
    _steps(console, found)
    _noise(console, found, every=layers)
    _answers(console, found, every=changed)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _steps(console: Console, found: Explained) -> None:
    _say(console, f"{found.variant}, made from {found.parent}")
    for effect in found.effects:
        _say(console, f"  {effect.step}: {effect.message}")
    for quality in found.qualities:
        _say(console, f"  quality on {quality.runtime}, {quality.part} part: {quality.reason or _drop(quality.drop.value)}")
    for guard in found.guards:
        _say(console, f"  {guard.guard} on {guard.runtime}: {guard.reason}")
    for census in found.census:
        reasons = "; ".join([census.sentence or "nothing found that costs time", *census.fallbacks])
        _say(console, f"  {census.runtime} executes: {reasons}")
    for rejection in found.rejected:
        _say(console, f"  out at {rejection.stage}: {rejection.reason}")


def _drop(share: float) -> str:
    return f"lost {share * 100:.3g} points" if share > 0 else f"gained {-share * 100:.3g} points" if share < 0 else "did not change"


def _noise(console: Console, found: Explained, *, every: bool) -> None:
    states = Counter(layer.state for layer in found.layers if layer.state)
    _say(console, f"\nLayers, against {found.reference}: " + ("; ".join(f"{count} {words}" for words, count in states.items()) or "none"))
    if found.layers_note:
        _say(console, f"  ({found.layers_note})")
    if not found.layers:
        return
    shown = found.layers if every else found.entered[:MOST_LAYERS]
    if not shown:
        _say(console, "No value differs from the parent's.")
        return
    title = "Every value, in the graph's order" if every else "Where the error enters, the most first"
    table = Table("layer", "operator", "signal to noise", "share of the error", "what became of it", title=title, title_justify="left")
    total = sum(layer.entered for layer in found.layers) or 1.0
    own = {layer.node: layer.state for layer in found.layers}
    for layer in shown:
        name = " > ".join([*layer.between, layer.node])
        fate = "; ".join(dict.fromkeys(words for words in (*(own.get(node, "") for node in layer.between), layer.state) if words))
        table.add_row(name, layer.op_type, _decibel(layer), f"{layer.entered / total:.0%}", fate)
    console.print(table)


def _decibel(layer: LayerNoise) -> str:
    if layer.noise is None:
        return "not comparable"
    return "the same" if layer.snr_db is None else f"{layer.snr_db:.1f} dB"


def _answers(console: Console, found: Explained, *, every: bool) -> None:
    _say(console, f"\n{len(found.changed)} of {found.rows} answers of the selection part changed, through {found.runtime}")
    if not found.changed:
        return
    kinds = Counter(row.change for row in found.changed if row.change)
    groups = Counter(row.group for row in found.changed if row.group)
    if kinds:
        _say(console, "  " + ", ".join(f"{count} {change}" for change, count in kinds.items()))
    if groups:
        _say(console, "  by group: " + ", ".join(f"{group} {count}" for group, count in groups.most_common(8)))
    table = Table("row", "group", "label", "before", "after", "change")
    shown = found.changed if every else found.changed[:MOST_CHANGED]
    for row in shown:
        table.add_row(str(row.row), row.group, row.label, row.before, row.after, row.change)
    console.print(table)
    if len(shown) < len(found.changed):
        _say(console, f"  {len(found.changed) - len(shown)} more: --changed lists all")
