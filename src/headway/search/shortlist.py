"""From thousands of predicted plans to the few that are worth a load run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from headway.records import Noise, Objective, Prediction
from headway.search.margin import MARGIN, margin

MOST = 6
"""Candidates on the shortlist, however little can be told apart, and the best uncompressed one."""
_EQUAL = 0.95


def shortlist(
    predictions: Sequence[Prediction],
    objective: Objective,
    *,
    size: int,
    uncompressed: Collection[str],
    faithful: Collection[tuple[str, str]] = (),
    kinds: Mapping[str, str] | None = None,
    plans_per_kind: int = 2,
    noise: Sequence[Noise] = (),
) -> tuple[Prediction, ...]:
    """The predictions to load-test, most promising first, always with the best uncompressed one.

    With a stated rate: those that may hold it (within ``margin``), fewest cores first; without: highest predicted capacity first. Where the front
    end was measured, what is expected behind HTTP counts, since that is what is promised.
    The best uncompressed plan stands second, so that it is measured even when time runs out. At most ``plans_per_kind`` plans of one kind of variant (``kinds``: by variant name, its techniques; by default each variant is a
    kind of its own), so that variants that would fail for one reason do not crowd out the others. Of plans whose
    capacities are within 5%, the smallest batch limit is kept: it answers sooner.

    Where noise or samples that disagree have widened the margin, those that it leaves undecided are kept beyond ``size``, up to ``MOST``.

    What was found fast and good by looking at many on the same rows may be refused on others. So the best of those that hardly change an answer is
    among them, too, if there is one: it stands when the faster ones fall.

    Args:
        faithful: variants, each with the runtime, that answer nearly all rows as the original does.
        noise: how busy the machine was while the curves were measured.
    """
    field = _Field(all(p.served_per_s is not None for p in predictions), objective.rate_per_s, tuple(noise))
    best = _smallest_equal(predictions, field)
    if objective.rate_per_s is None:
        ranked = sorted(best, key=lambda p: -field.per_s(p))
    else:
        able = [p for p in best if field.able(p)]
        surely = [p for p in able if field.surely(p)]
        ranked = sorted(surely, key=lambda p: (_cores(p), -field.per_s(p))) + sorted(
            (p for p in able if p not in surely), key=lambda p: -field.per_s(p)
        )
        ranked = ranked or sorted(best, key=lambda p: -field.per_s(p))
        ranked = _with_strongest(ranked, best, field)
    kept: list[Prediction] = []
    per_kind: Counter[str] = Counter()
    for prediction in ranked:
        if len(kept) >= (max(size, MOST) if field.undecided(prediction, ranked[0]) else size):
            continue
        kind = (kinds or {}).get(prediction.candidate.variant, prediction.candidate.variant)
        if per_kind[kind] < plans_per_kind:
            per_kind[kind] += 1
            kept.append(prediction)
    safe = max((p for p in best if _in(p, faithful) and p.candidate.variant not in uncompressed), key=field.per_s, default=None)
    if safe is not None and not any(_in(p, faithful) and p.candidate.variant not in uncompressed for p in kept):
        kept.append(safe)
    plain = max((p for p in best if p.candidate.variant in uncompressed), key=field.per_s, default=None)
    if plain is not None and kept and plain is not kept[0]:
        # second in line: when time runs out, the safe candidate has been measured too
        kept = [kept[0], plain, *(p for p in kept[1:] if p is not plain)]
    return tuple(kept)


@dataclass(frozen=True, slots=True)
class _Field:
    """What the predictions are compared by.

    Attributes:
        served: whether all are known behind HTTP; figures with and without a front end are not compared.
        stated_per_s: the stated rate, if there is one [1/s].
    """

    served: bool
    stated_per_s: float | None
    noise: tuple[Noise, ...]

    def per_s(self, prediction: Prediction) -> float:
        """The capacity that counts [1/s]."""
        served = prediction.served_per_s if self.served else None
        return prediction.capacity_per_s if served is None else served

    def able(self, prediction: Prediction) -> bool:
        """Whether it may hold the stated rate."""
        return self.per_s(prediction) >= margin(prediction, self.noise) * (self.stated_per_s or 0.0)

    def surely(self, prediction: Prediction) -> bool:
        """Whether it holds the stated rate even if the prediction is too high."""
        return self.per_s(prediction) * margin(prediction, self.noise) >= (self.stated_per_s or 0.0)

    def undecided(self, prediction: Prediction, first: Prediction) -> bool:
        """Whether only a widened margin keeps it in: it may hold the stated rate or not, or be as good as the first."""
        rival = first if self.stated_per_s is None else None
        wide = margin(prediction, self.noise, rival)
        if wide >= MARGIN:
            return False
        if self.stated_per_s is not None:
            return self.able(prediction) and not self.surely(prediction)
        return self.per_s(prediction) >= wide * self.per_s(first)


def _in(prediction: Prediction, pairs: Collection[tuple[str, str]]) -> bool:
    return (prediction.candidate.variant, prediction.candidate.plan.runtime) in pairs


def _cores(prediction: Prediction) -> int:
    return prediction.candidate.plan.instances * prediction.candidate.plan.threads


def _with_strongest(ranked: list[Prediction], everything: Sequence[Prediction], field: _Field) -> list[Prediction]:
    """The strongest prediction moved to second place: if the cheap ones miss, the strong one has been measured."""
    strongest = max(everything, key=field.per_s, default=None)
    if strongest is None or not ranked or strongest is ranked[0]:
        return ranked
    rest = [p for p in ranked if p is not strongest]
    return [rest[0], strongest, *rest[1:]]


def _smallest_equal(predictions: Sequence[Prediction], field: _Field) -> list[Prediction]:
    """Of the plans that differ only in the batch limit, the smallest limit whose capacity is within 5% of the best."""
    families: dict[tuple[str, str, str, int, int], list[Prediction]] = {}
    for prediction in predictions:
        plan = prediction.candidate.plan
        families.setdefault((prediction.candidate.variant, plan.runtime, plan.device, plan.instances, plan.threads), []).append(prediction)
    kept = []
    for family in families.values():
        top = max(field.per_s(p) for p in family)
        kept.append(min((p for p in family if field.per_s(p) >= _EQUAL * top), key=lambda p: p.candidate.plan.max_batch))
    return kept
