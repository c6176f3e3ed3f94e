"""What each output is trained towards: which loss, on labels or on teachers, and with which weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headway.records import ConfigError, DataError
from headway.train.losses import logits, task
from headway.train.rows import Array, Rows
from headway.train.settings import Distillation, Tasks


@dataclass(frozen=True, kw_only=True)
class Aim:
    """One output's goal.

    Attributes:
        loss: ``classes``, ``binary`` or ``mse``.
        labelled: whether there are labels for it.
        axis: the axis of the classes, for ``classes``.
        probabilities: the output is probabilities, not logits.
        variance: of the labels, or of the teachers' answers, for ``mse``.
        weight: its factor in the sum.
    """

    output: str
    loss: str
    labelled: bool
    axis: int = -1
    probabilities: bool = False
    variance: float = 1.0
    weight: float = 1.0

    def towards_labels(self, output: Tensor, labels: Tensor) -> Tensor:
        """The task loss."""
        if self.loss == "classes":
            return task.classes(output, labels, axis=self.axis, probabilities=self.probabilities)
        if self.loss == "binary":
            return task.binary(output, labels, probabilities=self.probabilities)
        return task.squared(output, labels, variance=self.variance)

    def towards_teachers(self, output: Tensor, target: Tensor, temperature: float) -> Tensor:
        """The distillation loss on soft targets."""
        if self.loss == "classes":
            return logits.classes(output, target, axis=self.axis, probabilities=self.probabilities, temperature=temperature)
        if self.loss == "binary":
            return logits.binary(output, target, probabilities=self.probabilities, temperature=temperature)
        return logits.numbers(output, target, variance=self.variance)

    def soften(self, output: Tensor, temperature: float) -> Tensor:
        """A teacher's answer as a soft target."""
        if self.loss == "classes":
            return logits.soft_classes(output, axis=self.axis, probabilities=self.probabilities, temperature=temperature)
        if self.loss == "binary":
            return logits.soft_answers(output, probabilities=self.probabilities, temperature=temperature)
        return output

    def error(self, output: Tensor, labels: Tensor) -> Tensor:
        """What people look at: the share of wrong answers, or the share of the labels' variance left unexplained."""
        if self.loss == "classes":
            return task.wrong_classes(output, labels, axis=self.axis)
        if self.loss == "binary":
            return task.wrong_answers(output, labels, probabilities=self.probabilities)
        return self.towards_labels(output, labels)


def aims(seen: Mapping[str, Tensor], rows: Rows, tasks: Tasks, distillation: Distillation, *, taught: bool) -> tuple[Aim, ...]:
    """The goal of each output that can have one.

    Args:
        seen: answers to some of the rows, by output: the teacher's where there is one, else the model's own. Probabilities are told
            from logits by them.
        taught: whether there is a teacher.

    Raises:
        ConfigError: a loss or weight for an output that the model lacks, or nothing to learn from.
        DataError: labels that do not fit their output.
    """
    unknown = sorted((set(tasks.losses) | set(tasks.weights)) - set(seen))
    if unknown:
        raise ConfigError(f"tasks: outputs must be the model's ({', '.join(seen)}), got {', '.join(unknown)}")
    made = []
    for name, output in seen.items():
        labels, weight = rows.labels.get(name), float(tasks.weights.get(name, 1.0))
        if weight > 0 and output.is_floating_point() and output.ndim > 0 and (labels is not None or taught):
            made.append(_aim(name, output, labels, tasks.losses.get(name, "auto"), weight))
    if not made and not distillation.features:
        raise ConfigError("recover: needs labels for a float output, or a teacher, got neither; give labels= or teachers=")
    return tuple(made)


def _aim(name: str, output: Tensor, labels: Array | None, loss: str, weight: float) -> Aim:
    if labels is None:
        kind = "mse" if loss == "auto" else loss
        variance = task.spread(output)
    else:
        kind = _kind(name, output, labels) if loss == "auto" else loss
        variance = task.spread(torch.from_numpy(np.ascontiguousarray(labels)))
    axis = _class_axis(output, labels) if kind == "classes" else -1
    if labels is not None:
        check_labels(name, output, labels, kind, axis)
    return Aim(
        output=name, loss=kind, labelled=labels is not None, axis=axis, probabilities=_is_probabilities(output, kind, axis),
        variance=variance, weight=weight,
    )  # fmt: skip


def _kind(name: str, output: Tensor, labels: Array) -> str:
    held = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    same = held.size * len(output) == output.numel() * len(held)
    whole = held.dtype.kind == "i" or bool(np.array_equal(held, np.round(held)))
    if same:
        return "binary" if whole and bool(np.isin(held, (0, 1)).all()) else "mse"
    if whole and held.dtype.kind in "if" and held.ndim == output.ndim - 1:
        return "classes"
    raise DataError(
        f"labels of output {name!r}: shape {list(labels.shape)} must fit the output's {list(output.shape)}; name the loss in tasks.losses"
    )


def _class_axis(output: Tensor, labels: Array | None) -> int:
    if labels is None or output.ndim <= 2:
        return -1
    inner = labels.shape[1:]
    return 1 if inner == tuple(output.shape[2:]) and inner != tuple(output.shape[1:-1]) else -1


def check_labels(name: str, output: Tensor, labels: Array, kind: str, axis: int) -> None:
    """Raises ``DataError`` when labels do not fit an output and its loss."""
    each = output[0].numel() // (output.shape[axis] if kind == "classes" else 1)
    if labels[0].size != each:
        raise DataError(
            f"labels of output {name!r}: {kind} needs {each} a row for an output of shape {list(output.shape)}, got {labels[0].size}"
        )
    if kind == "classes":
        if not bool(np.array_equal(labels, np.round(labels))):
            raise DataError(f"labels of output {name!r}: classes must be whole numbers, got others; use mse")
        largest, smallest = labels.max(), labels.min()
        if smallest < 0 or largest >= output.shape[axis]:
            raise DataError(
                f"labels of output {name!r}: classes must lie between 0 and {output.shape[axis] - 1}, got {smallest} to {largest}; do they count from 1?"
            )
    elif kind == "binary" and not bool(np.isin(labels, (0, 1)).all()):
        raise DataError(f"labels of output {name!r}: a yes/no loss needs labels 0 and 1, got others; use classes or mse")


def _is_probabilities(output: Tensor, kind: str, axis: int) -> bool:
    """Within [0, 1] and, for classes, summing to one; a little off still counts, since a quantized output rounds."""
    within = bool((output >= 0).all() and (output <= 1).all())
    if kind == "classes":
        return within and bool(((output.sum(axis) - 1).abs() < 0.05).all())
    return kind == "binary" and within
