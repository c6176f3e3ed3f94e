"""A model judged on several outputs: each with its metric and its labels, all of them together as good as the worst."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from headway.quality.compare import Samples, compare
from headway.quality.metric import Array, Metric
from headway.quality.verdict import Verdict, together
from headway.records import Objective, Quality


@dataclass(frozen=True, slots=True)
class Task:
    """One judged output: its metric, whose ``output`` names it, and its labels (none for metrics that need none)."""

    metric: Metric
    labels: Array | None


@dataclass(frozen=True, slots=True)
class _TaskSamples:
    """The rows of a data set with the labels of one task."""

    labels: Array | None
    groups: Array | None
    clusters: Array | None
    class_names: tuple[str, ...]
    size: int

    def __len__(self) -> int:
        return self.size


def compare_tasks(
    *,
    variant: str,
    runtime: str,
    part: str,
    tasks: Mapping[str, Task],
    outputs: Mapping[str, Array],
    parent_outputs: Mapping[str, Array],
    dataset: Samples,
    objective: Objective | None = None,
    seed: int = 0,
) -> Quality:
    """The quality of a variant on every task, by output name, paired with its parent.

    ``drop`` and ``group_drop`` bound each task. ``ece`` bounds the first one. The verdict is the worst of all; the figures are those of
    the task with the largest drop. The data set's class names are the first task's.

    Raises:
        DataError, ModelError: as ``compare`` does, of any task.
    """
    found = []
    for number, (name, task) in enumerate(tasks.items()):
        samples = _TaskSamples(task.labels, dataset.groups, dataset.clusters, () if number else dataset.class_names, len(dataset))
        bounds = objective if objective is None or number == 0 else msgspec.structs.replace(objective, ece=None)
        quality = compare(
            variant=variant, runtime=runtime, part=part, metric=task.metric, outputs=outputs, parent_outputs=parent_outputs,
            dataset=samples, objective=bounds, seed=seed,
        )  # fmt: skip
        if quality.reason and name not in quality.reason:
            quality = msgspec.structs.replace(quality, reason=f"output {name!r}: {quality.reason}")
        found.append(quality)
    verdict = together([Verdict(quality.verdict, quality.reason) for quality in found])
    worst = max(found, key=lambda quality: quality.drop.value)
    return msgspec.structs.replace(
        worst, verdict=verdict.word, reason=verdict.reason, agreement=min(quality.agreement for quality in found), tasks=tuple(found)
    )
