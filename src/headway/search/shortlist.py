"""From thousands of predicted plans to the few that are worth a load run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from headway.records import Objective, Prediction

MARGIN = 0.75
"""A candidate whose predicted capacity is below this share of the stated rate is not load-tested: the simulator's error is smaller than that."""
_EQUAL = 0.95


def shortlist(
    predictions: Sequence[Prediction],
    objective: Objective,
    *,
    size: int,
    uncompressed: Collection[str],
    kinds: Mapping[str, str] | None = None,
    plans_per_kind: int = 2,
) -> tuple[Prediction, ...]:
    """The predictions to load-test, most promising first, always with the best uncompressed one.

    With a stated rate: those that may hold it (within ``MARGIN``), fewest cores first; without: highest predicted capacity first.
    The best uncompressed plan stands second, so that it is measured even when time runs out. At most ``plans_per_kind`` plans of one kind of variant (``kinds``: by variant name, its techniques; by default each variant is a
    kind of its own), so that variants that would fail for one reason do not crowd out the others. Of plans whose
    capacities are within 5%, the smallest batch limit is kept: it answers sooner.
    """
    best = _smallest_equal(predictions)
    if objective.rate_per_s is None:
        ranked = sorted(best, key=lambda p: -p.capacity_per_s)
    else:
        rate = objective.rate_per_s
        able = [p for p in best if p.capacity_per_s >= MARGIN * rate]
        surely = [p for p in able if p.capacity_per_s >= rate / MARGIN]
        ranked = sorted(surely, key=lambda p: (_cores(p), -p.capacity_per_s)) + sorted(
            (p for p in able if p not in surely), key=lambda p: -p.capacity_per_s
        )
        ranked = ranked or sorted(best, key=lambda p: -p.capacity_per_s)
        ranked = _with_strongest(ranked, best, rate)
    kept: list[Prediction] = []
    per_kind: Counter[str] = Counter()
    for prediction in ranked:
        if len(kept) == size:
            break
        kind = (kinds or {}).get(prediction.candidate.variant, prediction.candidate.variant)
        if per_kind[kind] < plans_per_kind:
            per_kind[kind] += 1
            kept.append(prediction)
    plain = max((p for p in best if p.candidate.variant in uncompressed), key=lambda p: p.capacity_per_s, default=None)
    if plain is not None and kept and plain is not kept[0]:
        # second in line: when time runs out, the safe candidate has been measured too
        kept = [kept[0], plain, *(p for p in kept[1:] if p is not plain)]
    return tuple(kept)


def _cores(prediction: Prediction) -> int:
    return prediction.candidate.plan.instances * prediction.candidate.plan.threads


def _with_strongest(ranked: list[Prediction], everything: Sequence[Prediction], rate: float) -> list[Prediction]:
    """The strongest prediction moved to second place: if the cheap ones miss, the strong one has been measured."""
    strongest = max(everything, key=lambda p: p.capacity_per_s, default=None)
    if strongest is None or not ranked or strongest is ranked[0]:
        return ranked
    rest = [p for p in ranked if p is not strongest]
    return [rest[0], strongest, *rest[1:]]


def _smallest_equal(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Of the plans that differ only in the batch limit, the smallest limit whose capacity is within 5% of the best."""
    families: dict[tuple[str, str, str, int, int], list[Prediction]] = {}
    for prediction in predictions:
        plan = prediction.candidate.plan
        families.setdefault((prediction.candidate.variant, plan.runtime, plan.device, plan.instances, plan.threads), []).append(prediction)
    kept = []
    for family in families.values():
        top = max(p.capacity_per_s for p in family)
        kept.append(min((p for p in family if p.capacity_per_s >= _EQUAL * top), key=lambda p: p.candidate.plan.max_batch))
    return kept
