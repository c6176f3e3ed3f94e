"""Weights of several losses, learned: Kendall, Gal and Cipolla, "Multi-task learning using uncertainty" (arXiv 1705.07115, section 3.2).

Each loss L has a log variance s that is trained along: the sum is of ``exp(-s) L + s / 2`` for answers with classes, and of
``exp(-s) L / 2 + s / 2`` for numbers. At the best s a loss weighs by the inverse of its own size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Uncertainty(nn.Module):
    """One log variance a loss, from 0: at the start classes weigh 1 and numbers 1/2."""

    def __init__(self, numbers: Sequence[bool]) -> None:
        """``numbers``: for each loss whether it is a squared error."""
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(len(numbers)))
        self.register_buffer("factor", torch.tensor([0.5 if number else 1.0 for number in numbers]), persistent=False)

    def forward(self, losses: Sequence[Tensor]) -> list[Tensor]:
        """The losses, each weighted and with its own penalty."""
        factors = self.factor * torch.exp(-self.log_variance)
        return [loss * factor + variance / 2 for loss, factor, variance in zip(losses, factors, self.log_variance, strict=True)]
