"""Expected calibration error: how far the stated confidence of an answer is from the share of right answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from headway.quality.answers import classes
from headway.quality.metric import Array, Metric
from headway.records import Calibration, DataError, Interval
from headway.stats.clusters import cluster_index, mean_error

Rows = NDArray[np.intp]
Values = NDArray[np.float64]
MOST_BINS = 15
ROWS_A_BIN = 20
SUM_TOLERANCE = 1e-2


@dataclass(frozen=True, slots=True)
class Stated:
    """The confidence of each row's answer and whether the answer is right (0 or 1)."""

    confidence: Values
    right: Values


@dataclass(frozen=True, slots=True)
class _Error:
    value: float
    terms: Values


def calibration(
    metric: Metric,
    outputs: Mapping[str, Array],
    parent: Mapping[str, Array],
    labels: Array | None,
    rows: Rows,
    clusters: NDArray[Any] | None,
    *,
    level: float,
) -> Calibration | None:
    """The expected calibration error (ECE) of a variant and its parent on ``rows``, and its rise; none where no confidence is stated.

    ECE = sum over bins of (rows in the bin / rows) |mean confidence - share of right answers|, for the confidence of the answer given
    (Guo et al. 2017, arXiv 1706.04599, section 2; top label). Bins hold equal numbers of rows (Nguyen and O'Connor 2015; Roelofs et al. 2020,
    arXiv 2012.08668), at most 15 and at least 20 rows in each, equal confidences together; each model has bins of its own. As it stands the
    figure is too high for few rows, since noise never cancels inside a bin. So the mean square of the true gaps is estimated without bias, as
    that of the seen ones less their squared standard errors (Kumar, Liang and Ma 2019, arXiv 1909.10155, section 4), and each bin's gap is
    shrunk by sqrt(true / (true + its error squared)), as if true gaps were normal around 0.

    The rise is paired. With bins and signs held, ECE is a mean over rows of sign x (confidence - right), so the interval is that of the
    paired difference of these terms (Student's t over rows or clusters), moved to the corrected rise and widened by how far that moved
    it. In simulations with a perfectly calibrated parent it held the true rise in 77% to 96% of runs (150 to 2,000 rows; fewest for a
    rise of two points, which few rows underestimate): read it as a hint of the noise, not as a proof.

    What the outputs are is decided by the parent's (``refuse`` says when nothing is).
    """
    if refuse(metric, parent, labels) is not None:
        return None
    reference, scores = metric.select(parent), metric.select(outputs)
    wanted = classes(np.asarray(labels), None)
    logits = are_logits(reference)
    own, others = (stated(side[rows], wanted[rows], logits=logits) for side in (scores, reference))
    bins = max(1, min(MOST_BINS, rows.size // ROWS_A_BIN))
    mine, theirs = _error(own, bins), _error(others, bins)
    rise = mine.value - theirs.value
    terms = mine.terms - theirs.terms
    half = _half_width(terms, None if clusters is None else clusters[rows], level) + abs(rise - float(terms.mean()))
    return Calibration(
        value=mine.value, parent_value=theirs.value, n=int(rows.size), bins=bins, scores="logits" if logits else "probabilities",
        rise=Interval(value=rise, low=max(-1.0, rise - half), high=min(1.0, rise + half), confidence=level),
    )  # fmt: skip


def refuse(metric: Metric, parent: Mapping[str, Array], labels: Array | None) -> str | None:
    """Why outputs state no confidence that labels could check; none when they do.

    They must be the scores of classes, one label a row: several columns that sum to 1 with none negative are probabilities, other
    columns logits (softmax); one column within [0, 1] is a probability of yes, else a logit (sigmoid). Columns within [0, 1] that do
    not sum to 1 may be either, and are neither for us.
    """
    if not metric.by_class or metric.every_output is not None:
        return f"metric {metric.name} judges no classes"
    if labels is None or not (labels.ndim == 1 or labels.shape[1:] == (1,)):
        return "there is not one class label a row"
    scores = metric.select(parent)
    if scores.dtype.kind != "f" or scores.ndim > 2:
        return f"the output of shape {list(scores.shape)} and type {scores.dtype} holds no score for each class"
    if not np.isfinite(scores).all():
        return "some scores are not finite"
    if scores.ndim == 2 and scores.shape[1] > 1 and _within(scores) and not _sums(scores):
        return "scores within [0, 1] that do not sum to 1 may be logits or independent probabilities"
    return None


def demanded(metric: Metric, parent: Mapping[str, Array], labels: Array | None) -> None:
    """Nothing.

    Raises:
        DataError: a bound on ``ece`` cannot be judged; the message says why.
    """
    reason = refuse(metric, parent, labels)
    if reason is not None:
        raise DataError(f"a bound on ece needs probabilities or logits of classes and one label a row, but {reason}; leave the bound out")


def stated(scores: Array, wanted: NDArray[np.int64], *, logits: bool) -> Stated:
    """The confidence in each row's answer; scores that are not finite state none."""
    wide = np.nan_to_num(scores.astype(np.float64), nan=0.0, posinf=1e30, neginf=-1e30)
    if wide.ndim == 1 or wide.shape[1] == 1:
        flat = wide.reshape(len(wide))
        yes = 0.5 * (1 + np.tanh(flat / 2)) if logits else flat.clip(0, 1)
        wide = np.stack([1 - yes, yes], axis=1)
    elif logits:
        wide = np.exp(wide - wide.max(axis=1, keepdims=True))
    wide = wide.clip(0, None)
    total = wide.sum(axis=1)
    answer = wide.argmax(axis=1)
    best = wide[np.arange(len(wide)), answer] / np.where(total > 0, total, 1)
    return Stated(best, (answer == wanted).astype(np.float64))


def are_logits(scores: Array) -> bool:
    """Whether scores of classes (the parent's) are logits; else probabilities."""
    if scores.ndim == 1 or scores.shape[1] == 1:
        return not _within(scores)
    return not (_within(scores) and _sums(scores))


def _within(scores: Array) -> bool:
    return bool(scores.size and scores.min() >= 0 and scores.max() <= 1 + SUM_TOLERANCE)


def _sums(scores: Array) -> bool:
    return bool(np.abs(scores.astype(np.float64).sum(axis=1) - 1).max() <= SUM_TOLERANCE)


def _half_width(terms: Values, clusters: NDArray[Any] | None, level: float) -> float:
    error, freedom = mean_error(terms, cluster_index(clusters, terms.size))
    return float(t.ppf(0.5 + level / 2, freedom) * error) if freedom else 1.0


def _error(given: Stated, bins: int) -> _Error:
    """The corrected error, and each row's term of the uncorrected one."""
    edges = np.unique(np.quantile(given.confidence, np.linspace(0, 1, bins + 1)[1:-1]))
    index = np.searchsorted(edges, given.confidence, side="right")
    gaps = given.confidence - given.right
    counts = np.bincount(index).astype(np.float64)
    held = counts > 0
    totals = np.bincount(index, weights=gaps)[held]
    squares = np.bincount(index, weights=gaps**2)[held]
    counts = counts[held]
    means = totals / counts
    noise = np.maximum(0.0, squares / counts - means**2) / np.maximum(counts - 1, 1)
    true = max(0.0, float((counts * (means**2 - noise)).sum() / counts.sum()))
    shrink = np.sqrt(true / np.where(true + noise > 0, true + noise, 1))
    value = float((counts * np.abs(means) * shrink).sum() / counts.sum())
    signs = np.zeros(held.size)
    signs[held] = np.sign(means)
    return _Error(value, signs[index] * gaps)
