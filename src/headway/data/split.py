"""The disjoint parts: calibration sets scales, selection chooses, report confirms once; none may see another's rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headway.data.dataset import Dataset
from headway.records import DataError

FEWEST_CLUSTERS = 5


@dataclass(frozen=True, slots=True)
class Shares:
    """How rows are shared out; the report part gets the rest.

    Attributes:
        calibration: share for calibration, at most ``calibration_cap`` rows (more do not sharpen the scales).
        selection: share of what calibration leaves.
    """

    calibration: float = 0.2
    selection: float = 0.5
    calibration_cap: int = 512


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts; rows within one are in random order, so the first k of them are a fair sample."""

    calibration: Dataset
    selection: Dataset
    report: Dataset
    train: Dataset | None = None


def split(dataset: Dataset, *, seed: int, train: Dataset | None = None, shares: Shares | None = None) -> Parts:
    """Disjoint parts that cover all rows, by default 20% calibration (at most 512 rows), 40% selection, 40% report.

    The same data and seed give the same parts. Rows of one cluster stay together. Classes (whole-number labels, one a row) are spread
    so that each part holds a class's share of rows, or of clusters, within one. ``train`` is passed on as it is.

    Raises:
        DataError: fewer than five clusters, shares that leave a part empty, or training data that are the same data.
    """
    if train is not None and train.digest == dataset.digest:
        raise DataError(f"{train.source}: training data must be other rows than the data that judge, got the same; give held-out data")
    calibration, selection, report = split_indices(dataset, seed=seed, shares=shares or Shares())
    return Parts(dataset.take(calibration), dataset.take(selection), dataset.take(report), train)


def split_indices(dataset: Dataset, *, seed: int, shares: Shares) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Row indices of calibration, selection and report."""
    n = len(dataset)
    units = np.arange(n) if dataset.clusters is None else np.unique(dataset.clusters, return_inverse=True)[1]
    count = int(units.max()) + 1 if n else 0
    if count < FEWEST_CLUSTERS:
        what = "rows" if dataset.clusters is None else "clusters, which stay whole"
        raise DataError(f"{dataset.source}: needs at least {FEWEST_CLUSTERS} {what}, to be split into parts, got {count}; add samples")
    generator = np.random.default_rng(seed)
    part_of = _assign(_strata(dataset, units, count), _totals(count, n, shares, dataset.source), generator)[units]
    parts = tuple(generator.permutation(np.flatnonzero(part_of == part)) for part in range(3))
    return parts[0], parts[1], parts[2]


def _totals(units: int, rows: int, shares: Shares, source: str) -> NDArray[np.intp]:
    """How many units (rows or clusters) each part gets."""
    if not (0 < shares.calibration < 1 and 0 < shares.selection < 1 and shares.calibration_cap > 0):
        raise DataError(f"{source}: every part needs a share between 0 and 1, got {shares}")
    calibration = max(1, round(units * min(shares.calibration, shares.calibration_cap / rows)))
    calibration = min(calibration, units - 2)
    selection = min(max(1, round((units - calibration) * shares.selection)), units - calibration - 1)
    return np.array([calibration, selection, units - calibration - selection], dtype=np.intp)


def _strata(dataset: Dataset, units: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """Class of each unit (of a cluster: its commonest, the lowest on a tie); all alike when labels are no classes."""
    labels = dataset.labels
    if labels is None or labels.ndim != 1 or labels.dtype.kind not in "iub":
        return np.zeros(count, dtype=np.intp)
    names, classes = np.unique(labels, return_inverse=True)
    pairs, sizes = np.unique(units * len(names) + classes, return_counts=True)
    best = np.zeros(count, dtype=np.intp)
    largest = np.zeros(count, dtype=np.intp)
    for pair, size in zip(pairs, sizes, strict=True):
        unit, kind = divmod(int(pair), len(names))
        if size > largest[unit]:
            best[unit], largest[unit] = kind, size
    return best


def _assign(strata: NDArray[np.intp], totals: NDArray[np.intp], generator: np.random.Generator) -> NDArray[np.intp]:
    """Part of each unit: every stratum's count in every part is its share within one, and the totals are met.

    Each stratum first gives every part the floor of its share; its left-over units go, one each, to the parts that still miss most
    (the constructive proof of Gale and Ryser 1957 shows that the totals come out).
    """
    kinds, members = np.unique(strata, return_inverse=True)
    sizes = np.bincount(members)
    floors = sizes[:, None] * totals[None, :] // int(totals.sum())
    missing = totals - floors.sum(axis=0)
    part_of = np.empty(strata.size, dtype=np.intp)
    for kind in generator.permutation(len(kinds)):
        left = int(sizes[kind] - floors[kind].sum())
        neediest = np.lexsort((generator.random(3), -missing))[:left]
        counts = floors[kind].copy()
        counts[neediest] += 1
        missing[neediest] -= 1
        part_of[generator.permutation(np.flatnonzero(members == kind))] = np.repeat(np.arange(3), counts)
    return part_of
