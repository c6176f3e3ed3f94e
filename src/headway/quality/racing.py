"""A race: a variant is judged on growing numbers of rows and stops as soon as it is surely out or surely in.

A look at few rows asks of every bound on quality (``drop``, ``group_drop``, ``ece``; of each task) the two one-sided questions: is it
surely broken, is it surely kept? The tests are those of ``evidence`` and ``flips``; the chance of a wrong stop is at most ``ERROR`` in each
direction, over all looks of a race together.

- Surely out, when one bound is surely broken. Bounds, tasks, groups and looks share the error (Bonferroni).
- Surely in, when all bounds are surely kept. Only looks share the error: each bound must pass alone, so their number needs no correction
  (intersection-union test, Berger 1982, Technometrics 24). With a bound on ``ece`` nothing is.

Looks get equal shares. O'Brien and Fleming 1979 (Biometrics 35) leave nearly all of the error to the last look, for trials in which
stopping early is the exception; a race (Maron and Moore 1994, "Hoeffding races", NIPS 6) wants it to be the rule. Exact spending (Pocock
1977, Biometrika 64; Lan and DeMets 1983, Biometrika 70) needs the joint law of all looks, which bootstraps, exact tails and clusters do
not have; the sum of the shares bounds the error whatever that law is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from headway.quality.compare import Samples, members
from headway.quality.confidence import calibration
from headway.quality.evidence import FLOOR, Terms, weigh
from headway.quality.flips import MOST_EXACT_ROWS, loss_above_p
from headway.quality.metric import Array
from headway.quality.pair import Pair, pair
from headway.quality.tasks import Task
from headway.quality.verdict import TRUSTED_ROWS
from headway.records import DataError, Objective, Quality
from headway.stats import effective_size, paired_difference_p, planned_looks, skewed_mean_above_p

BEYOND, WITHIN = "beyond", "within"
ERROR = 0.01
FEWEST_TESTED = 20
"""On fewer independent rows (or clusters) nothing is said."""
CONFIDENCE = 0.95
"""Of the intervals from which a bootstrap's standard error is read."""

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class FirstRows:
    """The first rows of samples: what ``compare`` and ``compare_tasks`` need of them."""

    labels: Array | None
    groups: Array | None
    clusters: Array | None
    class_names: tuple[str, ...]
    size: int

    def __len__(self) -> int:
        return self.size


def first_rows(samples: Samples, count: int) -> FirstRows:
    """The first ``count`` rows; nothing is copied."""
    labels, groups, clusters = (_first(array, count) for array in (samples.labels, samples.groups, samples.clusters))
    return FirstRows(labels, groups, clusters, samples.class_names, count)


def first_labels(tasks: Mapping[str, Task], count: int) -> dict[str, Task]:
    """The tasks on the first ``count`` rows."""
    return {name: Task(task.metric, _first(task.labels, count)) for name, task in tasks.items()}


def _first(array: Array | None, count: int) -> Array | None:
    return None if array is None else array[:count]


@dataclass(frozen=True, slots=True)
class Odds:
    """One-sided p-values about a bound.

    Attributes:
        kept: of "the bound is kept"; small: surely broken.
        broken: of "the bound is broken"; small: surely kept.
    """

    kept: float
    broken: float


