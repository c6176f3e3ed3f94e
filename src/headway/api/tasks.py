"""Which outputs are judged, and by which metric."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from headway.data import Dataset
from headway.quality import Metric, Task, default_metric, metric
from headway.records import ConfigError

Outputs = Mapping[str, np.ndarray]


def metrics_by_output(wanted: str | Mapping[str, str], dataset: Dataset, names: Sequence[str], few: Outputs) -> dict[str, Metric]:
    """The metric of each judged output, in the model's order: those with labels, and those with a metric that needs none.

    Args:
        wanted: one metric for all, or metrics by output; an output without one gets what fits its labels.
        names: the model's outputs.
        few: outputs of the first rows of ``dataset``, in the order of ``names``.

    Raises:
        ConfigError: a metric for an output that the model has not, or one metric that cannot judge several outputs.
    """
    held = labels_by_output(dataset, names)
    by_output = wanted if isinstance(wanted, Mapping) else dict.fromkeys(held, wanted)
    for name in by_output:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "name one of them"
            raise ConfigError(f"metric: must be for an output of the model ({', '.join(names)}), got {name!r}; {hint}")
    shown = dict(zip(names, few.values(), strict=True))
    found = {}
    for name in names:
        if by_output.get(name):
            found[name] = _bound(by_output[name], name, alone=isinstance(wanted, Mapping))
        elif name in held:
            fitting = default_metric({name: shown[name]}, held[name])
            found[name] = replace(fitting, name=f"{fitting.name}@{name}", output=name)
    return found


def labels_by_output(dataset: Dataset, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Labels by output; a plain ``label`` is the first output's."""
    return dataset.tasks or ({} if dataset.labels is None else {names[0]: dataset.labels})


def tasks_of(dataset: Dataset, metrics: Mapping[str, Metric]) -> dict[str, Task]:
    """What is judged on the rows of ``dataset``."""
    held = labels_by_output(dataset, tuple(metrics))
    return {name: Task(judged, held.get(name)) for name, judged in metrics.items()}


def _bound(reference: str, output: str, *, alone: bool) -> Metric:
    made = metric(reference)
    if made.output is not None:
        raise ConfigError(f"metric: must name its output once, got {output}={reference}; write {output}={reference.partition('@')[0]}")
    if made.every_output is not None:
        if not alone:
            raise ConfigError(
                f"metric: a function for several labelled outputs must say which, got {reference}; write {output}={reference}"
            )
        return replace(made, output=output)
    return replace(made, name=f"{reference}@{output}", output=output)
