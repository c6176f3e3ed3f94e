"""The metric when none is named."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from headway.quality.answers import class_count
from headway.quality.metric import Array, Metric
from headway.quality.named import metric
from headway.records import DataError


def default_metric(outputs: Mapping[str, Array], labels: Array | None) -> Metric:
    """The metric that fits the first output and the labels.

    With labels: ``accuracy`` for whole-number labels that the scores can name, ``auc`` for a matrix of 0 and 1, else ``cosine`` when
    the label vectors have length one, else ``mse``. Without: ``cosine_to_parent`` for vectors of length one and for outputs of more
    than two axes, ``closeness_to_parent`` for single numbers beyond [0, 1], else ``agreement``. Scores of items cannot be told from
    scores of classes: name ``hr@10`` for them.

    Raises:
        DataError: labels of a shape that no metric here fits.
    """
    scores = metric("agreement").select(outputs)
    if labels is None:
        return metric(_without_labels(scores))
    held = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    whole = held.dtype.kind in "iub" or bool(np.array_equal(held, held.astype(np.int64)))
    count = class_count(scores)
    if whole and held.size and held.ndim == max(1, scores.ndim - 1) and (count is None or (held.min() >= 0 and held.max() < count)):
        return metric("accuracy")
    if held.size * len(scores) != scores.size * len(held):
        raise DataError(
            f"labels of shape {list(labels.shape)} (largest {held.max() if held.size else 'none'}) fit no metric for an output of shape "
            f"{list(scores.shape)}; name one with --metric, or check that labels count from 0"
        )
    if whole and held.ndim == 2 and bool(np.isin(held, (0, 1)).all()):
        return metric("auc")
    return metric("cosine" if held.ndim == 2 and _unit(held) else "mse")


def _without_labels(scores: Array) -> str:
    if scores.dtype.kind in "iub" and scores.ndim == 1:
        return "agreement"
    if scores.ndim > 2 or (scores.ndim == 2 and scores.shape[1] > 1 and _unit(scores)):
        return "cosine_to_parent"
    single = scores.ndim == 1 or scores.shape[1] == 1
    within = bool((scores >= 0).all() and (scores <= 1).all())
    return "closeness_to_parent" if single and not within else "agreement"


def _unit(vectors: Array) -> bool:
    """Whether all rows are vectors of length one (and no probabilities of one certain class)."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    certain = bool(np.isin(vectors, (0, 1)).all())
    return bool(len(lengths) and np.allclose(lengths, 1, atol=1e-3)) and not certain
