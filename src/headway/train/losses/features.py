"""Losses towards inner values of a teacher: Romero et al., "FitNets" (arXiv 1412.6550, section 2.2), without a regressor: shapes must agree."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def mse(value: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance over the mean square of the target; 0 when alike, 1 for a value of zeros."""
    return functional.mse_loss(value, target) / target.square().mean().clamp_min(1e-12)


def cosine(value: Tensor, target: Tensor) -> Tensor:
    """One minus the cosine along the last axis, mean over the others; blind to length."""
    return 1 - functional.cosine_similarity(value, target, dim=-1).mean()
