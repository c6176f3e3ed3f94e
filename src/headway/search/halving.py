"""Successive halving over load time: which candidate holds the highest rate, or which holds the stated rate for the least.

After Karnin, Koren and Somekh (2013, "Almost optimal exploration in multi-armed bandits", sequential halving) and Jamieson and Talwalkar (2016,
"Non-stochastic best arm identification and hyperparameter optimization"): the field gets short runs, what is left of it longer ones. Their arms give
a number at every pull; a load run only says whether a rate was held. So a rung offers **one rate to all that are left**, in turn and with the same
arrivals, and who fails it while another holds it is out.

This file measures nothing: it says what to run next and is told what came of it. The same answers lead to the same questions.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headway.load.find import BELOW_MU, FAR, LOWEST_PER_S, OPEN_STEP, RESOLUTION, STALL_SHARE, held, trial_s
from headway.records import Candidate, LoadPoint, Objective, Prediction
from headway.search.choose import MEMORY_STEP_BYTES

MOST_RUNS = 10
SHORTEST_S = 1.2
LONGEST_S = 8.0
"""No run is longer, however few are left [s]."""
STEP = 1.2
"""Factor to the next rate once some candidate has failed one; before that the predictions are too low for all, and ``OPEN_STEP`` is taken."""


IDLE_SHARE = 0.1
UNKNOWN_PER_S = 100.0
"""First guess for a candidate that nothing is known of [1/s]."""
CLOSE = 0.9
"""Who answers this share of what the best answers in time comes close to it."""


@dataclass(frozen=True, slots=True)
class Offer:
    """One load run to make.

    Attributes:
        draw: which arrivals; the same for all candidates of a rung, another one when a run is repeated.
    """

    candidate: Candidate
    rate_per_s: float
    duration_s: float
    draw: int


@dataclass(frozen=True, slots=True)
class Ends:
    """The highest rate that a candidate held (0: none) and the lowest above it that it failed; if none, the highest tried, and ``open_above`` [1/s]."""

    low_per_s: float
    high_per_s: float
    open_above: bool


@dataclass(frozen=True, slots=True)
class _Told:
    """What came of one run; runs that no rung asked for have a rung of their own, below zero."""

    rung: int
    rate_per_s: float
    point: LoadPoint


class Halving:
    """The search over a field of predicted candidates: take ``next_runs``, make them, ``tell`` each, until nothing is asked any more.

    - Without a stated rate, or when the highest rate is preferred: the common rate climbs while several hold it and falls when nobody does, until one
      is left, the bracket is narrow or the runs are spent.
    - With one, the stated rate is the first. Those that hold it are ordered as ``choose.order`` would, and the better half is confirmed in a longer run,
      and again, down to ``keep``. So a cheap one that holds it is not dropped because a dear one holds more. If nobody holds it, the rate falls.
    - A failure is repeated once when one stall could explain it (``load.find.STALL_SHARE``) and it is a surprise: the candidate held this rate before,
      or it was predicted to and a rival does.
    - When nobody holds a rate, the half that missed least stays, with those that come close to the best.

    Attributes:
        runs: load runs told so far.
    """

    def __init__(
        self,
        field: Sequence[Prediction],
        objective: Objective,
        *,
        keep: int = 1,
        most_runs: int = MOST_RUNS,
        shortest_s: float = SHORTEST_S,
        memory_bytes: Mapping[Candidate, int] | None = None,
    ) -> None:
        self.runs = 0
        self._objective, self._keep, self._most_runs, self._shortest_s = objective, keep, most_runs, shortest_s
        self._memory_bytes = memory_bytes or {}
        self._expected = {prediction.candidate: prediction.capacity_per_s for prediction in field}
        self._told: dict[Candidate, list[_Told]] = {candidate: [] for candidate in self._expected}
        self._left = list(self._expected)[:most_runs]
        self._low, self._high = 0.0, math.inf
        self._rate = max(LOWEST_PER_S, objective.rate_per_s or _middle(field))
        self._rung, self._draw, self._length, self._over = 0, 0, 1, False
        self._due = self._offers()

    @property
    def survivors(self) -> tuple[Candidate, ...]:
        """Who is still in, best first."""
        return tuple(candidate for candidate in self.ranking if candidate in self._left)

    @property
    def ranking(self) -> tuple[Candidate, ...]:
        """Everyone, best first by what is known now; those that were not run come last, highest prediction first.

        Of a rung that was not finished only the first counts: later ones would punish those whose turn came.
        """
        return tuple(sorted(self._expected, key=self._standing))

    def next_runs(self) -> tuple[Offer, ...]:
        """The runs to make next, in this order; none when the search is over. The same ones until they are told."""
        if not self._due and not self._over:
            self._due = self._decide()
            self._over = not self._due
        return tuple(self._due)

    def tell(self, candidate: Candidate, rate_per_s: float, point: LoadPoint) -> None:
        """Take in what came of a run, asked for or not."""
        self.runs += 1
        asked = any((offer.candidate, offer.rate_per_s) == (candidate, rate_per_s) for offer in self._due)
        self._told[candidate].append(_Told(self._rung if asked else -self.runs, rate_per_s, point))
        if asked:
            self._due = [offer for offer in self._due if offer.candidate != candidate]

    def lose(self, candidate: Candidate) -> None:
        """Forget a candidate that cannot be run."""
        self._left = [other for other in self._left if other != candidate]
        self._due = [offer for offer in self._due if offer.candidate != candidate]
        del self._expected[candidate], self._told[candidate]

    def ends(self, candidate: Candidate) -> Ends | None:
        """The bracket of a candidate's capacity; none before its first run."""
        return _ends(self._told.get(candidate, []), self._objective.percentile)

    def guess_per_s(self, candidate: Candidate) -> float:
        """A candidate's capacity as far as it is known: the prediction, within what its runs say; one that drowned it told its throughput [1/s]."""
        ends, predicted = self.ends(candidate), self._expected.get(candidate, 0.0) or UNKNOWN_PER_S
        if ends is None:
            return predicted
        drowned = [told.point.achieved_rate_per_s for told in self._told[candidate] if told.point.miss_fraction > STALL_SHARE]
        highest = math.inf if ends.open_above else ends.high_per_s
        return max(ends.low_per_s, min([predicted, highest, *(rate for rate in drowned if rate > 0)]))

    # --- what happens between rungs

    def _decide(self) -> list[Offer]:
        repeated = self._repeated()
        if repeated:
            self._draw += 1
            return [self._offer(candidate) for candidate in repeated]
        rate_per_s = self._confirmed_next() if self._confirming and self._able() else self._narrowed()
        left = self._most_runs - self.runs
        if rate_per_s is None or left < (2 if self._low > 0 and not self._confirming else 1):
            return []
        self._left = list(self.survivors[:left])
        self._rate, self._rung, self._draw = rate_per_s, self._rung + 1, self._draw + 1
        return self._offers()

    def _repeated(self) -> list[Candidate]:
        """Whose failure in this rung is weak evidence: those that missed least come first."""
        rivals = [candidate for candidate in self._left if self._holds(candidate, self._rate)]
        doubtful = [
            candidate
            for candidate in self._left
            if candidate not in rivals
            and len([told for told in self._told[candidate] if told.rung == self._rung]) == 1
            and self._missed(candidate) <= STALL_SHARE
            and (self._held_before(candidate) or (rivals and self._expected[candidate] >= self._rate))
        ]
        return sorted(doubtful, key=lambda candidate: (self._missed(candidate), str(candidate)))[: max(0, self._most_runs - self.runs)]

    def _confirmed_next(self) -> float | None:
        """The stated rate once more for the better half of those that hold it; none when the best were just confirmed alone [1/s]."""
        able = self._able()
        if len(self._left) <= self._keep and set(able[: self._keep]) <= set(self._left):
            return None
        self._left = able[: max(self._keep, math.ceil(len(self._left) / 2))]
        self._length *= 2
        return self._rate

    def _narrowed(self) -> float | None:
        """Drops who is out, and gives the next common rate; none when the search is over [1/s]."""
        able = [candidate for candidate in self._left if self._holds(candidate, self._rate)]
        if able:
            self._low, self._left = self._rate, able
            self._length *= 2
        else:
            tried = [candidate for candidate, told in self._told.items() if told] if self._confirming else self._left
            self._high, self._left = self._rate, self._better_half(tried)
        if self._low == 0:
            return self._below() if self._left and self._high > LOWEST_PER_S else None
        if len(self._left) <= self._keep or self._high <= self._low * RESOLUTION:
            return None
        return self._above() if math.isinf(self._high) else math.sqrt(self._low * self._high)

    def _better_half(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Of those that all failed one rate: the half that missed least, and whoever answered almost as much as the best in time."""
        ranked = sorted(candidates, key=lambda candidate: (self._missed(candidate), -self._expected[candidate], str(candidate)))
        enough = CLOSE * (1 - self._missed(ranked[0])) if ranked else 0.0
        return [c for place, c in enumerate(ranked) if place < math.ceil(len(ranked) / 2) or 1 - self._missed(c) >= enough]

    def _above(self) -> float:
        """A rate above one that several held: what predictions say of the middle of those, but a step up at least [1/s]."""
        failed = len(self._left) < len(self._expected)
        middle = statistics.median(self._expected[candidate] for candidate in self._left)
        return max(self._low * (STEP if failed else OPEN_STEP), middle)

    def _below(self) -> float:
        """A rate below one that nobody held; a target that drowned still told its throughput [1/s]."""
        step_down = self._high / (STEP if self._rung == 0 else STEP**2)
        points = [self._told[candidate][-1].point for candidate in self._left]
        if all(point.miss_fraction > STALL_SHARE for point in points):
            step_down = min(step_down, BELOW_MU * max(point.achieved_rate_per_s for point in points))
        return max(LOWEST_PER_S, self._high / FAR, step_down)

    # --- what is known

    @property
    def _confirming(self) -> bool:
        """Whether holding the stated rate is all that counts, and the rate has not been given up yet."""
        return self._rate == self._objective.rate_per_s and self._objective.preference != "rate"

    def _able(self) -> list[Candidate]:
        """Who held the present rate when last asked, best first."""
        return [candidate for candidate in self.ranking if self._holds(candidate, self._rate)]

    def _holds(self, candidate: Candidate, rate_per_s: float) -> bool:
        return _holds(self._told[candidate], rate_per_s, self._objective.percentile)

    def _held_before(self, candidate: Candidate) -> bool:
        return _holds([told for told in self._told[candidate] if told.rung != self._rung], self._rate, self._objective.percentile)

    def _missed(self, candidate: Candidate) -> float:
        """Share of misses of the last run."""
        return self._told[candidate][-1].point.miss_fraction

    def _standing(self, candidate: Candidate) -> tuple[float | str, ...]:
        """What candidates are ranked by; less is better."""
        counted = [told for told in self._told[candidate] if told.rung != self._rung or self._rung == 0 or not self._underway()]
        expected = (-self._expected[candidate], str(candidate))
        ends = _ends(counted, self._objective.percentile)
        if ends is None:
            return 2, *expected
        stated = self._objective.rate_per_s
        if stated is not None and self._objective.preference != "rate" and ends.low_per_s >= stated:
            return 0, *self._cost(candidate, stated), *expected
        ceiling = math.inf if ends.open_above else ends.high_per_s
        surplus = (
            1 - ends.low_per_s / ceiling
        )  # who holds the low end cannot have refused more than this for want of capacity: the rest was a stall
        misses = min((told.point.miss_fraction for told in counted if told.rate_per_s == ceiling), default=0.0)
        return 1, candidate not in self._left, -ends.low_per_s, -ceiling, min(misses, surplus), *expected

    def _underway(self) -> bool:
        """Whether some of the rung have not had their turn."""
        return any(all(told.rung != self._rung for told in self._told[offer.candidate]) for offer in self._due)

    def _cost(self, candidate: Candidate, stated_per_s: float) -> tuple[float, ...]:
        """The figures of ``choose.order``, the preferred one first."""
        points = [told.point for told in self._told[candidate] if told.rate_per_s == stated_per_s and told.point.percentiles]
        figures = {
            "cores": candidate.plan.instances * candidate.plan.threads,
            "memory": self._memory_bytes.get(candidate, 0) // MEMORY_STEP_BYTES,
            "latency": points[-1].percentile(self._objective.percentile).latency_s if points else math.inf,
        }
        return (figures[self._objective.preference], *figures.values())

    def _offers(self) -> list[Offer]:
        """One run each; every other rung in reverse, so that nobody always comes last."""
        return [self._offer(candidate) for candidate in (self._left if self._rung % 2 == 0 else reversed(self._left))]

    def _offer(self, candidate: Candidate) -> Offer:
        return Offer(candidate, self._rate, min(LONGEST_S, self._length * trial_s(self._rate, self._shortest_s)), self._draw)


def _middle(field: Sequence[Prediction]) -> float:
    """The capacity predicted for the middle of the field; if that is none, a rate so low that latency is about one service time [1/s]."""
    if not field:
        return LOWEST_PER_S
    expected = statistics.median(prediction.capacity_per_s for prediction in field)
    return expected or IDLE_SHARE * statistics.median(prediction.rate_per_s for prediction in field)


def _holds(told: Sequence[_Told], rate_per_s: float, percentile: float) -> bool:
    """Whether a rate was held in the last rung that offered it."""
    mine = [one for one in told if one.rate_per_s == rate_per_s]
    return any(held(one.point, percentile) for one in mine if one.rung == mine[-1].rung)


def _ends(told: Sequence[_Told], percentile: float) -> Ends | None:
    if not told:
        return None
    verdicts = {one.rate_per_s: _holds(told, one.rate_per_s, percentile) for one in told}
    low = max((rate for rate, holds in verdicts.items() if holds), default=0.0)
    failed = [rate for rate, holds in verdicts.items() if not holds and rate > low]
    return Ends(low, min(failed, default=max(verdicts)), not failed)
