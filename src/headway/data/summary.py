"""The record of what the samples are."""

from __future__ import annotations

import numpy as np

from headway.data.dataset import Dataset
from headway.data.split import Parts
from headway.records import DataSummary


def summary(parts: Parts, dataset: Dataset, metric: str) -> DataSummary:
    """Counts, groups and the digest of a data set and its parts; never a value of it."""
    return DataSummary(
        source=dataset.source,
        n=len(dataset),
        calibration=len(parts.calibration),
        selection=len(parts.selection),
        report=len(parts.report),
        train=0 if parts.train is None else len(parts.train),
        labelled=dataset.labels is not None,
        groups=() if dataset.groups is None else tuple(str(name) for name in np.unique(dataset.groups)),
        metric=metric,
        digest=dataset.digest,
    )
