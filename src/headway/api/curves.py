"""The curve and predict stages: service curves of the living variants, and what simulation expects of every plan."""

from __future__ import annotations

from collections.abc import Sequence

from headway.api.prepare import Prepared
from headway.api.run import Run
from headway.api.variants import Scored
from headway.measure.curve import measure_curve
from headway.predict import predict_capacity
from headway.records import Candidate, Failure, HeadwayError, Plan, Prediction, ServiceCurve
from headway.search import batch_sizes, plans_for, splits

LARGEST_BATCH = 32
SECONDS_A_BATCH = 0.15
SLOWEST_BATCH_S = 0.5
MOST = 6
"""Variant-runtime pairs that are measured on every split of the cores."""
MOST_KINDS = 12
"""The same when each pair is the first of its kind."""
FAR_BEHIND = 0.5
"""A variant with less than this share of the best one's capacity on one core, and no better quality, is not measured further."""


def curve_of(run: Run, prepared: Prepared, scored: Scored, split: tuple[int, int]) -> ServiceCurve | None:
    """The curve of one variant, runtime and split: measured, or found in the journal; none when it failed (recorded)."""
    name, runtime = scored.variant.name, scored.runtime
    for old in run.journal.of(ServiceCurve):
        if (old.variant, old.runtime, old.instances, old.threads) == (name, runtime, *split):
            return old
    plan = Plan(runtime=runtime, instances=split[0], threads=split[1])
    if any(f.stage == "curve" and f.variant == name and f.plan == plan for f in run.journal.of(Failure)):
        return None
    bound = run.objective.latency_s
    stop_above_s = SLOWEST_BATCH_S if bound is None else min(SLOWEST_BATCH_S, bound)
    try:
        curve = measure_curve(
            run.folder / scored.variant.path, name, plan, prepared.parts.selection.inputs, batches=batch_sizes(LARGEST_BATCH),
            seconds_a_batch=SECONDS_A_BATCH, stop_above_s=stop_above_s,
        )  # fmt: skip
    except HeadwayError as error:
        run.add(Failure(stage="curve", variant=name, plan=plan, reason=str(error)))
        return None
    return run.add(curve)


def measure_curves(run: Run, prepared: Prepared, alive: Sequence[Scored]) -> list[tuple[Scored, ServiceCurve]]:
    """Curves of all living variants: first on one core, which drops those far behind; then on every split."""
    first, *others = splits(prepared.cores)
    measured: list[tuple[Scored, ServiceCurve]] = []
    for scored in alive:
        run.progress.step(f"{scored.variant.name} on {scored.runtime}")
        if run.spent("curve") and measured:
            run.leave_out("service curves", f"{scored.variant.name} on {scored.runtime}")
            continue
        curve = curve_of(run, prepared, scored, first)
        if curve is not None:
            measured.append((scored, curve))
    worth = [scored for scored, _ in _worth(run, measured)]
    for split in others:
        for scored in worth:
            run.progress.step(f"{scored.variant.name} on {scored.runtime}, {split[0]}x{split[1]}")
            if run.spent("curve"):
                run.leave_out("service curves", f"{scored.variant.name} on {scored.runtime} {split[0]}x{split[1]}")
                continue
            curve = curve_of(run, prepared, scored, split)
            if curve is not None:
                measured.append((scored, curve))
    return [(scored, curve) for scored, curve in measured if scored in worth]


def _worth(run: Run, measured: Sequence[tuple[Scored, ServiceCurve]]) -> list[tuple[Scored, ServiceCurve]]:
    """Those not far behind a variant of no worse quality, ``MOST`` in all and the best of each further kind up to ``MOST_KINDS``; the best
    uncompressed one always stays."""
    fastest_first = sorted(measured, key=lambda m: -m[1].capacity_per_s())
    plain = next((m for m in fastest_first if not m[0].variant.compressed), None)
    kept: list[tuple[Scored, ServiceCurve]] = []
    for scored, curve in fastest_first:
        if (scored, curve) == plain:
            kept.append((scored, curve))
            continue
        rival = next((m for m in fastest_first if m[0].quality.drop.value <= scored.quality.drop.value), (scored, curve))
        share = curve.capacity_per_s() / rival[1].capacity_per_s()
        if share < FAR_BEHIND:
            reason = f"one core does {curve.capacity_per_s():.4g}/s, {share:.0%} of {rival[0].variant.name} on {rival[0].runtime}, at no better quality"
        elif len(kept) >= MOST_KINDS or (len(kept) >= MOST and scored.variant.kind in {other.variant.kind for other, _ in kept}):
            reason = f"one core does {curve.capacity_per_s():.4g}/s, and {len(kept)} others do more"
        else:
            kept.append((scored, curve))
            continue
        run.reject("curve", scored.variant.name, Plan(runtime=scored.runtime), reason)
    return kept


def predictions(run: Run, curves: Sequence[tuple[Scored, ServiceCurve]]) -> list[Prediction]:
    """What simulation expects of every plan of every curve, recorded once."""
    known = {old.candidate: old for old in run.journal.of(Prediction)}
    expected = []
    for scored, curve in curves:
        run.progress.step(f"{scored.variant.name} on {scored.runtime}")
        for plan in plans_for(curve, run.objective.latency_s):
            candidate = Candidate(variant=scored.variant.name, plan=plan)
            old = known.get(candidate)
            expected.append(old or run.add(predict_capacity(curve, plan, run.objective, seed=run.config.seed)))
    return expected
