"""What rows say about a drop: the estimate, its interval, and how likely a drop beyond a bound is noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from headway.quality.flips import loss_above_p
from headway.quality.pair import Pair
from headway.records import Interval
from headway.stats import (
    Estimate,
    bootstrap_statistic,
    effective_size,
    mean_above_p,
    paired_bootstrap,
    paired_relative_bootstrap,
    tango,
    wilson,
)

Rows = NDArray[np.intp]
Values = NDArray[np.float64]
FLOOR = 1e-12


@dataclass(frozen=True, slots=True)
class Evidence:
    """A metric on some rows.

    Attributes:
        drop: loss against the parent on the same rows, positive is worse.
        p_above: for a bound (0: any drop at all), the one-sided p-value of "the drop is at most the bound".
    """

    n: int
    value: Interval
    parent_value: float
    drop: Interval
    p_above: Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Terms:
    """How evidence is weighed: the clusters of all rows (or none), the seed of resampling, the confidence of intervals."""

    clusters: NDArray[Any] | None
    seed: int
    confidence: float

    def of(self, rows: Rows) -> Terms:
        """The same terms for some of the rows."""
        return self if self.clusters is None else replace(self, clusters=self.clusters[rows])

    def independent(self, n: int) -> int:
        """How many rows or clusters are drawn independently."""
        return n if self.clusters is None else len(np.unique(self.clusters))


def weigh(pair: Pair, rows: Rows, terms: Terms, *, as_hits: bool = False) -> Evidence | None:
    """The evidence of ``rows``; none when the metric does not exist on them (AUC of one class).

    Right or wrong (every row 0 or 1): Wilson's interval of the value and Tango's of the drop, with clusters at the effective number of
    rows. They do not collapse when nothing flips, so ten unchanged rows prove nothing; a bootstrap would say "no drop, surely".
    Other means: paired (cluster) bootstrap. Metrics of the whole: paired (cluster) bootstrap of the metric. Where these collapse to a
    point though the outputs differ, the drop gets the width that a share without flips would have. Outputs that are bit for bit the
    parent's have no drop and no width.

    Args:
        as_hits: weigh right and wrong instead of the metric (a class's own rows have no F1).
    """
    kept = terms.of(rows)
    values = (pair.hits[0].astype(float), pair.hits[1].astype(float)) if as_hits and pair.hits is not None else pair.rows
    if values is None:
        return _of_statistics(pair, rows, kept)
    mine, parents = values[0][rows], values[1][rows]
    if np.isin(mine, (0, 1)).all() and np.isin(parents, (0, 1)).all():
        return _of_shares(pair, mine, parents, kept)
    return _of_means(pair, mine, parents, kept)


def _of_shares(pair: Pair, mine: Values, parents: Values, terms: Terms) -> Evidence:
    loss = _sign(pair) * (parents - mine)
    size = effective_size(loss, terms.clusters, terms.confidence)
    worse, better = (float(flips.sum()) * size / loss.size for flips in (loss > 0, loss < 0))
    drop = _nothing(terms) if pair.identical else tango(worse, better, size, terms.confidence)
    own_size = effective_size(mine, terms.clusters, terms.confidence)
    return Evidence(
        n=mine.size,
        value=_record(wilson(float(mine.mean()) * own_size, own_size, terms.confidence)),
        parent_value=float(parents.mean()),
        drop=_record(drop),
        p_above=lambda bound: loss_above_p(worse, better, size, bound),
    )


def _of_means(pair: Pair, mine: Values, parents: Values, terms: Terms) -> Evidence:
    loss, nothing = _sign(pair) * (parents - mine), np.zeros_like(mine)
    scale = np.ones_like(parents)
    if pair.metric.relative:  # an error: lower is better, so growing is losing
        drop = paired_relative_bootstrap(mine, parents, terms.clusters, seed=terms.seed, confidence=terms.confidence, floor=FLOOR)
        scale = parents if parents.mean() > FLOOR else np.full_like(parents, FLOOR)
    else:
        drop = paired_bootstrap(loss, nothing, terms.clusters, seed=terms.seed, confidence=terms.confidence)
        drop = drop if pair.identical else _widened(drop, terms.independent(mine.size))
    value = paired_bootstrap(mine, nothing, terms.clusters, seed=terms.seed, confidence=terms.confidence)
    return Evidence(
        n=mine.size,
        value=_record(value),
        parent_value=float(parents.mean()),
        drop=_record(drop),
        p_above=lambda bound: mean_above_p(loss - bound * scale, 0.0, terms.clusters),
    )


def _of_statistics(pair: Pair, rows: Rows, terms: Terms) -> Evidence | None:
    if pair.statistics is None:
        return None
    mine, parents = pair.statistics

    def loss(picks: Rows) -> float:
        base = parents(rows[picks])
        gap = _sign(pair) * (base - mine(rows[picks]))
        return float(gap / max(abs(base), FLOOR) if pair.metric.relative else gap)

    parent_value = parents(rows)
    if not np.isfinite([parent_value, mine(rows)]).all():
        return None
    try:
        value, drop = (
            bootstrap_statistic(
                figure, rows.size, terms.clusters, seed=terms.seed, confidence=terms.confidence, resamples=pair.metric.resamples
            )
            for figure in (lambda picks: mine(rows[picks]), loss)
        )
    except ValueError:  # the metric does not exist on most resamples
        return None
    error = (drop.high - drop.low) / (2 * float(norm.ppf(0.5 + terms.confidence / 2)))
    if not pair.metric.relative and not pair.identical:
        drop = _widened(drop, terms.independent(rows.size))
    return Evidence(
        n=rows.size,
        value=_record(value),
        parent_value=parent_value,
        drop=_record(drop),
        p_above=lambda bound: float(norm.sf((drop.value - bound) / error)) if error > FLOOR else 1.0,
    )


def _sign(pair: Pair) -> float:
    return 1.0 if pair.metric.higher_is_better else -1.0


def _nothing(terms: Terms) -> Estimate:
    return Estimate(0.0, 0.0, 0.0, terms.confidence)


def _widened(drop: Estimate, independent: int) -> Estimate:
    if drop.high - drop.low > FLOOR:
        return drop
    width = tango(0, 0, independent, drop.confidence).high
    return Estimate(drop.value, drop.value - width, drop.value + width, drop.confidence)


def _record(estimate: Estimate) -> Interval:
    return Interval(**estimate._asdict())
