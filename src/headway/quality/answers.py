"""What scores and labels say: classes, thresholds, ranks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from headway.quality.metric import Array
from headway.records import DataError


def answers(scores: Array, parent: Array) -> Array:
    """The class each row's scores stand for.

    Whole numbers are classes already; one column is a yes/no score: yes above 0.5 when all of the parent's lie within [0, 1] (a
    sigmoid), else above 0 (a logit); several columns: the largest along the last axis.
    """
    if scores.dtype.kind in "iub" and scores.ndim == 1:
        return scores.astype(np.int64)
    if scores.ndim == 1 or scores.shape[-1] == 1:
        flat = scores if scores.ndim == 1 else scores[..., 0]
        return (flat > threshold(parent)).astype(np.int64)
    return scores.argmax(axis=-1)


def threshold(parent: Array) -> float:
    """0.5 for probabilities, 0 for logits."""
    return 0.5 if parent.size and bool((parent >= 0).all() and (parent <= 1).all()) else 0.0


def class_count(scores: Array) -> int | None:
    """Number of classes that scores tell apart; none when they are classes themselves."""
    if scores.dtype.kind in "iub" and scores.ndim == 1:
        return None
    return 2 if scores.ndim == 1 or scores.shape[-1] == 1 else int(scores.shape[-1])


def classes(labels: Array, count: int | None) -> NDArray[np.int64]:
    """Labels as class indices.

    Raises:
        DataError: labels that are no whole numbers, or beyond the classes that the scores know.
    """
    held = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    whole = held.astype(np.int64) if held.dtype.kind in "iubf" else np.array([])
    if not np.array_equal(whole, held):
        got = "fractions; use mse or mae for them" if held.dtype.kind == "f" else f"{held.dtype}; number the classes from 0"
        raise DataError(f"labels must be class indices (whole numbers) for this metric, got {got}")
    if count is not None and whole.size and (whole.min() < 0 or whole.max() >= count):
        worst = int(whole.max()) if whole.max() >= count else int(whole.min())
        raise DataError(f"labels must lie between 0 and {count - 1}, as the model has {count} classes, got {worst}; do they count from 1?")
    return whole


def ranks(scores: Array, items: Array) -> NDArray[np.intp]:
    """Rank of each row's item among its columns, 1 is best; ties count against it.

    Raises:
        DataError: scores without columns, or an item that is no column.
    """
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise DataError(f"this metric needs one score a class or item, [rows, columns], got shape {list(scores.shape)}; use accuracy")
    right = classes(items, scores.shape[1])
    if right.ndim != 1:
        raise DataError(f"labels must be the index of the right column, one a row, got shape {list(labels_shape(items))}")
    return np.sum(scores >= scores[np.arange(len(scores)), right][:, None], axis=1)


def labels_shape(labels: Array) -> tuple[int, ...]:
    """Shape of labels, for messages."""
    return tuple(int(size) for size in labels.shape)


def flat_pair(scores: Array, target: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as (rows, values) in float64.

    Raises:
        DataError: different numbers of values a row.
    """
    n = len(scores)
    left, right = scores.reshape(n, -1).astype(np.float64), target.reshape(n, -1).astype(np.float64)
    if left.shape != right.shape:
        raise DataError(f"labels must have the shape of the output, {list(scores.shape)}, for this metric, got {list(target.shape)}")
    return left, right
