"""``inspect``: what a model costs and what this machine can do with it."""

from __future__ import annotations

from headway.api.prepare import load_both
from headway.api.progress import Progress, Silent
from headway.measure.ceilings import measure_ceilings
from headway.measure.environment import instruction_sets
from headway.model import cost
from headway.predict import explain
from headway.records import SourceInspected


def inspect(model: str, data: str = "", progress: Progress | None = None, *, refresh: bool = False) -> tuple[SourceInspected, ...]:
    """Cost, ceilings and sentences for every export of a model; with ``refresh`` the ceilings are measured anew.

    Raises:
        InputError: the model or the samples cannot be read, or do not fit each other.
    """
    progress = progress or Silent()
    progress.stage("inspect", 3)
    progress.step("load the model")
    sources, dataset, notes = load_both([model], data)
    samples = dataset.inputs if dataset is not None else None
    progress.step("measure this machine (once; then cached)")
    ceilings = measure_ceilings(refresh=refresh)
    lines = []
    for source in sources:
        progress.step(f"count {source.name}")
        total = cost(source.model, samples)
        said = (*notes, *explain(total, ceilings, instruction_sets()))
        lines.append(SourceInspected(source=source.name, digest=source.model.digest, cost=total, ceilings=ceilings, notes=said))
    return tuple(lines)
