"""Choosing boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from headway.lift.node import Node
from headway.lift.registry import Run, operator


@operator("NonMaxSuppression", host=(2, 3, 4))
def _suppress(node: Node) -> Run:
    centred = node.get("center_point_box", 0)

    def run(
        boxes: Tensor, scores: Tensor, most: Tensor | None = None, overlap: Tensor | None = None, least: Tensor | None = None
    ) -> Tensor:
        count = 0 if most is None else int(most)
        limit, floor = (None if each is None else float(each) for each in (overlap, least))
        found = []
        for batch, (places, classes) in enumerate(zip(_corners(boxes, centred), scores, strict=True)):
            for number, values in enumerate(classes):
                found += [[batch, number, box] for box in _kept(places, values, count, limit or 0.0, floor)]
        return torch.tensor(found, dtype=torch.int64, device=boxes.device).reshape(-1, 3)

    return run


def _corners(boxes: Tensor, centred: int) -> Tensor:
    if centred:
        middle, half = boxes[..., :2], boxes[..., 2:] / 2
        return torch.cat((middle - half, middle + half), -1)
    return torch.cat((torch.minimum(boxes[..., :2], boxes[..., 2:]), torch.maximum(boxes[..., :2], boxes[..., 2:])), -1)


def _kept(boxes: Tensor, scores: Tensor, most: int, limit: float, floor: float | None) -> list[int]:
    """Best first, leaving out boxes that overlap a kept one by more than ``limit`` (intersection over union)."""
    chosen: list[int] = []
    for place in torch.argsort(scores, descending=True, stable=True).tolist():
        if len(chosen) >= most or (floor is not None and float(scores[place]) <= floor):
            break
        if not chosen or bool((_overlaps(boxes[place], boxes[chosen]) <= limit).all()):
            chosen.append(place)
    return chosen


def _overlaps(box: Tensor, others: Tensor) -> Tensor:
    low, high = torch.maximum(box[:2], others[:, :2]), torch.minimum(box[2:], others[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    both = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - shared
    return torch.where(both > 0, shared / both.clamp(min=1e-12), torch.zeros_like(both))