OPEN = Odds(1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Race:
    """What is judged, and what decides at each look; the same outputs give the same answer.

    Attributes:
        samples: all rows, in random order as ``data.split`` leaves them, so that the first ones are a fair sample.
        tasks: what is judged, by output; a single metric is one task. ``ece`` is the first one's.
        worth_sparing: fewest rows for whose sake a variant that is surely in is stopped. It goes on with figures of fewer rows than its
            rivals have, so they must be rows that cost something. A variant that is surely out is compared with nobody.
    """

    samples: Samples
    tasks: Mapping[str, Task]
    objective: Objective
    worth_sparing: int = 1
    seed: int = 0

    @property
    def looks(self) -> tuple[int, ...]:
        """After how many rows to ask ``standing``."""
        return planned_looks(len(self.samples))

    def standing(self, rows: int, outputs: Mapping[str, Array], parent_outputs: Mapping[str, Array]) -> str:
        """``beyond`` (surely out), ``within`` (surely in) or empty (go on), from the outputs of the first ``rows`` rows.

        Outputs that became NaN or infinite are surely out at once. Where a metric does not exist on so few rows (AUC without one of the
        classes), the race goes on.

        Raises:
            ModelError: outputs that are missing or have another shape than the parent's.
        """
        found: list[Odds] = []
        try:
            for number, task in enumerate(self.tasks.values()):
                both = pair(task.metric, outputs, parent_outputs, _first(task.labels, rows), rows)
                if not both.finite.all():
                    return BEYOND
                if self.objective.drop is not None:
                    found.append(self._odds(both, np.arange(rows), self.objective.drop))
                if self.objective.group_drop is not None:
                    found.append(self._of_groups(both, task, rows, self.objective.group_drop))
                if self.objective.ece is not None and number == 0:
                    found.append(self._of_calibration(task, outputs, parent_outputs, rows, self.objective.ece))
        except DataError:
            return ""
        if any(odds.kept <= self._share_out for odds in found):
            return BEYOND
        return WITHIN if found and all(odds.broken <= self._share_in(rows) for odds in found) else ""

    @property
    def _share_out(self) -> float:
        """The error that a look may spend on calling one bound broken."""
        of_each = (self.objective.drop is not None) + (self.objective.group_drop is not None)
        bounds = len(self.tasks) * of_each + (self.objective.ece is not None)
        return ERROR / max(1, len(self.looks) * bounds)

    def _share_in(self, rows: int) -> float:
        """The error that a look may spend on calling all bounds kept; negative where it must not call them so.

        Looks at which not even rows without a loss could prove it, (1 - bound)^rows, get none.
        """
        tightest = min(bound for bound in (self.objective.drop, self.objective.group_drop, 1.0) if bound is not None)
        enough = max(TRUSTED_ROWS, next((look for look in self.looks if (1 - tightest) ** look <= ERROR), math.inf))
        able = [look for look in self.looks if enough <= look <= len(self.samples) - self.worth_sparing]
        return ERROR / len(able) if rows in able else -1.0

    def _odds(self, both: Pair, rows: Rows, bound: float, *, parts: int = 1, as_hits: bool = False) -> Odds:
        terms = Terms(self.samples.clusters, self.seed, CONFIDENCE)
        return odds(both, rows, terms, bound, level=1 - 2 * self._share_out / parts, as_hits=as_hits)

    def _of_groups(self, both: Pair, task: Task, rows: int, bound: float) -> Odds:
        """Broken by one group, with the error shared among those large enough to say anything; kept by all that the samples hold."""
        whole = FirstRows(task.labels, self.samples.groups, self.samples.clusters, self.samples.class_names, len(self.samples))
        seen = [group[group < rows] for group in members(task.metric, whole, np.arange(len(whole))).values()]
        large = [group for group in seen if group.size >= FEWEST_TESTED]
        if not large:
            return OPEN
        found = [self._odds(both, group, bound, parts=len(large), as_hits=whole.groups is None) for group in large]
        return Odds(
            kept=min(1.0, len(large) * min(one.kept for one in found)),
            broken=max(one.broken for one in found) if len(large) == len(seen) else 1.0,
        )

    def _of_calibration(
        self, task: Task, outputs: Mapping[str, Array], parent_outputs: Mapping[str, Array], rows: int, bound: float
    ) -> Odds:
        """Surely broken where the interval of the rise, at the confidence that the look needs, is beyond the bound; never surely kept.

        A small rise is underestimated on few rows (``confidence.calibration``): of simulated variants exactly at a bound of 3 points,
        29% would have been called kept.
        """
        labels, clusters, level = _first(task.labels, rows), self.samples.clusters, 1 - 2 * self._share_out
        found = None
        if rows >= TRUSTED_ROWS:
            found = calibration(task.metric, outputs, parent_outputs, labels, np.arange(rows), clusters, level=level)
        return Odds(kept=float(found is None or found.rise.low <= bound), broken=1.0)


def odds(both: Pair, rows: Rows, terms: Terms, bound: float, *, level: float, as_hits: bool = False) -> Odds:
    """The two p-values of one bound on the drop over ``rows``. Fewer than ``FEWEST_TESTED`` independent rows say nothing.

    Right and wrong: tails of the net flips (``loss_above_p``, ``loss_below_p``). Other means of at most one a row: the same, as if losses and
    gains came in whole rows. No losses with these sums vary more, so this is slower than a t-test, and is not fooled by losses that few rows
    hold and a sample may miss. The rest says nothing on fewer than 200 rows: errors, which have no upper end, are surely broken by Student's t,
    corrected for skewness (wrongly in up to 2.3% of simulated races where one row in ten gains what the others lose), and never surely kept;
    metrics of the whole by the normal law with the bootstrap's standard error, and no
    surer kept than rows without any loss would be, (1 - bound)^n.

    Args:
        level: confidence at which rows in clusters are counted (``stats.effective_size``).
        as_hits: as in ``evidence.weigh``.
    """
    kept = terms.of(rows)
    independent = kept.independent(rows.size)
    if independent < FEWEST_TESTED:
        return OPEN
    values = (both.hits[0].astype(float), both.hits[1].astype(float)) if as_hits and both.hits is not None else both.rows
    if values is None:
        return _of_the_whole(both, rows, terms, bound, independent)
    mine, parents = values[0][rows], values[1][rows]
    loss = parents - mine if both.metric.higher_is_better else mine - parents
    if both.metric.relative:
        excess = loss - bound * np.maximum(parents, FLOOR)
        return Odds(skewed_mean_above_p(excess, 0.0, kept.clusters), 1.0) if rows.size >= TRUSTED_ROWS else OPEN
    size = effective_size(loss, kept.clusters, level)
    worse, better = (float(side.clip(0, 1).mean()) * size for side in (loss, -loss))
    return Odds(loss_above_p(worse, better, size, bound), loss_below_p(worse, better, size, bound))


def _of_the_whole(both: Pair, rows: Rows, terms: Terms, bound: float, independent: int) -> Odds:
    evidence = weigh(both, rows, terms) if rows.size >= TRUSTED_ROWS else None
    if evidence is None:
        return OPEN
    above = evidence.p_above(bound)
    surely = not both.metric.relative and evidence.drop.value <= bound
    return Odds(above, max(1 - above, (1 - bound) ** independent) if surely else 1.0)


def loss_below_p(worse: float, better: float, size: float, bound: float) -> float:
    """One-sided p-value of "the drop of the share of right answers is at least ``bound``", on paired rows: the other tail of ``loss_above_p``.

    The chance of at most this many net flips when the drop is ``bound``: flips of either kind are binomial over the rows, those from right
    to wrong binomial among the flips; the share of flips is the likeliest under the bound (Tango 1998, Statistics in Medicine 17,
    section 3; an "estimated" p-value, Lloyd 2008). Without flips it is (1 - bound)^n: 0 of 300 rows prove a drop below 1% with 95%
    confidence. Beyond 20,000 rows: Tango's score.

    Args:
        worse, better: rows that went from right to wrong, and from wrong to right; scaled to ``size`` when rows come in clusters.
        size: number of (effective) rows.

    Raises:
        ValueError: negative flips, more flips than rows, or a bound outside (-1, 1).
    """
    rough = paired_difference_p(better, worse, size, -bound)
    n = math.floor(size + 1e-9)
    if n < 1:
        return 1.0
    if n > MOST_EXACT_ROWS:
        return rough
    lost, won = min(n, math.ceil(worse - 1e-9)), math.floor(better + 1e-9)
    linear = -worse - better + (2 * size - worse + better) * bound
    root = math.sqrt(max(0.0, linear * linear + 8 * size * better * bound * (1 - bound)))
    gained = min(max((root - linear) / (4 * size), 0.0), (1 - bound) / 2)
    either = 2 * gained + bound
    if either <= 0:
        return 1.0
    flips = np.arange(n + 1)
    chances = binom.pmf(flips, n, either) * binom.cdf((flips + lost - won) // 2, flips, (gained + bound) / either)
    return float(min(1.0, chances.sum()))


def stopped(quality: Quality, standing: str, rows: int, of_rows: int) -> Quality:
    """The record of a race that ended after ``rows`` of ``of_rows`` rows: it says so, in the reason too, and so does each of its tasks."""
    words = f"stopped early: surely {standing} after {rows:,} of {of_rows:,} rows"
    tasks = tuple(msgspec.structs.replace(task, of_rows=of_rows) for task in quality.by_task) or msgspec.UNSET
    return msgspec.structs.replace(quality, of_rows=of_rows, tasks=tasks, reason="; ".join(filter(None, (quality.reason, words))))
