"""The learning rate's course: a straight rise, then half a cosine down to zero (Loshchilov and Hutter, arXiv 1608.03983, section 3)."""

from __future__ import annotations

import math


def rate_factor(step: int, steps: int, warmup: float) -> float:
    """Share of the highest learning rate at a step, in (0, 1].

    Args:
        step: from 0.
        steps: number of steps in all.
        warmup: share of the steps in which it rises.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def step_count(rows: int, batch: int, epochs: int, most: int, *, whole: bool = False) -> tuple[int, int]:
    """Steps of one epoch, and of all; ``most`` is the largest number of all (0: no limit); ``whole`` leaves a last short batch out."""
    each = rows // batch if whole else -(-rows // batch)
    total = each * epochs
    return each, min(total, most) if most else total
