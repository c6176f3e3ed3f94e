"""Which array holds the labels of which output, for a model with several."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from headway.data.dataset import LABEL, TASK_LABEL, Dataset
from headway.records import DataError


def assign(dataset: Dataset, inputs: Sequence[str], outputs: Sequence[str]) -> Dataset:
    """The same samples with every array ``label_OUTPUT`` as the labels of that output, in the model's order.

    A plain ``label`` is then the first output's. ``labels`` becomes the first labelled output's: it spreads the classes over the parts.
    Labels as text become class indices by the sorted names. An array with the name of a model input stays an input.

    Raises:
        DataError: no such output, or two arrays for the first one.
    """
    found = {name: array for name, array in dataset.inputs.items() if name.startswith(TASK_LABEL) and name not in inputs}
    if not found or not outputs:
        return dataset
    held = {name.removeprefix(TASK_LABEL): array for name, array in found.items()}
    for name in held:
        if name not in outputs:
            close = difflib.get_close_matches(name, outputs, n=1, cutoff=0.5)
            hint = f"did you mean {TASK_LABEL}{close[0]}?" if close else "rename or remove it"
            raise DataError(
                f"{dataset.source}: array {TASK_LABEL + name!r} must be named after an output of the model "
                f"({', '.join(outputs)}), got {name!r}; {hint}"
            )
    if dataset.labels is not None:
        if outputs[0] in held:
            raise DataError(
                f"{dataset.source}: output {outputs[0]!r} must have one array of labels, got {LABEL!r} and {TASK_LABEL + outputs[0]!r}; remove one"
            )
        held[outputs[0]] = dataset.labels
    tasks = {name: _numbers(held[name]) for name in outputs if name in held}
    rest = {name: array for name, array in dataset.inputs.items() if name not in found}
    return replace(dataset, inputs=rest, labels=next(iter(tasks.values())), tasks=tasks)


def _numbers(labels: NDArray) -> NDArray:
    if labels.dtype.kind == "U":
        return np.unique(labels, return_inverse=True)[1].reshape(labels.shape).astype(np.int64)
    return labels.astype(np.int64) if labels.dtype.kind == "b" else labels
