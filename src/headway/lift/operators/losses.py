"""Losses that stand inside a graph."""

from __future__ import annotations

import torch
from torch import Tensor

from headway.lift.node import Node
from headway.lift.registry import Run, operator


def _reduced(scores: Tensor, target: Tensor, weight: Tensor | None, node: Node) -> Tensor:
    ignored, how = node.get("ignore_index"), node.get("reduction", "mean")
    target = target.long()
    alive = torch.ones_like(target, dtype=torch.bool) if ignored is None else target != ignored
    safe = torch.where(alive, target, torch.zeros_like(target))
    shares = (torch.ones_like(safe, dtype=scores.dtype) if weight is None else weight[safe]) * alive
    loss = -scores.gather(1, safe.unsqueeze(1)).squeeze(1) * shares
    if how == "none":
        return loss
    return loss.sum() if how == "sum" else loss.sum() / shares.sum()


@operator("NegativeLogLikelihoodLoss")
def _likelihood(node: Node) -> Run:
    return lambda scores, target, weight=None: _reduced(scores, target, weight, node)


@operator("SoftmaxCrossEntropyLoss")
def _cross_entropy(node: Node) -> Run:
    def run(scores: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, ...]:
        logs = torch.log_softmax(scores, 1)
        return (_reduced(logs, target, weight, node), logs)[: len(node.proto.output)]

    return run
