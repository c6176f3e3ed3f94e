"""A variant against its parent on the same rows: the record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headway.quality.confidence import calibration, demanded
from headway.quality.evidence import Evidence, Terms, weigh
from headway.quality.flips import holm_adjusted
from headway.quality.metric import Array, Metric
from headway.quality.pair import Pair, pair
from headway.quality.verdict import FEWEST_ROWS, Verdict, judge
from headway.records import DataError, GroupQuality, Interval, Objective, Quality

NOT_FINITE = "outputs must be finite where the parent's are"
MOST_CLASSES = 100
MOST_GROUPS = 1000


class Samples(Protocol):
    """What is needed of a data set; ``headway.data.Dataset`` has it."""

    @property
    def labels(self) -> Array | None: ...
    @property
    def groups(self) -> Array | None: ...
    @property
    def clusters(self) -> Array | None: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    def __len__(self) -> int: ...


def compare(
    *,
    variant: str,
    runtime: str,
    part: str,
    metric: Metric,
    outputs: Mapping[str, Array],
    parent_outputs: Mapping[str, Array],
    dataset: Samples,
    objective: Objective | None = None,
    seed: int = 0,
    confidence: float = 0.95,
) -> Quality:
    """The quality of a variant, paired with its parent on the rows of ``dataset``; the same arguments give the same record.

    Groups are the data set's, else the classes of the labels (at most 100, those with at least 5 rows) for metrics of classes. Each
    interval stands alone; the verdict corrects for their number (``verdict.judge_many``), and so does their ``p_loss``. For F1 a class's
    value is the share of its rows that are right. Rows whose outputs became NaN or infinite make the verdict ``violated`` and are left out
    of the figures; when none is left the value is the worst that JSON can hold.

    Raises:
        DataError: no rows, missing or unfit labels, a parent that gives NaN, more than 1000 groups, a bound on groups for data that
            have neither groups nor classes, or a bound on ``ece`` for outputs that state no confidence.
        ModelError: an output that is missing or has another shape than the parent's.
    """
    both = pair(metric, outputs, parent_outputs, dataset.labels, len(dataset))
    if objective is not None and objective.group_drop is not None and dataset.groups is None and not _has_classes(metric, dataset):
        raise DataError(
            f"a bound on group_drop needs groups, or classes judged by a metric such as accuracy, got neither with metric {metric.name}; "
            "add an array 'group' or leave the bound out"
        )
    rows = np.flatnonzero(both.finite)
    if rows.size == 0:
        return _hopeless(variant, runtime, part, metric, both)
    terms = Terms(dataset.clusters, seed, confidence)
    overall = weigh(both, rows, terms)
    if overall is None:
        raise DataError(f"metric {metric.name}: must exist on these {rows.size} rows and most resamples of them, got NaN; use more rows")
    groups = _group_evidence(both, rows, dataset, terms)
    if objective is not None and objective.ece is not None:
        demanded(metric, parent_outputs, dataset.labels)
    stated = calibration(metric, outputs, parent_outputs, dataset.labels, rows, dataset.clusters, level=confidence)
    verdict = judge(metric, objective, overall, groups, stated)
    losses = holm_adjusted([found.p_above(0.0) for found in groups.values()])
    if rows.size < len(dataset):
        lost = len(dataset) - rows.size
        verdict = Verdict("violated", f"{NOT_FINITE}, got NaN or infinity in {lost} of {len(dataset)} rows; figures are of the other rows")
    flips = _flips(both, rows)
    return Quality(
        variant=variant,
        runtime=runtime,
        part=part,
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        n=int(rows.size),
        value=overall.value,
        parent_value=overall.parent_value,
        drop=overall.drop,
        right_to_wrong=flips[0],
        wrong_to_right=flips[1],
        agreement=float(both.same[rows].mean()),
        groups=tuple(
            GroupQuality(group=name, n=found.n, value=found.value.value, parent_value=found.parent_value, drop=found.drop, p_loss=p_loss)
            for (name, found), p_loss in zip(groups.items(), losses, strict=True)
        ),
        verdict=verdict.word,
        reason=verdict.reason,
        calibration=stated,
    )


def _has_classes(metric: Metric, dataset: Samples) -> bool:
    labels = dataset.labels
    return metric.by_class and labels is not None and (labels.ndim == 1 or labels.shape[1:] == (1,))


def members(metric: Metric, dataset: Samples, rows: NDArray[np.intp]) -> dict[str, NDArray[np.intp]]:
    """Which of ``rows`` are in each group: one of the data set, else a class of at least 5 of these rows.

    Raises:
        DataError: more than 1000 groups.
    """
    return _class_groups(rows, dataset, metric) if dataset.groups is None else _named_groups(rows, dataset)


def _group_evidence(both: Pair, rows: NDArray[np.intp], dataset: Samples, terms: Terms) -> dict[str, Evidence]:
    inside = members(both.metric, dataset, rows)
    found = {name: weigh(both, some, terms, as_hits=dataset.groups is None) for name, some in inside.items()}
    return {name: evidence for name, evidence in found.items() if evidence is not None}


def _named_groups(rows: NDArray[np.intp], dataset: Samples) -> dict[str, NDArray[np.intp]]:
    names, numbers = np.unique(np.asarray(dataset.groups)[rows], return_inverse=True)
    if len(names) > MOST_GROUPS:
        raise DataError(f"array 'group' must name at most {MOST_GROUPS} groups, got {len(names)}; join the small ones")
    return {str(name): rows[numbers == number] for number, name in enumerate(names)}


def _class_groups(rows: NDArray[np.intp], dataset: Samples, metric: Metric) -> dict[str, NDArray[np.intp]]:
    if not _has_classes(metric, dataset):
        return {}
    labels = np.asarray(dataset.labels).reshape(len(dataset))
    kinds, counts = np.unique(labels[rows], return_counts=True)
    if len(kinds) > MOST_CLASSES:
        return {}
    known = dataset.class_names
    return {
        known[int(kind)] if 0 <= int(kind) < len(known) else f"class {int(kind)}": rows[labels[rows] == kind]
        for kind, count in zip(kinds, counts, strict=True)
        if count >= FEWEST_ROWS
    }


def _flips(both: Pair, rows: NDArray[np.intp]) -> tuple[int | None, int | None]:
    if both.hits is None:
        return None, None
    mine, parents = both.hits[0][rows], both.hits[1][rows]
    return int((parents & ~mine).sum()), int((mine & ~parents).sum())


def _hopeless(variant: str, runtime: str, part: str, metric: Metric, both: Pair) -> Quality:
    """The record when no row is finite: JSON knows neither NaN nor infinity, so errors without an end get the largest number."""
    every = np.arange(both.finite.size)
    parent = float(both.rows[1].mean()) if both.rows is not None else float(both.statistics[1](every)) if both.statistics else 0.0
    worst = 0.0 if metric.higher_is_better else math.sqrt(np.finfo(np.float64).max)
    lost = 1.0 if metric.relative and metric.higher_is_better else abs(parent - worst)
    return Quality(
        variant=variant,
        runtime=runtime,
        part=part,
        metric=metric.name,
        higher_is_better=metric.higher_is_better,
        n=int(both.finite.size),
        value=Interval(value=worst, low=worst, high=worst),
        parent_value=parent,
        drop=Interval(value=lost, low=lost, high=lost),
        right_to_wrong=None,
        wrong_to_right=None,
        agreement=0.0,
        verdict="violated",
        reason=f"{NOT_FINITE}, got NaN or infinity in every row",
    )
