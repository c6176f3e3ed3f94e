"""Losses towards labels, by the kind of answer, each a mean over rows.

Outputs may be logits or probabilities; of probabilities the logarithm is taken, which stands for the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

TINY = 1e-7


def class_scores(output: Tensor, axis: int, probabilities: bool) -> Tensor:
    """Scores [positions, classes] whose softmax are the class probabilities; ``axis`` is the one of the classes."""
    scores = output.movedim(axis, -1).flatten(0, -2)
    return scores.clamp_min(TINY).log() if probabilities else scores


def yes_scores(output: Tensor, probabilities: bool) -> Tensor:
    """Scores whose sigmoid is the probability of yes, in the output's shape."""
    return torch.logit(output, eps=TINY) if probabilities else output


def classes(output: Tensor, labels: Tensor, *, axis: int = -1, probabilities: bool = False) -> Tensor:
    """Cross entropy [nat] of class numbers in the output's shape without ``axis`` (or with an axis of one more at the end)."""
    return functional.cross_entropy(class_scores(output, axis, probabilities), labels.reshape(-1).long())


def binary(output: Tensor, labels: Tensor, *, probabilities: bool = False) -> Tensor:
    """Binary cross entropy [nat] of labels 0 and 1, as many as the output has elements."""
    scores = yes_scores(output, probabilities)
    return functional.binary_cross_entropy_with_logits(scores, labels.reshape(scores.shape).to(scores.dtype))


def squared(output: Tensor, labels: Tensor, *, variance: float = 1.0) -> Tensor:
    """Mean squared error divided by ``variance``: with the labels' own, the share of them that stays unexplained."""
    return functional.mse_loss(output, labels.reshape(output.shape).to(output.dtype)) / variance


def wrong_classes(output: Tensor, labels: Tensor, *, axis: int = -1) -> Tensor:
    """Share of positions whose largest score is not the label's."""
    return (output.movedim(axis, -1).flatten(0, -2).argmax(-1) != labels.reshape(-1)).float().mean()


def wrong_answers(output: Tensor, labels: Tensor, *, probabilities: bool = False) -> Tensor:
    """Share of elements on the wrong side: of 0.5 for probabilities, of 0 for logits."""
    return ((output > (0.5 if probabilities else 0.0)) != (labels.reshape(output.shape) > 0)).float().mean()


def spread(values: Sequence[Tensor] | Tensor) -> float:
    """Variance of all elements about the mean of each column; 1 where there is none to speak of."""
    held = values if isinstance(values, Tensor) else torch.cat(list(values))
    held = held.double().reshape(len(held), -1)
    variance = float((held - held.mean(0)).square().mean())
    return variance if variance > 1e-12 else 1.0
