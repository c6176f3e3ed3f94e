"""Single layers timed on the runtime that runs the model fastest, so that techniques cut where time is and not where FLOP are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headway.api.curves import curve_of
from headway.api.prepare import Prepared, Source
from headway.api.run import Run
from headway.api.variants import Scored
from headway.compress import Context, layer_queries, make
from headway.measure.latency_table import latency_table
from headway.model import Model
from headway.records import Failure, HeadwayError, LatencyTable, Plan, Step
from headway.search import splits

SECONDS = 8.0
SPENDERS = frozenset({"prune_channels", "low_rank"})
"""Techniques that look at the times."""


def with_layer_times(run: Run, prepared: Prepared, source: Source, rivals: Sequence[Scored]) -> Prepared:
    """``prepared`` with the source's latency table in its context: measured and recorded, or found in the journal of a resumed run.

    Without a technique that looks at it, without time, or where layers cannot be timed (recorded), ``prepared`` as it was; techniques
    then count multiply-adds.

    Args:
        rivals: the uncompressed variants of this source on each runtime.
    """
    if not SPENDERS & set(prepared.techniques) or source.teacher is not None or not rivals:
        return prepared
    context = prepared.contexts[source.name]
    cleaned = make(source.model, (Step(technique="fold"),), context).model
    table = next((t for t in run.journal.of(LatencyTable) if t.digest == cleaned.digest), None)
    if table is None and not run.over("compress"):
        table = _measured(run, prepared, source, cleaned, context, rivals)
    if table is None:
        return prepared
    return replace(prepared, contexts={**prepared.contexts, source.name: replace(context, latency=table)})


def _measured(
    run: Run, prepared: Prepared, source: Source, cleaned: Model, context: Context, rivals: Sequence[Scored]
) -> LatencyTable | None:
    split = splits(prepared.cores)[0]
    curves = [
        (curve.capacity_per_s(), scored.runtime) for scored in rivals if (curve := curve_of(run, prepared, scored, split)) is not None
    ]
    runtime = max(curves)[1] if curves else rivals[0].runtime
    run.progress.step(f"time the layers of {source.name} on {runtime}")
    try:
        queries = layer_queries(cleaned, context.samples)
        with run.place.holding(alone=True):
            table = latency_table(queries, Plan(runtime=runtime), digest=cleaned.digest, seconds=SECONDS)
        return run.add(table)
    except HeadwayError as error:
        run.add(Failure(stage="layers", variant=source.name, plan=Plan(runtime=runtime), reason=str(error)))
        return None
