"""Metrics that are the mean of a value a row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from headway.quality.answers import answers, class_count, classes, flat_pair, labels_shape, ranks
from headway.quality.metric import Array
from headway.records import DataError

Rows = NDArray[np.float64]


def accuracy(scores: Array, labels: Array, parent: Array) -> Rows:
    """1 where the answer is the label; for rows of several answers (tokens, pixels with classes last) the share of right ones."""
    given, wanted = answers(scores, parent), classes(labels, class_count(scores))
    if given.shape != wanted.shape:
        raise DataError(f"accuracy needs one label an answer, {list(given.shape)}, got labels of shape {list(labels_shape(labels))}")
    return (given == wanted).reshape(len(given), -1).mean(axis=1)


def accuracy_hits(scores: Array, labels: Array, parent: Array) -> NDArray[np.bool_]:
    """Whether all answers of a row are right."""
    return accuracy(scores, labels, parent) == 1


def top(k: int) -> Callable[[Array, Array, Array], NDArray[np.bool_]]:
    """Whether the label's column is among the ``k`` largest; ties count against the model."""

    def hits(scores: Array, labels: Array, parent: Array) -> NDArray[np.bool_]:
        return ranks(scores, labels) <= k

    return hits


def top_rows(k: int) -> Callable[[Array, Array, Array], Rows]:
    """``top`` as 0 and 1."""

    def rows(scores: Array, labels: Array, parent: Array) -> Rows:
        return (ranks(scores, labels) <= k).astype(np.float64)

    return rows


def recall(k: int) -> Callable[[Array, Array, Array], Rows]:
    """Share of a row's relevant columns among its ``k`` largest.

    Labels: 0 and 1 in the shape of the scores, or column indices, (rows,) or (rows, most) with -1 as filling.
    """

    def rows(scores: Array, labels: Array, parent: Array) -> Rows:
        if labels.ndim == 1:
            return (ranks(scores, labels) <= k).astype(np.float64)
        relevant = _relevant(scores, labels)
        total = relevant.sum(axis=1)
        if total.min(initial=1) == 0:
            raise DataError(f"recall needs a relevant item in every row, got none in row {int(total.argmin())}; drop such rows")
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(relevant, best, axis=1).sum(axis=1) / total

    return rows


def _relevant(scores: Array, labels: Array) -> NDArray[np.bool_]:
    if scores.ndim != 2:
        raise DataError(f"recall needs one score an item, [rows, items], got shape {list(scores.shape)}")
    if labels.shape == scores.shape and bool(np.isin(labels, (0, 1)).all()):
        return labels.astype(bool)
    items = classes(labels, None)
    if items.ndim != 2 or len(items) != len(scores) or items.max(initial=0) >= scores.shape[1]:
        raise DataError(
            f"recall needs labels of 0 and 1 in the scores' shape {list(scores.shape)}, or item indices below {scores.shape[1]} with -1 as "
            f"filling, got shape {list(labels_shape(labels))} with {int(items.max(initial=0))} as the largest"
        )
    relevant = np.zeros((len(scores), scores.shape[1] + 1), dtype=bool)
    relevant[np.arange(len(items))[:, None], np.where(items < 0, scores.shape[1], items)] = True
    return relevant[:, :-1]


def squared_error(scores: Array, labels: Array, parent: Array) -> Rows:
    """Mean squared error of a row."""
    left, right = flat_pair(scores, labels)
    return ((left - right) ** 2).mean(axis=1)


def absolute_error(scores: Array, labels: Array, parent: Array) -> Rows:
    """Mean absolute error of a row."""
    left, right = flat_pair(scores, labels)
    return np.abs(left - right).mean(axis=1)


def cosine(scores: Array, labels: Array, parent: Array) -> Rows:
    """Cosine of the angle between output and label vector; 0 where one of them is zero."""
    left, right = flat_pair(scores, labels)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.where(norms > 0, (left * right).sum(axis=1) / np.where(norms > 0, norms, 1), (norms == 0) & (left == right).all(axis=1))


def cosine_to_parent(scores: Array, labels: Array, parent: Array) -> Rows:
    """Cosine of the angle between the output and the parent's."""
    return cosine(scores, parent, parent)


def closeness_to_parent(scores: Array, labels: Array, parent: Array) -> Rows:
    """1 less the distance from the parent's output, in units of the spread (standard deviation) of the parent's; never below 0."""
    left, right = flat_pair(scores, parent)
    spread = max(float(right.std()), 1e-12)
    return 1 - np.minimum(1, np.abs(left - right) / spread).mean(axis=1)


def agreement(scores: Array, labels: Array, parent: Array) -> Rows:
    """1 where the answer is the parent's; for rows of several answers the share."""
    same = answers(scores, parent) == answers(parent, parent)
    return same.reshape(len(same), -1).mean(axis=1)
