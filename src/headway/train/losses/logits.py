"""Losses towards the answers of teachers: Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network" (arXiv 1503.02531, section 2).

Soft targets are the teachers' probabilities at a temperature T. The loss is the Kullback-Leibler divergence from the student's
probabilities at the same T, times T squared, so that its gradient keeps its size when T changes. Numbers are compared as numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from headway.train.losses.task import class_scores, squared, yes_scores


def mixed(parts: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The weighted mean of what several teachers say; ``shares`` empty: all the same."""
    weights = shares or [1.0] * len(parts)
    total = sum(weights)
    return torch.stack([part * (weight / total) for part, weight in zip(parts, weights, strict=True)]).sum(0)


def soft_classes(output: Tensor, *, axis: int, probabilities: bool, temperature: float) -> Tensor:
    """A teacher's class probabilities at a temperature, in the output's shape."""
    scores = class_scores(output, axis, probabilities).div(temperature).softmax(-1)
    moved = output.movedim(axis, -1)
    return scores.reshape(moved.shape).movedim(-1, axis)


def soft_answers(output: Tensor, *, probabilities: bool, temperature: float) -> Tensor:
    """A teacher's probabilities of yes at a temperature."""
    return torch.sigmoid(yes_scores(output, probabilities) / temperature)


def classes(output: Tensor, target: Tensor, *, axis: int, probabilities: bool, temperature: float) -> Tensor:
    """T^2 times the divergence [nat] of the student's class probabilities from soft targets of the same shape, mean over positions."""
    scores = class_scores(output, axis, probabilities).div(temperature).log_softmax(-1)
    wanted = target.movedim(axis, -1).flatten(0, -2)
    return temperature**2 * functional.kl_div(scores, wanted, reduction="batchmean")


def binary(output: Tensor, target: Tensor, *, probabilities: bool, temperature: float) -> Tensor:
    """T^2 times the divergence [nat] of yes/no answers from soft targets, mean over elements."""
    scores = yes_scores(output, probabilities) / temperature
    crossed = functional.binary_cross_entropy_with_logits(scores, target)
    own = functional.binary_cross_entropy(target, target)
    return temperature**2 * (crossed - own)


def numbers(output: Tensor, target: Tensor, *, variance: float) -> Tensor:
    """Mean squared distance from the teachers' mean, as a share of their variance."""
    return squared(output, target, variance=variance)
