"""Metrics of all rows at once: values by scikit-learn, resamples by counting, so that a bootstrap takes no minutes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score, roc_auc_score

from headway.quality.answers import answers, class_count, classes, labels_shape
from headway.quality.metric import Array, Statistic
from headway.records import DataError


def f1(scores: Array, labels: Array, parent: Array) -> float:
    """Macro F1: the unweighted mean over classes that occur, in labels or answers."""
    given, wanted = _answers_and_labels(scores, labels, parent)
    return float(f1_score(wanted, given, average="macro", zero_division=0))


def f1_hits(scores: Array, labels: Array, parent: Array) -> NDArray[np.bool_]:
    """Whether each answer is the label."""
    given, wanted = _answers_and_labels(scores, labels, parent)
    return given == wanted


def f1_statistic(scores: Array, labels: Array, parent: Array) -> Statistic:
    """Macro F1 of rows drawn again: 2 tp / (2 tp + fp + fn) = 2 tp / (answers + labels) by class."""
    given, wanted = _answers_and_labels(scores, labels, parent)
    lowest = min(given.min(initial=0), wanted.min(initial=0))
    given, wanted = given - lowest, wanted - lowest
    count = int(max(given.max(initial=0), wanted.max(initial=0))) + 1
    right = np.where(given == wanted, given, count)

    def value(rows: NDArray[np.intp]) -> float:
        hits = np.bincount(right[rows], minlength=count + 1)[:count]
        seen = np.bincount(given[rows], minlength=count) + np.bincount(wanted[rows], minlength=count)
        return float(np.mean(2 * hits[seen > 0] / seen[seen > 0]))

    return value


def auc(scores: Array, labels: Array, parent: Array) -> float:
    """Area under the ROC curve; several classes: each against the rest, several labels: each column; unweighted mean.

    Raises:
        DataError: a class or a column that is present in all rows or in none.
    """
    columns = _columns(scores, labels, parent)
    for number, (_, wanted) in enumerate(columns):
        if wanted.all() or not wanted.any():
            raise DataError(f"auc needs rows inside and outside of every class, got one kind only for class {number}; add rows")
    return float(np.mean([roc_auc_score(wanted, column) for column, wanted in columns]))


def auc_statistic(scores: Array, labels: Array, parent: Array) -> Statistic:
    """AUC of rows drawn again, as the share of (inside, outside) pairs in order, ties half; NaN without such a pair."""
    coded = [(np.unique(column, return_inverse=True)[1], wanted) for column, wanted in _columns(scores, labels, parent)]

    def one(codes: NDArray[np.intp], wanted: NDArray[np.bool_]) -> float:
        total = np.bincount(codes)
        inside = np.bincount(codes, weights=wanted, minlength=total.size)
        outside = total - inside
        pairs = inside.sum() * outside.sum()
        return float(inside @ (np.cumsum(outside) - outside / 2) / pairs) if pairs else float("nan")

    def value(rows: NDArray[np.intp]) -> float:
        return float(np.mean([one(codes[rows], wanted[rows]) for codes, wanted in coded]))

    return value


def _answers_and_labels(scores: Array, labels: Array, parent: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    given, wanted = answers(scores, parent), classes(labels, class_count(scores))
    if given.ndim != 1 or given.shape != wanted.shape:
        raise DataError(f"f1 needs one answer and one label a row, got shapes {list(scores.shape)} and {list(labels_shape(labels))}")
    return given.astype(np.int64), wanted


def _columns(scores: Array, labels: Array, parent: Array) -> list[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Scores and membership of each class to be told apart."""
    wide = scores[:, None] if scores.ndim == 1 else scores
    if wide.ndim != 2:
        raise DataError(f"auc needs scores of shape [rows, classes], got {list(scores.shape)}")
    wide = wide.astype(np.float64)
    if labels.ndim == 2 and labels.shape[1] > 1:
        if labels.shape != wide.shape or not np.isin(labels, (0, 1)).all():
            raise DataError(f"auc needs labels of 0 and 1 in the scores' shape {list(wide.shape)}, got {list(labels.shape)}")
        return [(wide[:, column], labels[:, column] == 1) for column in range(wide.shape[1])]
    wanted = classes(labels, max(2, wide.shape[1]))
    if wide.shape[1] == 1:
        return [(wide[:, 0], wanted == 1)]
    if wide.shape[1] == 2:
        return [(wide[:, 1] - wide[:, 0], wanted == 1)]
    if not _probabilities(parent.reshape(len(parent), -1)):
        wide = np.exp(wide - wide.max(axis=1, keepdims=True))
        wide /= wide.sum(axis=1, keepdims=True)
    return [(wide[:, column], wanted == column) for column in range(wide.shape[1])]


def _probabilities(scores: Array) -> bool:
    return bool((scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3))
