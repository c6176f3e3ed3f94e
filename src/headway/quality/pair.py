"""A variant and its parent on the same rows, ready to be weighed on any subset of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headway.quality.metric import Array, Metric, Statistic
from headway.records import DataError, ModelError

Own = Callable[[Mapping[str, Array], Array | None], float]
SAME_ROW = 0.01
NO_LABELS = "the metric needs labels, got none; add an array 'label', or use agreement, which compares with the parent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Figures by row (``rows``) or as functions of row indices (``statistics``), variant first, parent second.

    Attributes:
        hits: whether each row is right, variant and parent; none where there is no right and wrong.
        same: whether a row's answer is the parent's (without answers: outputs within 1% of each other, relative L2).
        identical: whether the outputs are bit for bit the parent's.
        finite: rows whose outputs the variant did not newly make NaN or infinite.
    """

    metric: Metric
    rows: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    statistics: tuple[Statistic, Statistic] | None
    hits: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None
    same: NDArray[np.bool_]
    identical: bool
    finite: NDArray[np.bool_]


@np.errstate(invalid="ignore", over="ignore")
def pair(metric: Metric, outputs: Mapping[str, Array], parent: Mapping[str, Array], labels: Array | None, n: int) -> Pair:
    """Outputs of a variant and of its parent on ``n`` rows, judged by ``metric``.

    Raises:
        DataError: missing labels, labels that do not fit, a parent whose own output is NaN.
        ModelError: outputs of other shapes or numbers of rows.
    """
    if metric.needs_labels and labels is None:
        raise DataError(f"metric {metric.name}: {NO_LABELS}")
    scores, reference = _wide(metric.select(outputs)), _wide(metric.select(parent))
    _check_shapes(metric, scores, reference, n)
    finite = ~_rows_with(~_finite(scores) & _finite(reference))
    known = np.zeros(n) if labels is None else labels
    fixed = np.where(_finite(scores), scores, reference)  # rows that are not finite are never weighed; this keeps functions quiet
    common = {"metric": metric, "same": _same(metric, fixed, reference), "finite": finite}
    if metric.every_output is not None:
        identical = outputs.keys() == parent.keys() and all(np.array_equal(outputs[name], parent[name]) for name in parent)
        functions = (_on_rows(metric.every_output, outputs, labels), _on_rows(metric.every_output, parent, labels))
        return Pair(rows=None, statistics=functions, hits=None, identical=identical, **common)  # type: ignore[arg-type]
    common["identical"] = np.array_equal(scores, reference)
    common["hits"] = None if metric.hits is None else tuple(metric.hits(side, known, reference) for side in (fixed, reference))
    if metric.rows is not None:
        values = (metric.rows(fixed, known, reference), metric.rows(reference, known, reference))
        if not all(np.isfinite(side).all() for side in values):
            raise DataError(f"metric {metric.name}: must be finite on every row, got NaN or infinity; use a metric of answers: accuracy")
        return Pair(rows=values, statistics=None, **common)  # type: ignore[arg-type]
    if metric.whole is None or metric.statistic is None:
        raise TypeError(f"metric {metric.name}: rows, or whole and statistic, or every_output must be given, got none")
    metric.whole(reference, known, reference)  # raises when the metric cannot be had from these labels
    statistics = (metric.statistic(fixed, known, reference), metric.statistic(reference, known, reference))
    return Pair(rows=None, statistics=statistics, **common)  # type: ignore[arg-type]


def _check_shapes(metric: Metric, scores: Array, reference: Array, n: int) -> None:
    if scores.shape != reference.shape:
        raise ModelError(
            f"metric {metric.name}: a variant's output must have its parent's shape, got {list(scores.shape)} and {list(reference.shape)}"
        )
    if len(scores) != n:
        raise ModelError(f"metric {metric.name}: the output must have one row a sample, got {len(scores)} rows for {n} samples")
    if n == 0:
        raise DataError(f"metric {metric.name}: needs at least one row, got none")
    if reference.dtype.kind == "f":
        nan = _rows_with(np.isnan(reference))
        if nan.any():
            row = int(np.flatnonzero(nan)[0])
            raise DataError(
                f"the model itself must give numbers, got NaN in row {row} ({int(nan.sum())} in all); check its inputs and export"
            )


def _same(metric: Metric, scores: Array, reference: Array) -> NDArray[np.bool_]:
    if metric.answers is not None:
        return ~_rows_with(metric.answers(scores, reference) != metric.answers(reference, reference))
    left, right = (side.reshape(len(side), -1).astype(np.float64) for side in (scores, reference))
    moved = np.nan_to_num(np.linalg.norm(left - right, axis=1), nan=0.0)
    return moved <= SAME_ROW * np.linalg.norm(right, axis=1)


def _on_rows(function: Own, outputs: Mapping[str, Array], labels: Array | None) -> Statistic:
    held = {name: np.asarray(array) for name, array in outputs.items()}

    def value(rows: NDArray[np.intp]) -> float:
        return function({name: array[rows] for name, array in held.items()}, None if labels is None else labels[rows])

    return value


def _wide(scores: Array) -> Array:
    """float16 and bfloat16 as float32, so that nothing here overflows."""
    return scores if scores.dtype.kind in "iub" or scores.dtype in (np.float32, np.float64) else scores.astype(np.float32)


def _finite(scores: Array) -> NDArray[np.bool_]:
    return np.isfinite(scores) if scores.dtype.kind == "f" else np.ones(scores.shape, dtype=bool)


def _rows_with(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(mask.reshape(len(mask), -1).any(axis=1))
